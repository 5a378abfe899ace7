#!/usr/bin/env bash
# The Rust toolchain of rust-toolchain.toml, through rustup.
set -euo pipefail
# shellcheck source=cache.sh
. "$(dirname "${BASH_SOURCE[0]}")/cache.sh"

command -v cargo >/dev/null || missing "cargo (Rust toolchain, version in rust-toolchain.toml)" \
    "curl --proto '=https' -sSf https://sh.rustup.rs | sh -s -- -y --default-toolchain none, then put ~/.cargo/bin on PATH"
# Inside the repository rustup reads rust-toolchain.toml and fetches what is
# absent; a plain cargo has to be recent enough by itself.
(cd "$SETUP_DIR" && cargo --version >&2) || missing "a working cargo" "run: rustup toolchain install (in the repository)"
for component in fmt clippy; do
    (cd "$SETUP_DIR" && cargo "$component" --version >/dev/null 2>&1) || missing "cargo $component" "rustup component add ${component/fmt/rustfmt}"
done
