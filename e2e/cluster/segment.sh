# Sourced (after process.sh, guest.sh): the segment of a tier 1 lab, on its
# wire: a switch (bridge br0) with one port per node (eth1, eth2, …), and hosts
# on it as network namespaces: the client, and outside real servers with a real
# HTTP server each.
# shellcheck shell=bash

SEGMENT_IPV4=192.168.50
SEGMENT_IPV6=fd00:50
SEGMENT_WEB_SERVERS="web-2:102 web-3:103"

# make_segment STATE PORT…
make_segment() {
    local state="$1" port web
    shift
    on_wire "$state" ip -batch - <<'B'
link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0
link set br0 up
B
    for port in "$@"; do tap "$state" "$port" br0; done
    segment_host "$state" client 100
    for web in $SEGMENT_WEB_SERVERS; do
        segment_host "$state" "${web%:*}" "${web#*:}"
        web_server "$state" "${web%:*}"
    done
}

# segment_host STATE NAME LAST_OCTET: a namespace on the segment.
segment_host() {
    # shellcheck disable=SC2016  # expanded by the inner shell
    on_wire "$1" bash -ec '
        ip netns add "$1"
        ip link add "$1" type veth peer name eth0 netns "$1"
        ip link set "$1" master br0 up
        ip -n "$1" -batch - <<B
link set lo up
link set eth0 up
address add $2 dev eth0
address add $3 dev eth0 nodad
B' host "$2" "$SEGMENT_IPV4.$3/24" "$SEGMENT_IPV6::$3/64"
}

# web_server STATE NAME: lighttpd that answers every request with the host's name.
web_server() {
    local root="$1/web/$2"
    mkdir -p "$root/root"
    echo "$2" >"$root/root/index.html"
    cat >"$root/lighttpd.conf" <<C
server.document-root = "$root/root"
server.port = 80
server.use-ipv6 = "disable"
index-file.names = ("index.html")
\$SERVER["socket"] == "[::]:80" { server.use-ipv6 = "enable" server.set-v6only = "enable" }
C
    launch_on_wire "$1" "web-server-$2" ip netns exec "$2" lighttpd -D -f "$root/lighttpd.conf"
}
