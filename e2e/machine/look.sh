#!/bin/bash
# look.sh HOST…: everything of each host that the product could change, one line
# per fact; hosts at the same time, in order.
look() {
    ip -br link | sed "s/@[^ ]*//; s/ .*//; s/^/link /"
    ip -o address | sed -E "s/valid_lft.*//; s/^[0-9]+: //"
    ip rule
    ip -6 rule
    ip route show table all
    ip -6 route show table all | sed -E "s/ expires [0-9]+sec//"
    cd /proc/sys/net || exit
    grep -H . ipv4/ip_forward ipv6/conf/all/forwarding \
        ipv4/conf/*/{arp_ignore,arp_announce,rp_filter,send_redirects,forwarding,accept_local,accept_redirects} \
        ipv6/conf/*/{forwarding,accept_ra} \
        ipv4/vs/{expire_nodest_conn,expire_quiescent_template,nat_icmp_send,conntrack,sloppy_tcp} 2>/dev/null
    ip fou show 2>/dev/null
    nft list ruleset
    ipvsadm -Sn
    ipvsadm -L --timeout
}
export -f look
folder="$(mktemp -d)"
for host in "$@"; do ip netns exec "$host" bash -c look >"$folder/$host" 2>/dev/null & done
wait
for host in "$@"; do
    echo "== $host"
    sort "$folder/$host"
done
rm -rf "$folder"
