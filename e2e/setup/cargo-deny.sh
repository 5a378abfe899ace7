#!/usr/bin/env bash
# cargo-deny: licences, bans and sources of the dependencies.
set -euo pipefail
# shellcheck source=cache.sh
. "$(dirname "${BASH_SOURCE[0]}")/cache.sh"

# Unoptimised: it runs for a second at a time, and half of building it was optimising.
build() {
    CARGO_TARGET_DIR="$LVS_CACHE/cargo-deny/target" \
        cargo install --debug --locked --version "$CARGO_DENY_VERSION" --root "$1" cargo-deny
    rm -rf "$LVS_CACHE/cargo-deny/target"
}

"$SETUP_DIR/tool.sh" cargo-deny >/dev/null 2>&1 && exit 0
"$SETUP_DIR/rust.sh"
make_once "$LVS_CACHE/cargo-deny/$CARGO_DENY_VERSION" "building cargo-deny $CARGO_DENY_VERSION" "90 s on 2 cores" build
