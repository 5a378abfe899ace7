#!/bin/bash
# Prints everything about a host's network that the operator could change, in a
# form that is the same again when all was put back. Left out: what belongs to
# pods (veth*), kube-proxy's own tables, counters, and what each boot computes from the
# memory that is free. A tool that fails fails it.
set -euo pipefail
export PATH="$PATH:/usr/sbin:/sbin" LC_ALL=C

without_pods() { grep -v 'veth' || true; }

echo "# links"
ip -details -json link show | jq -r '.[] | [.ifname, .linkinfo.info_kind, .address, .mtu, .master, .qdisc] | map(. // "-" | tostring) | join(" ")' |
    without_pods | sort
echo "# addresses"
ip -oneline address show | without_pods | sed -E 's/^[0-9]+: //; s/(valid_lft|preferred_lft) [0-9]+sec/\1 some/g' | sort
echo "# routes"
{
    ip -4 route show table all
    ip -6 route show table all
} | without_pods | sed -E 's/ linkdown//; s/ expires [0-9]+sec//; s/ +$//' | sort
echo "# rules"
ip -4 rule show
ip -6 rule show
echo "# nftables"
nft --stateless list ruleset 2> >(grep -v 'managed by iptables-nft' >&2) | awk '
    /^table / { skip = ($3 == "kube-proxy") }
    !skip { print }'
echo "# ipvs"
ipvsadm -S -n | sort
echo "# sysctls"
sysctl -a --pattern '^net\.' 2>/dev/null | without_pods |
    grep -vE '^net\.netfilter\.nf_conntrack_count|^net\.ipv4\.tcp_fastopen_key|stable_secret' |
    grep -vE '^net\.ipv4\.((tcp|udp)_mem|inet_peer_threshold|vs\.sync_qlen_max) ' | sort
