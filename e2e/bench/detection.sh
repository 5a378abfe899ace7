#!/usr/bin/env bash
# How soon a dead listener is noticed, asked every second with 1 s for an answer,
# down after two failures; one that refuses, and one that is silent:
#
#   natively  the agent's health checks, from the death until they say so
#   in the guest, as the others need a kernel with IPVS: our agent, keepalived and
#             ldirectord side by side, from the death until the listener is out of
#             the kernel; and their clients
#
#   detection.sh [DEATHS]     of each kind in the guest, default 12; the last line is one JSON object
#
# A miss is printed, not an error.
set -euo pipefail
# shellcheck source=guest.sh
. "$(dirname "${BASH_SOURCE[0]}")/guest.sh"
cd "$REPOSITORY"
prober="$(build_debug detection_prober)"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
load() { cut -d ' ' -f 1 /proc/loadavg; }

before="$(load)"
progress "natively (1 min)"
"$prober" 10 | tee "$work/native" >&2
target/debug/bench-detection --deaths "${1:-12}" | tee "$work/guest" >&2
jq -c -n --slurpfile native "$work/native" --slurpfile guest <(tail -n 1 "$work/guest") --argjson before "$before" --argjson after "$(load)" \
    '{bench: "detection", native: $native[0], guest: $guest[0], load_of_the_machine: {before: $before, after: $after}}'
