# Sourced: one quiet guest with IPVS, for as long as the script that asked for it runs.
# shellcheck shell=bash

BENCH_HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
REPOSITORY="$(cd "$BENCH_HERE/../.." && pwd)"
# shellcheck source=../cluster/process.sh
. "$BENCH_HERE/../cluster/process.sh"
# shellcheck source=../cluster/qemu.sh
. "$BENCH_HERE/../cluster/qemu.sh"

# progress TEXT: on stderr; standard output carries results.
progress() { printf '%s: %s\n' "$(basename "$0" .sh)" "$*" >&2; }

# build_static CRATE EXAMPLE: prints the path of the release build, static, so
# that the guest's libraries do not matter.
build_static() {
    progress "building $2 (2 min when nothing is built yet)"
    (cd "$REPOSITORY" && RUSTFLAGS="-C target-feature=+crt-static" cargo build --quiet --release --locked \
        --target x86_64-unknown-linux-gnu --package "$1" --example "$2") >&2
    printf '%s\n' "$REPOSITORY/target/x86_64-unknown-linux-gnu/release/examples/$2"
}

# with_guest: boots the guest; it ends with this script, however that ends.
with_guest() {
    GUEST_STATE="$(mktemp -d "${TMPDIR:-/tmp}/lvs-bench.XXXXXX")"
    trap 'finish_all "$GUEST_STATE"; rm -rf "$GUEST_STATE"' EXIT
    trap 'exit 130' INT TERM
    progress "booting a guest (10 s)"
    boot_guest "$GUEST_STATE" ipvs "$BENCH_HERE/guest-init.sh" 1024 "${GUEST_CPUS:-2}"
    await_guest "$GUEST_STATE" ipvs 120
    wait_until 120 "the modules of the guest" grep -q ' ready$' "$GUEST_STATE/guests/ipvs/share/marks"
    # Copied to where it is not read over 9p.
    local program
    for program in "$@"; do
        cp "$program" "$GUEST_STATE/guests/ipvs/share/"
        in_guest "cp /share/$(basename "$program") /run/"
    done
}

# in_guest SCRIPT [ARGUMENT…]
in_guest() { run_in_guest "$GUEST_STATE" ipvs "$@"; }
