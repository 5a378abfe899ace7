#!/bin/bash
# Pid 1 of the guest that is the segment: a switch (bridge br0) with one port
# per node (eth1, eth2, …), and hosts on it as network namespaces: the client
# and outside real servers with a real HTTP server each.
# shellcheck source=guest-init.sh
. "$(dirname "${BASH_SOURCE[0]}")/guest-init.sh"

for module in bridge veth; do modprobe "$module" || mark "modprobe $module failed"; done
ip link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0
ip link set br0 up
for path in /sys/class/net/eth*; do
    device="$(basename "$path")"
    [ "$device" = eth0 ] && continue
    ip link set "$device" master br0 up
done

# host NAME LAST_OCTET: a namespace on the segment.
host() {
    ip netns add "$1"
    ip link add "$1" type veth peer name eth0 netns "$1"
    ip link set "$1" master br0 up
    ip -n "$1" link set lo up
    ip -n "$1" link set eth0 up
    ip -n "$1" address add "$SEGMENT_IPV4.$2/24" dev eth0
    ip -n "$1" address add "$SEGMENT_IPV6::$2/64" dev eth0 nodad
}

# web_server NAME: lighttpd that answers every request with the host's name.
web_server() {
    mkdir -p "/run/web/$1/root"
    echo "$1" >"/run/web/$1/root/index.html"
    cat >"/run/web/$1/lighttpd.conf" <<C
server.document-root = "/run/web/$1/root"
server.port = 80
server.use-ipv6 = "disable"
index-file.names = ("index.html")
\$SERVER["socket"] == "[::]:80" { server.use-ipv6 = "enable" server.set-v6only = "enable" }
C
    ip netns exec "$1" lighttpd -D -f "/run/web/$1/lighttpd.conf" >"/run/web/$1/log" 2>&1 &
}

host client 100
for web in $SEGMENT_WEB_SERVERS; do
    host "${web%:*}" "${web#*:}"
    web_server "${web%:*}"
done
mark ready
serve
