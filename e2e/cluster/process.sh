# Sourced: background processes that belong to one run, each with a pid file
# that also holds the start time, so that exactly what was started is ended.
#
#   STATE/run/<name>.pid    "<pid> <start time in clock ticks>"
#   STATE/logs/<name>.log   its output
# shellcheck shell=bash

# start_time PID: field 22 of /proc/PID/stat; the command name may hold spaces.
start_time() {
    local stat
    stat="$(cat "/proc/$1/stat" 2>/dev/null)" || return 1
    stat="${stat##*) }"
    # shellcheck disable=SC2086  # split on purpose
    set -- $stat
    [ "$1" != Z ] || return 1
    printf '%s\n' "${20}"
}

# launch STATE NAME COMMAND…: starts COMMAND in its own session. The process
# writes its pid file itself, before it becomes COMMAND, and gives up when the
# state is being closed: whoever interrupts us here leaves nothing behind.
# What runs here holds leases and answers probes by the clock, so it goes before
# compilers, where that is permitted: by nice value, and by that of the session,
# which is what counts with the kernel's autogroups.
launch() {
    local state="$1" name="$2"
    shift 2
    mkdir -p "$state/run" "$state/logs"
    rm -f "$state/run/$name.pid" "$state/run/closing"
    printf '%s\n' "$name" >>"$state/run/order"
    # shellcheck disable=SC2016  # expanded by the inner shell
    setsid bash -c '
        read -r stat </proc/$$/stat
        stat=(${stat##*) })
        echo "$$ ${stat[19]}" >"$0/$1.pid.new"
        mv "$0/$1.pid.new" "$0/$1.pid"
        [ ! -e "$0/closing" ] || exit 1
        renice --priority -5 --pid "$$" >/dev/null 2>&1
        echo -10 2>/dev/null >"/proc/$$/autogroup" || :
        shift
        exec "$@"' "$state/run" "$name" "$@" </dev/null >>"$state/logs/$name.log" 2>&1 &
    disown "$!"
    until [ -f "$state/run/$name.pid" ]; do sleep 0.02; done
}

# running STATE NAME: true while the process that was launched is there.
running() {
    local pid started
    [ -f "$1/run/$2.pid" ] || return 1
    read -r pid started <"$1/run/$2.pid"
    [ "$(start_time "$pid")" = "$started" ]
}

# finish STATE NAME [SIGNAL]: ends one process and waits for it; KILL after 10 s.
# What it started in its session ends with it.
finish() {
    local state="$1" name="$2" signal="${3:-TERM}" pid started deadline=$((SECONDS + 10))
    [ -f "$state/run/$name.pid" ] || return 0
    read -r pid started <"$state/run/$name.pid"
    if running "$state" "$name"; then
        kill -s "$signal" "$pid" 2>/dev/null || true
        while running "$state" "$name"; do
            [ "$SECONDS" -lt "$deadline" ] || kill -s KILL "$pid" 2>/dev/null || true
            sleep 0.02
        done
    fi
    pkill -KILL -s "$pid" || true
    rm -f "$state/run/$name.pid"
}

# finish_all STATE: ends everything that was launched there, newest first.
finish_all() {
    local name
    [ -f "$1/run/order" ] || return 0
    : >"$1/run/closing"
    tac "$1/run/order" | while read -r name; do finish "$1" "$name"; done
    rm -f "$1/run/order"
}

# wait_until SECONDS WHAT COMMAND…: polls a condition; on time-out says what
# was waited for.
wait_until() {
    local deadline=$((SECONDS + $1)) what="$2"
    shift 2
    until "$@" >/dev/null 2>&1; do
        if [ "$SECONDS" -ge "$deadline" ]; then
            printf 'timed out waiting for %s\n' "$what" >&2
            return 1
        fi
        sleep 0.1
    done
}

# free_port: a TCP port nobody listens on now, outside the ephemeral range.
free_port() {
    local port
    while :; do
        port=$((20000 + RANDOM % 10000))
        ss -Hltn "sport = :$port" | grep -q . || break
    done
    printf '%s\n' "$port"
}
