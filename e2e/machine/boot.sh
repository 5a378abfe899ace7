#!/usr/bin/env bash
# Tier 2's one guest, `machine`.
#
#   boot.sh up STATE [bare]                  boots it and waits for its hosts; prints nothing.
#                                            bare: its kernel has no IPv6 and no tunnels
#   boot.sh carry-in STATE PORT              it reaches 127.0.0.1:PORT of this machine at 10.0.2.2:PORT
#   boot.sh carry-out STATE LISTEN PORT      LISTEN ("127.0.0.1:1234") here is PORT of its first namespace
#   boot.sh down STATE                       ends exactly what was started
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
# shellcheck source=../cluster/process.sh
. "$here/../cluster/process.sh"
# shellcheck source=../cluster/guest.sh
. "$here/../cluster/guest.sh"
mkdir -p "$2"
state="$(cd "$2" && pwd)"
case "$1" in
up)
    chmod 700 "$state"
    open_wire "$state"
    [ "${3:-}" != bare ] || export GUEST_ARGUMENTS="ipv6.disable=1 lvs.bare"
    boot_guest "$state" machine "$here/machine-init.sh" "${MACHINE_MEMORY_MIB:-3072}" 1
    await_guest "$state" machine 120
    hosts_ready() { grep -q ' ready$' "$state/guests/machine/share/marks"; }
    wait_until 120 "the hosts of the machine (marks: $state/guests/machine/share/marks)" hosts_ready
    ;;
carry-in) carry_in "$state" "$3" ;;
carry-out) carry_out "$state" "$4" "$3" "$(guest_address 1):$4" ;;
down) finish_all "$state" ;;
*)
    echo "boot.sh: no command $1" >&2
    exit 2
    ;;
esac
