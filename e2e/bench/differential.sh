#!/usr/bin/env bash
# The kernel model of the agent's core against a real kernel, and our dumps
# against `ipvsadm -Sn`: random sequences of operations with fixed seeds.
#
#   differential.sh [CASES [SEED…]]     default 60 1 2
set -euo pipefail
# shellcheck source=guest.sh
. "$(dirname "${BASH_SOURCE[0]}")/guest.sh"
cases="${1:-60}"
shift $(($# > 0))
[ $# -gt 0 ] || set -- 1 2
program="$(build_debug kernel_differential)"
with_guest "$program"
for seed in "$@"; do
    progress "$cases sequences with seed $seed"
    # User-mode Linux counts 100 ticks a second (HZ in arch/um/Kconfig).
    # shellcheck disable=SC2016  # expanded in the guest
    in_guest '/run/kernel_differential "$1" "$2" 100' "$cases" "$seed"
done
