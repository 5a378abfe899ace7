#!/bin/bash
# Pid 1 of tier 2's guest: every host is a network namespace.
#
#   out   172.16.2.0/24  fd00:2::/64    client .100, router .254, lb-a .11, lb-b .12
#   in    192.168.2.0/24 fd00:192::/64  router .254, lb-a .11, lb-b .12, web-1 .21, web-2 .22, web-3 .23,
#                                       plain-1 .31, plain-2 .32
#   far   10.9.0.0/24    fd00:9::/64    router .254, far-1 .41
#   mgmt  10.111.0.0/24                 every cluster node, the way to the API server
#
# lb-*, web-* and far-1 are cluster nodes; client, router and plain-* are not.
# With lvs.bare on its command line the kernel has no IPv6 and no tunnels.
# shellcheck source=../cluster/guest-init.sh
. "$(dirname "${BASH_SOURCE[0]}")/../cluster/guest-init.sh"

for module in bridge veth dummy ip_vs ip_vs_wrr nf_conntrack nf_tables nft_chain_nat nft_masq nft_ct; do
    modprobe "$module" || mark "modprobe $module failed"
done
# Tunnel modules make fallback devices in every namespace the moment they are
# loaded; loaded first, they belong to the hosts' state before the product.
tunnels="ipip sit ip6_tunnel ip_gre ip6_gre fou fou6"
bare=
case " $(</proc/cmdline) " in
*" lvs.bare "*)
    bare=yes
    # shellcheck disable=SC2086  # a list
    printf 'install %s /bin/false\n' $tunnels >/etc/modprobe.d/bare.conf
    ;;
*) for module in $tunnels; do modprobe "$module" || mark "modprobe $module failed"; done ;;
esac

sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
for segment in out in far mgmt; do
    ip link add "br-$segment" type bridge stp_state 0 forward_delay 0 mcast_snooping 0
    ip link set "br-$segment" up
done
ip address add 10.111.0.1/24 dev br-mgmt
nft -f - <<N
table ip mgmt {
    chain postrouting {
        type nat hook postrouting priority srcnat;
        ip saddr 10.111.0.0/24 oifname "eth0" masquerade
    }
}
N

# shellcheck source=hosts.sh
. "$(dirname "${BASH_SOURCE[0]}")/hosts.sh"

# web_server NAME: lighttpd on 80 and 8080 that answers with the host's name.
web_server() {
    mkdir -p "/run/web/$1/root"
    echo "$1" >"/run/web/$1/root/index.html"
    # A long answer for connections that must outlive something.
    head -c 16777216 /dev/zero >"/run/web/$1/root/large"
    cat >"/run/web/$1/lighttpd.conf" <<C
server.modules = ("mod_access")
server.document-root = "/run/web/$1/root"
server.port = 80
server.max-connections = 4096
server.max-fds = 8192
index-file.names = ("index.html")
\$SERVER["socket"] == "0.0.0.0:443" { }
\$SERVER["socket"] == "0.0.0.0:82" { }
\$SERVER["socket"] == "0.0.0.0:83" { }
\$SERVER["socket"] == "0.0.0.0:8080" { }
C
    [ -n "$bare" ] || cat >>"/run/web/$1/lighttpd.conf" <<C
\$SERVER["socket"] == "[::]:80" { server.set-v6only = "enable" }
\$SERVER["socket"] == "[::]:8080" { server.set-v6only = "enable" }
C
    ip netns exec "$1" lighttpd -D -f "/run/web/$1/lighttpd.conf" >"/run/web/$1/log" 2>&1 &
}

host router 254 out in far
host client 100 out
ip netns exec router sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 \
    net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.out.send_redirects=0 net.ipv4.conf.in.send_redirects=0
gateway client out
for director in lb-a:11 lb-b:12; do
    host "${director%:*}" "${director#*:}" out in mgmt
    gateway "${director%:*}" out
done
for web in web-1:21 web-2:22 web-3:23; do
    host "${web%:*}" "${web#*:}" in mgmt
    gateway "${web%:*}" in
    web_server "${web%:*}"
done
for web in plain-1:31 plain-2:32; do
    host "${web%:*}" "${web#*:}" in
    gateway "${web%:*}" in
    web_server "${web%:*}"
done
host far-1 41 far mgmt
gateway far-1 far
web_server far-1
for node in lb-a lb-b web-1 web-2 web-3 far-1; do
    # The API server, through the guest's eth0.
    ip -n "$node" route add 10.0.2.0/24 via 10.111.0.1 dev mgmt
done
mark ready
serve
