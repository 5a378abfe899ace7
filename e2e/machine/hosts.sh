# Sourced by scripts that make hosts (network namespaces) in tier 2's guest; the
# plan of the segments is in machine-init.sh.
# shellcheck shell=bash

ipv4_of() { case "$1" in out) echo 172.16.2 ;; in) echo 192.168.2 ;; far) echo 10.9.0 ;; mgmt) echo 10.111.0 ;; esac; }
ipv6_of() { case "$1" in out) echo fd00:2: ;; in) echo fd00:192: ;; far) echo fd00:9: ;; esac; }

# host NAME LAST SEGMENT…: interfaces are named after their segment.
host() {
    local name="$1" last="$2" segment
    shift 2
    ip netns add "$name"
    {
        echo "link set lo up"
        for segment in "$@"; do echo "link set $segment up"; done
        for segment in "$@"; do
            echo "address add $(ipv4_of "$segment").$last/24 dev $segment"
            [ "$segment" = mgmt ] || [ -n "${bare:-}" ] || echo "address add $(ipv6_of "$segment"):$last/64 dev $segment nodad"
        done
    } >"/run/$name.batch"
    for segment in "$@"; do
        ip link add "$name-$segment" type veth peer name "$segment" netns "$name"
        ip link set "$name-$segment" master "br-$segment" up
        # Offloads would leave checksums to a device that never sends.
        ethtool -K "$name-$segment" tx off >/dev/null 2>&1
    done
    ip netns exec "$name" sysctl -qw net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.all.accept_dad=0
    ip -n "$name" -batch "/run/$name.batch"
    for segment in "$@"; do ip netns exec "$name" ethtool -K "$segment" tx off >/dev/null 2>&1; done
}

gateway() { # NAME SEGMENT
    ip -n "$1" route add default via "$(ipv4_of "$2").254" dev "$2"
    [ -n "${bare:-}" ] || ip -n "$1" -6 route add default via "$(ipv6_of "$2"):254" dev "$2"
}
