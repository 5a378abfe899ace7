#!/usr/bin/env bash
# Health checks of 10,000 TCP and 2,000 HTTP targets on loopback, ours against
# a bare prober in C, turn by turn in one run.
#
#   checks.sh [ROUNDS [PERIOD_SECONDS [SECONDS]]]     default 5 5 40; the last line is one JSON object
#
# A miss is printed, not an error.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
rounds="${1:-5}" period="${2:-5}" seconds="${3:-40}"
tcp=18080 http=18081 tcp_count=10000 http_count=2000
work="$(mktemp -d)"
listener=
cleanup() {
    [ -z "$listener" ] || kill "$listener" 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT
ulimit -n "$(ulimit -Hn)"

for program in listener prober; do
    cc -O2 -Wall -Wextra -Werror -o "$work/$program" "e2e/bench/checks/$program.c"
done
cargo build --quiet --locked --release --package lvs-agent --example check_prober
ours=target/release/examples/check_prober

# round NAME PROGRAM: runs a prober against fresh listeners; its figures and theirs are one line of $work/NAME.
round() {
    "$work/listener" "$tcp" "$http" "$((tcp_count + http_count))" "$period" >"$work/listened" &
    listener=$!
    until grep -q ready "$work/listened"; do sleep 0.05; done
    "$2" "$tcp" "$tcp_count" "$http" "$http_count" "$period" "$seconds" >"$work/asked"
    kill -TERM "$listener"
    wait "$listener"
    listener=
    tail -n 1 "$work/listened" | jq -c --slurpfile asked "$work/asked" '$asked[0] + .' >>"$work/$1"
    printf '[%4d s] %-12s %s\n' "$SECONDS" "$1" "$(tail -n 1 "$work/$1" |
        jq -r '"\(.processor_share * 100 | round) % of a processor, \(.resident_megabytes) MB, period p99 \(.p99_seconds) s, longest \(.longest_seconds) s, late \(.late_by_a_tenth)"')"
}

for ((turn = 1; turn <= rounds; turn++)); do
    round bare "$work/prober"
    round lvs-operator "$ours"
done
jq -c -n --slurpfile bare "$work/bare" --slurpfile ours "$work/lvs-operator" '
    def median: sort | .[length / 2 | floor];
    [range($bare | length) | $ours[.].processor_share / $bare[.].processor_share] as $ratios
    | {bench: "checks", rounds: ($bare | length),
       processor_ratio: {median: ($ratios | median), least: ($ratios | min), most: ($ratios | max), aim: 1.5},
       resident_megabytes: {most: ($ours | map(.resident_megabytes) | max), aim: 40},
       period_p99_seconds: {most: ($ours | map(.p99_seconds) | max)},
       longest_seconds: ($ours | map(.longest_seconds) | max),
       late_by_a_tenth: {most: ($ours | map(.late_by_a_tenth) | max), aim: 0, bare: ($bare | map(.late_by_a_tenth) | max)},
       targets_asked: {least: ($ours | map(.targets_asked) | min)}}'
