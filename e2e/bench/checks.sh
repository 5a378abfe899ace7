#!/usr/bin/env bash
# Health checks of targets on loopback, turn by turn in one run:
#
#   natively  10,000 TCP and 2,000 HTTP each 5 s, ours against a bare prober in C
#   in the guest, as keepalived and ldirectord need a kernel with IPVS:
#             1,000 TCP and 200 HTTP each 5 s, ours against keepalived and the
#             bare prober; and, in the first round, ldirectord with 200 TCP, which it asks
#             one after another
#
#   checks.sh [ROUNDS [PERIOD_SECONDS [SECONDS]]]     default 5 5 40; the last line is one JSON object
#
# A miss is printed, not an error.
set -euo pipefail
# shellcheck source=guest.sh
. "$(dirname "${BASH_SOURCE[0]}")/guest.sh"
cd "$REPOSITORY"
rounds="${1:-5}" period="${2:-5}" seconds="${3:-40}"
tcp=18080 http=18081 tcp_count=10000 http_count=2000
ours="$(build_release lvs-agent check_prober)"
work="$(mktemp -d)"
for program in listener prober; do
    cc -O2 -Wall -Wextra -Werror -o "$work/$program" "e2e/bench/checks/$program.c"
done
with_guest "$ours" "$work/listener" "$work/prober" e2e/bench/checks/round.sh
trap 'finish_all "$GUEST_STATE"; rm -rf "$GUEST_STATE" "$work"' EXIT
ulimit -n "$(ulimit -Hn)"

# native NAME PROGRAM: runs a prober against fresh listeners; its figures and theirs are one line of $work/NAME.
native() {
    local listened="$work/logs/listener.log"
    rm -f "$listened"
    launch "$work" listener "$work/listener" "$tcp" "$http" "$((tcp_count + http_count))" "$period"
    wait_until 10 "the listeners" grep -q ready "$listened"
    "$2" "$tcp" "$tcp_count" "$http" "$http_count" "$period" "$seconds" >"$work/asked"
    finish "$work" listener
    tail -n 1 "$listened" | jq -c --slurpfile asked "$work/asked" '$asked[0] + .' >>"$work/$1"
    progress "$(printf '%-12s natively      %s' "$1" "$(tail -n 1 "$work/$1" |
        jq -r '"\(.processor_share * 1000 | round / 10) % of a processor, \(.resident_megabytes) MB, period p99 \(.p99_seconds) s, longest \(.longest_seconds) s, late \(.late_by_a_tenth)"')")"
}

# guest NAME: the same in the guest, with whom keepalived and ldirectord can be compared; one line of $work/guest-NAME.
guest() {
    # shellcheck disable=SC2016  # expanded in the guest
    in_guest 'bash /run/round.sh "$1" "$2"' "$1" "$period" >>"$work/guest-$1"
    progress "$(printf '%-12s in the guest  %s' "$1" "$(tail -n 1 "$work/guest-$1" |
        jq -r '"\(.processor_share * 1000 | round / 10) % of a processor, \(.resident_megabytes) MB, targets asked \(.targets_asked) of \(.targets), period p99 \(.p99_seconds) s"')")"
}

for ((turn = 1; turn <= rounds; turn++)); do
    native bare "$work/prober"
    native ours "$ours"
    for name in bare ours keepalived; do guest "$name"; done
    # It needs more than a minute to begin.
    [ "$turn" -gt 1 ] || guest ldirectord
done
jq -c -n --slurpfile bare "$work/bare" --slurpfile ours "$work/ours" --slurpfile guest_bare "$work/guest-bare" --slurpfile guest_ours "$work/guest-ours" \
    --slurpfile keepalived "$work/guest-keepalived" --slurpfile ldirectord "$work/guest-ldirectord" '
    def median: sort | .[length / 2 | floor];
    def ratios($over): [range(length) as $turn | .[$turn].processor_share / $over[$turn].processor_share];
    def spread: {median: median, least: min, most: max};
    {bench: "checks", rounds: ($bare | length),
     processor_ratio_to_bare: (($ours | ratios($bare) | spread) + {aim: 1.5}),
     processor_ratio_to_keepalived: (($guest_ours | ratios($keepalived) | spread) + {aim: 1}),
     processor_share: {ours: ($ours | map(.processor_share) | spread), bare: ($bare | map(.processor_share) | spread),
                       guest_ours: ($guest_ours | map(.processor_share) | spread), guest_bare: ($guest_bare | map(.processor_share) | spread),
                       guest_keepalived: ($keepalived | map(.processor_share) | spread), guest_ldirectord_200: ($ldirectord | map(.processor_share) | spread)},
     begins_seconds: {guest_ours: ($guest_ours | map(.begins_seconds) | max), guest_keepalived: ($keepalived | map(.begins_seconds) | max),
                      guest_ldirectord_200: ($ldirectord | map(.begins_seconds) | max)},
     resident_megabytes: {most: ($ours | map(.resident_megabytes) | max), aim: 40, guest_keepalived: ($keepalived | map(.resident_megabytes) | max),
                          guest_ldirectord_200: ($ldirectord | map(.resident_megabytes) | max)},
     period_p99_seconds: {ours: ($ours | map(.p99_seconds) | max), guest_keepalived: ($keepalived | map(.p99_seconds) | max),
                          guest_ldirectord_200: ($ldirectord | map(.p99_seconds) | max)},
     longest_seconds: ($ours | map(.longest_seconds) | max),
     late_by_a_tenth: {most: ($ours | map(.late_by_a_tenth) | max), aim: 0, bare: ($bare | map(.late_by_a_tenth) | max),
                       guest_keepalived: ($keepalived | map(.late_by_a_tenth) | max), guest_ldirectord_200: ($ldirectord | map(.late_by_a_tenth) | max)},
     targets_asked: {least: ($ours | map(.targets_asked) | min)}}'
