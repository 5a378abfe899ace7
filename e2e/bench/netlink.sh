#!/usr/bin/env bash
# Programming IPVS with 100 services of 100 real servers: ours against
# `ipvsadm -R`, `ipvsadm -Sn` and keepalived, in one machine and one run.
#
#   netlink.sh [ROUNDS]     default 5; the last line is one JSON object
#
# Ends with an error when a ratio is below its aim.
set -euo pipefail
# shellcheck source=guest.sh
. "$(dirname "${BASH_SOURCE[0]}")/guest.sh"
rounds="${1:-5}"
program="$(build_release lvs-ipvs bench_netlink)"
with_guest "$program"
progress "$rounds rounds of about 10 s"
# shellcheck disable=SC2016  # expanded in the guest
in_guest '/run/bench_netlink "$1" "$(uname -r)"' "$rounds"
