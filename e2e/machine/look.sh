#!/bin/bash
# look.sh HOST…: everything of each host that the product could change, one line
# per fact, after a line `== HOST`. Few processes, as it is run many times; what
# is not a fact (order, remaining lifetimes) is for the reader to leave out.
export LC_ALL=C
look() {
    ip -o -batch - <<B
link show
address show
rule show
route show table all
B
    ip -o -6 -batch - <<B
rule show
route show table all
B
    # A host without an agent has nothing else of ours.
    [ -d "/run/nodes/$1" ] || exit 0
    ip fou show 2>/dev/null
    nft list ruleset
    ipvsadm -Sn
    ipvsadm -L --timeout
    ipvsadm -L --daemon
    cd /proc/sys/net || exit
    exec grep -H . ipv4/ip_forward \
        ipv4/conf/*/{arp_ignore,arp_announce,rp_filter,send_redirects,forwarding,accept_local,accept_redirects} \
        ipv6/conf/*/{forwarding,accept_ra} \
        ipv4/vs/{expire_nodest_conn,expire_quiescent_template,nat_icmp_send,conntrack,sloppy_tcp,sloppy_sctp,sync_threshold,sync_refresh_period,sync_retries,backup_only} 2>/dev/null
}
export -f look
folder="$(mktemp -d)"
# shellcheck disable=SC2016  # expanded by the inner shell
for host in "$@"; do ip netns exec "$host" bash -c 'look "$1"' look "$host" >"$folder/$host" 2>/dev/null & done
wait
for host in "$@"; do
    echo "== $host"
    echo "$(<"$folder/$host")"
done
rm -rf "$folder"
