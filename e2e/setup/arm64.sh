#!/usr/bin/env bash
# What builds the images for arm64 on amd64: Debian's cross compiler, Rust's standard library for it, and qemu, which runs the
# binaries once.
set -euo pipefail
# shellcheck source=cache.sh
. "$(dirname "${BASH_SOURCE[0]}")/cache.sh"

target=aarch64-unknown-linux-gnu
"$SETUP_DIR/packages.sh" arm64
cd "$SETUP_DIR"
[ -d "$(rustc --print sysroot)/lib/rustlib/$target/lib" ] && exit 0
command -v rustup >/dev/null || missing "Rust's standard library for $target" "install it beside $(rustc --print sysroot)"
rustup target add "$target" >&2 || missing "Rust's standard library for $target" "rustup target add $target"
