#!/bin/bash
# In a guest with IPVS: a client, a director and a host outside the cluster, each a name space. For each way of
# forwarding: nothing is served before the host's script, every packet after it, and afterwards the host is as it was.
#
#   real_server_guest.sh FOLDER      scripts <case>.sh, and rules <case>.rules for ipvsadm
set -euo pipefail
folder="$1"
failures=0
for module in bridge veth ip_vs ipip sit ip6_tunnel ip_gre ip6_gre fou fou6; do modprobe -q "$module" || true; done

ip link add outside type bridge && ip link set outside up
ip link add inside type bridge && ip link set inside up
on() { ip netns exec "$@"; }
host() { # NAME LAST SEGMENT…
    local name="$1" last="$2" segment
    shift 2
    ip netns add "$name"
    on "$name" sysctl -qw net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.all.accept_dad=0
    ip -n "$name" link set lo up
    for segment in "$@"; do
        ip link add "$name-${segment:0:3}" type veth peer name "$segment" netns "$name"
        ip link set "$name-${segment:0:3}" master "$segment" up
        ethtool -K "$name-${segment:0:3}" tx off >/dev/null 2>&1 || true
        on "$name" ethtool -K "$segment" tx off >/dev/null 2>&1 || true
        ip -n "$name" link set "$segment" up
    done
    [ "$1" != outside ] || {
        ip -n "$name" address add "192.0.2.$last/24" dev outside
        ip -n "$name" address add "2001:db8::$last/64" dev outside nodad
    }
}
host client 10 outside
host director 1 outside inside
host server 21 outside inside
ip -n director address add 192.0.2.100/32 dev outside
# Deprecated, as an agent makes it: a tunnel's packets must not come from an address that the host has too.
ip -n director address add 2001:db8::100/128 dev outside nodad preferred_lft 0
ip -n director address add 198.51.100.1/24 dev inside
ip -n server address add 198.51.100.21/24 dev inside
on director sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
mkdir -p /run/www && echo served >/run/www/index.html
on server busybox httpd -p '[::]:80' -h /run/www

# What the host is like: everything that a script may change.
look() {
    ip -n server -o address | sed 's/ *valid_lft.*//'
    ip -n server -o link | sed 's/ qlen.*//'
    ip -n server rule && ip -n server -6 rule
    ip -n server route show table all
    on server grep -rs . /proc/sys/net/ipv4/conf --include=arp_ignore --include=arp_announce --include=rp_filter
    on server ip fou show 2>/dev/null || true
}
url_of() { case "$1" in *6) echo 'http://[2001:db8::100]/' ;; *) echo http://192.0.2.100/ ;; esac; }
served() {
    ip -n client neigh flush all
    on client curl --silent --globoff --max-time 3 "$(url_of "$1")" 2>/dev/null | grep -qx served
}
check() { # WHAT COMMAND…
    if ! "${@:2}"; then
        echo "$case: $1"
        failures=$((failures + 1))
    fi
}
not() { ! "$@"; }
all_served() { for _ in 1 2 3 4 5 6; do served "$1" || return 1; done; }
# Of the virtual address the client has heard the director and nobody else.
heard_director() {
    local mac
    mac="$(ip -n director -o link show outside | sed -E 's/.*ether ([0-9a-f:]+).*/\1/')"
    ip -n client neigh show | grep -E '^(192\.0\.2\.100|2001:db8::100) ' | grep -q "lladdr $mac"
}
unchanged() { diff <(look) /run/before; }
other_serves() {
    on server sh "$folder/other.sh" stop && served "$case"
}

cases=0
for rules in "$folder"/*.rules; do
    case="$(basename "$rules" .rules)"
    cases=$((cases + 1))
    on director ipvsadm --clear
    on director ipvsadm --restore <"$rules"
    # What a first use of the modules leaves in a name space is not the script's.
    on server ip fou show >/dev/null 2>&1 || true
    look >/run/before
    check "served before it was prepared" not served "$case"
    check "start" on server sh "$folder/$case.sh" start
    check "not served after start" all_served "$case"
    check "neighbours hear of somebody else" heard_director
    check "start again" on server sh "$folder/$case.sh" start
    check "not served after the second start" served "$case"
    check "status" on server sh "$folder/$case.sh" status >/dev/null
    if [ "$case" = dr4 ]; then
        # Another service with the same address comes and goes.
        check "start of another" on server sh "$folder/other.sh" start
        check "not served after another stopped" other_serves
    fi
    check "stop" on server sh "$folder/$case.sh" stop
    check "served after stop" not served "$case"
    check "the host is not as it was" unchanged
    check "stop again" on server sh "$folder/$case.sh" stop
done
[ "$cases" -gt 0 ] || { echo "no cases" && exit 1; }
[ "$failures" -eq 0 ] || exit 1
echo "$cases ways of forwarding: served after start, as before after stop"
