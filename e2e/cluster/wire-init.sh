#!/bin/bash
# wire-init.sh READY ADDRESS: the network namespace that one lab's guests hang
# on, as long as this process lives. Namespaces that are named in here are seen
# only in here.
set -e
ip link set lo up
ip link add uplink type bridge stp_state 0 forward_delay 0 mcast_snooping 0
ip address add "$2" dev uplink
ip link set uplink up
mkdir -p /run/netns
mount -t tmpfs names /run/netns
: >"$1"
exec sleep infinity
