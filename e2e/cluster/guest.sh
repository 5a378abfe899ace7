# Sourced (after process.sh): guests on the machine's own root, read-only. A
# guest is a user-mode Linux, so an ordinary process; all guests of a STATE hang
# on one wire, a network namespace of this machine.
#
#   STATE/guests/<name>/share/    read-write, /share in the guest
#   STATE/guests/<name>/command   unix socket of its command server
#   STATE/guests/<name>/shell     unix socket of a root shell
#   STATE/logs/<name>.log         its console
# shellcheck shell=bash

GUEST_HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
# shellcheck source=../setup/cache.sh
. "$GUEST_HERE/../setup/cache.sh"
# Every guest's eth0: the way to this machine's services (carry_in).
WIRE_IPV4=10.0.2
# Ports of the command server and of the shell in every guest.
COMMAND_PORT=7000
SHELL_PORT=7001
# For socat: one direction of a relay may be silent for long after the other was closed.
RELAY_SECONDS=86400

# open_wire STATE: the namespace, with the bridge `uplink` on which guests reach
# 10.0.2.2 and nothing else, not even each other.
open_wire() {
    if [ ! -c /dev/net/tun ] && ! modprobe tun; then
        echo "guest: /dev/net/tun is missing: the guests' network needs the module tun on this machine" >&2
        return 1
    fi
    launch "$1" wire unshare --net --mount --propagation private bash "$GUEST_HERE/wire-init.sh" "$1/run/wire.ready" "$WIRE_IPV4.2/24"
    wait_until 10 "the wire of the guests (log: $1/logs/wire.log)" test -e "$1/run/wire.ready"
}

# on_wire STATE COMMAND…: runs a command in that namespace.
on_wire() {
    local pid
    read -r pid _ <"$1/run/wire.pid"
    shift
    nsenter --target "$pid" --net --mount --wd="$PWD" -- "$@"
}

# launch_on_wire STATE NAME COMMAND…: as launch, in that namespace.
launch_on_wire() {
    local state="$1" name="$2" pid
    shift 2
    read -r pid _ <"$state/run/wire.pid"
    launch "$state" "$name" nsenter --target "$pid" --net --mount --wd="$PWD" -- "$@"
}

# carry_in STATE PORT: guests reach 127.0.0.1:PORT of this machine at 10.0.2.2:PORT.
carry_in() {
    # A relative path: those of unix sockets are short.
    launch "$1" "carry-in-$2" env --chdir="$1/run" socat -t "$RELAY_SECONDS" \
        "UNIX-LISTEN:port-$2,fork,unlink-early,mode=600,backlog=128" "TCP:127.0.0.1:$2"
    launch_on_wire "$1" "carried-in-$2" env --chdir="$1/run" socat -t "$RELAY_SECONDS" \
        "TCP-LISTEN:$2,bind=$WIRE_IPV4.2,reuseaddr,fork,backlog=128" "UNIX-CONNECT:port-$2"
}

# carry_out STATE NAME LISTEN ADDRESS: what this machine sends to the TCP socket
# LISTEN ("127.0.0.1:1234") arrives at ADDRESS ("10.0.2.15:1234") on the wire.
carry_out() {
    launch_on_wire "$1" "carried-out-$2" env --chdir="$1/run" socat -t "$RELAY_SECONDS" \
        "UNIX-LISTEN:out-$2,fork,unlink-early,mode=600,backlog=128" "TCP:$4"
    launch "$1" "carry-out-$2" env --chdir="$1/run" socat -t "$RELAY_SECONDS" \
        "TCP-LISTEN:${3##*:},bind=${3%:*},reuseaddr,fork,backlog=128" "UNIX-CONNECT:out-$2"
}

# tap STATE DEVICE BRIDGE [isolated]: an interface of the wire for a guest.
tap() {
    # shellcheck disable=SC2016  # expanded by the inner shell
    on_wire "$1" bash -c '
        ip link show "$1" >/dev/null 2>&1 || ip tuntap add dev "$1" mode tap vnet_hdr
        ip link set "$1" master "$2" up
        [ -z "$3" ] || bridge link set dev "$1" isolated on' tap "$2" "$3" "${4:-}"
}

# guest_address INDEX: of that guest's eth0.
guest_address() { printf '%s.%s\n' "$WIRE_IPV4" $((10 + $1)); }

# boot_guest STATE NAME SCRIPT MEMORY_MIB INDEX [DEVICE…]: starts a guest that
# runs SCRIPT (absolute path) as pid 1. INDEX, from 1, sets its address on the
# wire (guest_address) and its processor; each DEVICE is a tap that becomes
# eth1, eth2 … Before: the caller may put files into its share. GUEST_ARGUMENTS
# are more words for its kernel's command line.
boot_guest() {
    local state name="$2" script="$3" memory="$4" index="$5" directory kernel address device number=0 devices=() server
    state="$(cd "$1" && pwd)"
    shift 5
    directory="$state/guests/$name"
    kernel="$("$GUEST_HERE/../setup/kernel.sh")"
    mkdir -p "$directory/share"
    chmod 700 "$directory"
    rm -f "$directory/share/marks"
    address="$(guest_address "$index")"
    tap "$state" "up$index" uplink isolated
    for device in "up$index" "$@"; do
        devices+=("vec$number:transport=tap,ifname=$device,depth=64,gro=1,mac=52:54:00:00:0$number:$(printf '%02x' "$index")")
        number=$((number + 1))
    done
    for server in "command $COMMAND_PORT" "shell $SHELL_PORT"; do
        # A guest that was powered off comes back to its relays.
        running "$state" "$name-${server% *}" || launch_on_wire "$state" "$name-${server% *}" env --chdir="$directory" socat -t "$RELAY_SECONDS" \
            "UNIX-LISTEN:${server% *},fork,unlink-early,mode=600,backlog=64" "TCP:$address:${server#* }"
    done
    # One processor per guest, always the same: the kernel and its processes take
    # turns a hundred thousand times a second, and waking another processor
    # each time would cost several times the work.
    # shellcheck disable=SC2086  # words
    launch_on_wire "$state" "$name" taskset --cpu-list "$(((index - 1 + ${LVS_LAB_PROCESSOR:-0}) % $(nproc)))" \
        "$kernel/linux" "mem=${memory}M" "umid=$name" "uml_dir=$directory/uml" rootfstype=hostfs ro quiet panic=-1 \
        con0=fd:0,fd:1 con=null init="$GUEST_HERE/guest-root.sh" "${devices[@]}" \
        "lvs.init=$script" "lvs.kernel=$kernel" "lvs.share=$directory/share" "lvs.address=$address" \
        "lvs.repository=$(cd "$GUEST_HERE/../.." && pwd)" ${GUEST_ARGUMENTS:-}
}

# run_in_guest STATE NAME SCRIPT [ARGUMENT…]: runs a bash script there; its
# standard output, standard error and exit status come back. Status 255 when the
# guest does not answer.
run_in_guest() {
    local directory="$1/guests/$2" script="$3" LC_ALL=C
    shift 3
    [ $# -eq 0 ] || script="set -- $(printf '%q ' "$@")
$script"
    printf '%s\n%s' "${#script}" "$script" | (cd "$directory" && exec socat -t "${GUEST_ANSWER_SECONDS:-3600}" - UNIX-CONNECT:command) 2>/dev/null | {
        local status output errors
        read -r status output errors || return 255
        head -c "$output"
        head -c "$errors" >&2
        return "$status"
    }
}

# guest_answers STATE NAME: its command server is up and does what it is told.
# Looks at the guest's own marks first: that costs it nothing.
guest_answers() {
    grep -qs ' command server$' "$1/guests/$2/share/marks" &&
        [ "$(GUEST_ANSWER_SECONDS=20 run_in_guest "$1" "$2" 'echo yes' 2>/dev/null)" = yes ]
}

# await_guest STATE NAME SECONDS: until its command server answers; ends early
# when the guest is gone.
await_guest() {
    local state="$1" name="$2" deadline=$((SECONDS + $3))
    until guest_answers "$state" "$name"; do
        if ! running "$state" "$name" || [ "$SECONDS" -ge "$deadline" ]; then
            printf 'guest %s does not answer; its console: %s\n' "$name" "$state/logs/$name.log" >&2
            tail -n 5 "$state/logs/$name.log" >&2 || true
            return 1
        fi
        sleep 0.1
    done
}
