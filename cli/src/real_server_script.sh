# The part of a script of `kubectl lvs realserver-script` that is the same for every host; `name` and prepare() are around it.
# shellcheck shell=sh disable=SC2154,SC2317

# What is ours, for stop: the settings before us, and what each service has made.
state=${LVS_STATE:-/run/lvs-real-server}
conf=/proc/sys/net/ipv4/conf
table=5380

# at_least FILE VALUE: a sysctl; what is enough already stays.
at_least() {
    before=$(cat "$1")
    [ "$before" -lt "$2" ] || return 0
    kept="$state/sysctl/$(echo "$1" | tr / :)"
    [ -e "$kept" ] || echo "$before $2" >"$kept"
    echo "$2" >"$1"
}

# Answer only for addresses of the receiving device, ask only as the best own
# address: on each device, as the greater of `all` and the device counts; and
# on those that come later.
quiet_arp() {
    for directory in "$conf"/*; do
        case "${directory##*/}" in all | lo) continue ;; esac
        at_least "$directory/arp_ignore" 1
        at_least "$directory/arp_announce" 2
    done
}

# made WORDS…: notes what is about to be made, for stop.
made() { grep -qsxF -- "$*" "$state/services/$name" || echo "$*" >>"$state/services/$name"; }

# noted WORDS…: some service of this host has made it.
noted() { grep -qsxF -- "$*" "$state"/services/*; }

# address ADDRESS/LENGTH DEVICE
address() {
    if [ -z "$(ip address show dev "$2" to "$1")" ]; then
        made address "$1" "$2"
        case "$1" in
        *:*) ip address add "$1" dev "$2" nodad preferred_lft 0 ;;
        *) ip address add "$1" dev "$2" ;;
        esac
    elif noted address "$1" "$2"; then
        made address "$1" "$2"
    fi
}

# device NAME type KIND…: unwraps packets of a tunnel.
device() {
    made device "$1"
    ip link show dev "$1" >/dev/null 2>&1 || ip link add name "$@"
    ip link set dev "$1" up
    # The way back to a client is another device: no strict check of the source.
    [ ! -e "$conf/$1/rp_filter" ] || at_least "$conf/$1/rp_filter" 2
}

# foo_over_udp PORT [-6]: takes GUE.
foo_over_udp() {
    made foo_over_udp "$@"
    modprobe -q fou 2>/dev/null || true
    # shellcheck disable=SC2086  # -6 is a word of its own or none
    ip fou show | grep -q "port $1 " || ip fou add port "$1" gue ${2:-}
}

# way_back SOURCE PROTOCOL PORTS GATEWAY: replies go back through the director.
way_back() {
    case "$1" in *:*) family=-6 ;; *) family=-4 ;; esac
    made way_back "$1" "$2" "$3" "$family"
    ip "$family" route replace default via "$4" table "$table"
    ip "$family" rule show | grep -q "from $1 ipproto $2 sport $3 lookup $table" ||
        ip "$family" rule add from "$1" ipproto "$2" sport "$3" lookup "$table"
}

# unmake WORDS…: the opposite of made, unless another service has it too.
unmake() {
    if noted "$@"; then return 0; fi
    # shellcheck disable=SC2086  # -6 is a word of its own or none
    case "$1" in
    address) ip address del "$2" dev "$3" 2>/dev/null || true ;;
    device) ip link del dev "$2" 2>/dev/null || true ;;
    foo_over_udp) ip fou del port "$2" ${3:-} 2>/dev/null || true ;;
    way_back) ip "$5" rule del from "$2" ipproto "$3" sport "$4" lookup "$table" 2>/dev/null || true ;;
    esac
}

start() {
    mkdir -p "$state/services" "$state/sysctl"
    : >>"$state/services/$name"
    prepare
}

stop() {
    [ -e "$state/services/$name" ] || return 0
    list=$(sort -u "$state/services/$name")
    rm "$state/services/$name"
    # Addresses first: ARP must not tell of one that is still there.
    echo "$list" | while read -r line; do
        # shellcheck disable=SC2086  # words
        [ -z "$line" ] || unmake $line
    done
    [ -z "$(ls "$state/services")" ] || return 0
    ip -4 route flush table "$table" 2>/dev/null || true
    ip -6 route flush table "$table" 2>/dev/null || true
    for kept in "$state/sysctl"/*; do
        [ -e "$kept" ] || continue
        file=$(basename "$kept" | tr : /)
        read -r before ours <"$kept"
        # What somebody else has set since stays.
        if [ -e "$file" ] && [ "$(cat "$file")" = "$ours" ]; then echo "$before" >"$file"; fi
        rm "$kept"
    done
    rmdir "$state/services" "$state/sysctl" "$state"
}

main() {
    case "${1:-}" in
    start | stop) "$1" ;;
    status) if [ -e "$state/services/$name" ]; then cat "$state/services/$name"; else echo "not started" && exit 3; fi ;;
    *) echo "usage: sh $0 start|stop|status" >&2 && exit 2 ;;
    esac
}
