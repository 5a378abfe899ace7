#!/bin/bash
# look.sh HOST…: everything of each host that the product could change, one line per fact.
for host in "$@"; do
    echo "== $host"
    ip netns exec "$host" bash -c '
        ip -br link | sed "s/@[^ ]*//" | cut -d" " -f1 | sort | sed "s/^/link /"
        ip -o address | sed -E "s/valid_lft.*//; s/^[0-9]+: //" | sort
        ip rule; ip -6 rule
        ip route show table all | sort
        ip -6 route show table all | sed -E "s/ expires [0-9]+sec//" | sort
        cd /proc/sys/net
        grep -H . ipv4/ip_forward ipv6/conf/all/forwarding \
            ipv4/conf/*/{arp_ignore,arp_announce,rp_filter,send_redirects,forwarding,accept_local} \
            ipv6/conf/*/{forwarding,accept_ra} \
            ipv4/vs/{expire_nodest_conn,expire_quiescent_template,nat_icmp_send,conntrack,sloppy_tcp} 2>/dev/null
        ip fou show 2>/dev/null
        nft list ruleset
        ipvsadm -Sn | sort
        ipvsadm -L --timeout' 2>/dev/null
done
