#!/usr/bin/env bash
# Health checks of targets on loopback, 10,000 by TCP and 2,000 by HTTP each 5 s, turn by turn in one run: a bare prober in C,
# ours, and keepalived, which is told that there is IPVS (checks/willing_ipvs.c). In the first round ldirectord with 200 by
# TCP, in the guest, as it needs a kernel with IPVS; the guest's kernel counts time in steps of 10 ms.
#
#   checks.sh [ROUNDS [PERIOD_SECONDS]]     default 5 5; the last line is one JSON object
#
# A miss is printed, not an error.
set -euo pipefail
# shellcheck source=guest.sh
. "$(dirname "${BASH_SOURCE[0]}")/guest.sh"
cd "$REPOSITORY"
rounds="${1:-5}" period="${2:-5}"
ours="$(build_release lvs-agent check_prober)"
work="$(mktemp -d)"
for program in listener prober; do
    cc -O2 -Wall -Wextra -Werror -o "$work/$program" "e2e/bench/checks/$program.c"
done
cc -O2 -Wall -Wextra -Werror -shared -fPIC -o "$work/willing_ipvs.so" e2e/bench/checks/willing_ipvs.c
cp "$ours" "$work/check_prober"
cp e2e/bench/checks/round.sh "$work/"
with_guest "$work/listener" "$work/round.sh"
trap 'finish_all "$GUEST_STATE"; rm -rf "$GUEST_STATE" "$work"' EXIT

# told NAME: the figures that came last, for people.
told() {
    progress "$(printf '%-12s %s' "$1" "$(tail -n 1 "$work/$1" |
        jq -r '"\(.processor_share * 1000 | round / 10) % of a processor, \(.resident_megabytes) MB, asked \(.targets_asked) of \(.targets), begins within \(.begins_seconds) s, period p99 \(.p99_seconds) s, longest \(.longest_seconds) s, late \(.late_by_a_tenth)"')")"
}

for ((turn = 1; turn <= rounds; turn++)); do
    for name in bare ours keepalived; do
        bash "$work/round.sh" "$name" "$period" 10000 2000 >>"$work/$name"
        told "$name"
    done
    if [ "$turn" -eq 1 ]; then
        # It needs more than a minute to begin.
        # shellcheck disable=SC2016  # expanded in the guest
        in_guest 'ip link set lo up && bash /run/round.sh ldirectord "$1" 200 0' "$period" >>"$work/ldirectord"
        told ldirectord
    fi
done
jq -c -n --slurpfile bare "$work/bare" --slurpfile ours "$work/ours" --slurpfile keepalived "$work/keepalived" --slurpfile ldirectord "$work/ldirectord" '
    def median: sort | .[length / 2 | floor];
    def ratios($over): [range(length) as $turn | .[$turn].processor_share / $over[$turn].processor_share];
    def spread: {median: median, least: min, most: max};
    def most(figure): map(figure) | max;
    {bench: "checks", rounds: ($bare | length), targets: 12000, targets_of_ldirectord: 200,
     processor_ratio_to_bare: (($ours | ratios($bare) | spread) + {aim: 1.5}),
     processor_ratio_to_keepalived: (($ours | ratios($keepalived) | spread) + {aim: 1}),
     processor_share: {ours: ($ours | map(.processor_share) | spread), bare: ($bare | map(.processor_share) | spread),
                       keepalived: ($keepalived | map(.processor_share) | spread), ldirectord: ($ldirectord | most(.processor_share))},
     begins_seconds: {ours: ($ours | most(.begins_seconds)), keepalived: ($keepalived | most(.begins_seconds)), ldirectord: ($ldirectord | most(.begins_seconds))},
     resident_megabytes: {most: ($ours | most(.resident_megabytes)), aim: 40, keepalived: ($keepalived | most(.resident_megabytes)), ldirectord: ($ldirectord | most(.resident_megabytes))},
     period_p99_seconds: {ours: ($ours | most(.p99_seconds)), bare: ($bare | most(.p99_seconds)), keepalived: ($keepalived | most(.p99_seconds)), ldirectord: ($ldirectord | most(.p99_seconds))},
     longest_seconds: {ours: ($ours | most(.longest_seconds)), keepalived: ($keepalived | most(.longest_seconds))},
     late_by_a_tenth: {most: ($ours | most(.late_by_a_tenth)), aim: 0, bare: ($bare | most(.late_by_a_tenth)), keepalived: ($keepalived | most(.late_by_a_tenth)), ldirectord: ($ldirectord | most(.late_by_a_tenth))},
     targets_asked: {least: ($ours | map(.targets_asked) | min)}}'
