#!/bin/bash
# supervise.sh WORK: runs WORK/start.sh again and again, as a kubelet restarts a container: at once when
# it ran for a while, else after a second.
#   WORK/pid    process of the container        WORK/log     what it said
#   WORK/stop   end when the container ends     WORK/hold    do not start it while this is there
#   WORK/exits  one line per end: status
work="$1"
while [ ! -e "$work/stop" ]; do
    if [ -e "$work/hold" ]; then
        sleep 0.05
        continue
    fi
    # Own session: a signal to the container reaches nothing else. The whole
    # way down is exec, so the pid is the container's.
    setsid bash "$work/start.sh" >>"$work/log" 2>&1 &
    container=$!
    echo "$container" >"$work/pid"
    started=$SECONDS
    wait "$container"
    echo $? >>"$work/exits"
    # As a runtime does: what the container's session left ends with it.
    pkill -KILL -s "$container" || true
    [ -e "$work/stop" ] || [ -e "$work/hold" ] || [ $((SECONDS - started)) -ge 10 ] || sleep 1
done
rm -f "$work/pid"
