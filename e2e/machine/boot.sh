#!/usr/bin/env bash
# Tier 2's one guest.
#
#   boot.sh up STATE     boots it; prints nothing, leaves STATE/guests/machine/{command-port,share/token}
#   boot.sh down STATE   ends exactly what up started
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
# shellcheck source=../cluster/process.sh
. "$here/../cluster/process.sh"
# shellcheck source=../cluster/qemu.sh
. "$here/../cluster/qemu.sh"
state="$2"
case "$1" in
up)
    mkdir -p "$state"
    chmod 700 "$state"
    state="$(cd "$state" && pwd)"
    # Two processors: the client must not starve the directors.
    boot_guest "$state" machine "$here/machine-init.sh" "${MACHINE_MEMORY_MIB:-3072}" "${MACHINE_CPUS:-2}"
    await_guest "$state" machine 300
    hosts_ready() { grep -q ' ready$' "$state/guests/machine/share/marks"; }
    wait_until 300 "the hosts of the machine (marks: $state/guests/machine/share/marks)" hosts_ready
    ;;
down) finish_all "$state" ;;
*)
    echo "boot.sh: no command $1" >&2
    exit 2
    ;;
esac
