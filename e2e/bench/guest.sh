# Sourced: one quiet guest with IPVS, for as long as the script that asked for it runs.
# shellcheck shell=bash

BENCH_HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
REPOSITORY="$(cd "$BENCH_HERE/../.." && pwd)"
# shellcheck source=../cluster/process.sh
. "$BENCH_HERE/../cluster/process.sh"
# shellcheck source=../cluster/guest.sh
. "$BENCH_HERE/../cluster/guest.sh"

# progress TEXT: on stderr; standard output carries results.
progress() { printf '%s: %s\n' "$(basename "$0" .sh)" "$*" >&2; }

# build_release PACKAGE EXAMPLE: prints the path of the static release build. Folder and
# flags are those of setup/image.sh: what the images were built from is not
# compiled again.
build_release() {
    local target=x86_64-unknown-linux-gnu flags
    progress "building $2 (seconds when nothing changed, 3 min cold)"
    flags="$(printf '%s\x1f' -Ctarget-feature=+crt-static "--remap-path-prefix=$REPOSITORY=/lvs-operator" \
        "--remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo")"
    (cd "$REPOSITORY" && CARGO_TARGET_DIR=target/image CARGO_ENCODED_RUSTFLAGS="${flags%$'\x1f'}" \
        cargo build --quiet --release --locked --target "$target" --package "$1" --example "$2") >&2
    printf '%s\n' "$REPOSITORY/target/image/$target/release/examples/$2"
}

# build_debug EXAMPLE: the same as it comes out of the tests' build.
build_debug() {
    progress "building $1 (seconds after the tests, 3 min cold)"
    (cd "$REPOSITORY" && cargo build --quiet --locked --workspace --example "$1") >&2
    printf '%s\n' "$REPOSITORY/target/debug/examples/$1"
}

# with_guest [PROGRAM…]: boots the guest with these programs in /run; it ends
# with this script, however that ends.
with_guest() {
    GUEST_STATE="$(mktemp -d "${TMPDIR:-/tmp}/lvs-bench.XXXXXX")"
    trap 'finish_all "$GUEST_STATE"; rm -rf "$GUEST_STATE"' EXIT
    trap 'exit 130' INT TERM
    progress "booting a guest (2 s)"
    open_wire "$GUEST_STATE"
    boot_guest "$GUEST_STATE" ipvs "$BENCH_HERE/guest-init.sh" 1024 1
    await_guest "$GUEST_STATE" ipvs 120
    wait_until 120 "the modules of the guest" grep -q ' ready$' "$GUEST_STATE/guests/ipvs/share/marks"
    # Copied into the guest's own memory.
    local program
    for program in "$@"; do
        cp "$program" "$GUEST_STATE/guests/ipvs/share/"
        in_guest "cp /share/$(basename "$program") /run/"
    done
}

# in_guest SCRIPT [ARGUMENT…]
in_guest() { run_in_guest "$GUEST_STATE" ipvs "$@"; }
