#!/usr/bin/env bash
# down.sh STATE: ends everything that the lab of tier 2 started there: the pods
# on this machine, the control plane, the guest (and all in it).
set -uo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
# shellcheck source=../cluster/process.sh
. "$here/../cluster/process.sh"
state="$(cd "$1" 2>/dev/null && pwd)" || exit 0
for work in "$state"/pods/*/; do
    [ -e "$work/start.sh" ] || continue
    touch "$work/stop"
    # Its session is the container's; a pid alone may be somebody else's by now.
    if [ -e "$work/pid" ] && pgrep -s "$(cat "$work/pid")" -f "lvs-controller|$work" >/dev/null; then
        pkill -KILL -s "$(cat "$work/pid")"
    fi
done
[ -d "$state/cluster" ] && "$here/../cluster/control-plane.sh" down "$state/cluster"
finish_all "$state"
