#!/bin/bash
# supervise.sh WORK [ahead]: runs WORK/start.sh again and again, as a kubelet restarts a container: at once
# when it ran for a while, else after a second.
#   WORK/pid    process of the container        WORK/log     what it said
#   WORK/stop   end when the container ends     WORK/hold    do not start it while this is there
#   WORK/exits  one line per end: status        WORK/ahead   the container that is prepared: process, fifo;
#                                               the fifo's name and .prepared is there when it waits
#
# To make a container's mounts takes a runtime a moment, but a dozen processes under emulation take seconds.
# With `ahead` the next container is prepared while this one runs, up to the last line of its script, which
# waits for a line in the fifo that start.sh was given. To end what is prepared is to have it made anew.
work="$1"
ahead="${2:-}"
count=0
prepared=

prepare() {
    count=$((count + 1))
    go="$work/go.$count"
    rm -f "$work/go.$((count - 2))"*
    mkfifo "$go"
    # Own session: a signal to the container reaches nothing else. The whole
    # way down is exec, so the pid is the container's.
    setsid bash "$work/start.sh" "$go" >>"$work/log" 2>&1 3>&- &
    prepared=$!
    echo "$prepared $go" >"$work/ahead"
}

while [ ! -e "$work/stop" ]; do
    if [ -e "$work/hold" ]; then
        sleep 0.05
        continue
    fi
    { [ -n "$prepared" ] && kill -0 "$prepared" 2>/dev/null; } || prepare
    # For reading and writing: neither side waits for the other to open it.
    exec 3<>"$go"
    echo go >&3
    rm -f "$work/ahead"
    container=$prepared
    prepared=
    started=$SECONDS
    echo "$container" >"$work/pid"
    if [ -n "$ahead" ]; then
        # Not while everything starts.
        sleep 20 3>&- &
        timer=$!
        ended=
        wait -n -p ended "$container" "$timer"
        status=$?
        if [ "$ended" = "$container" ]; then
            kill "$timer"
        else
            prepare
            wait "$container"
            status=$?
        fi
    else
        wait "$container"
        status=$?
    fi
    echo "$status" >>"$work/exits"
    # As a runtime does: what the container's session left ends with it.
    pkill -KILL -s "$container" || true
    [ -e "$work/stop" ] || [ -e "$work/hold" ] || [ $((SECONDS - started)) -ge 10 ] || sleep 1
done
[ -z "$prepared" ] || pkill -KILL -s "$prepared"
rm -f "$work/pid"
