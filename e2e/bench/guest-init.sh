#!/bin/bash
# Pid 1 of the guest for netlink figures, goldens and the differential: one
# quiet machine with IPVS and nothing else.
# shellcheck source=../cluster/guest-init.sh
. "$(dirname "${BASH_SOURCE[0]}")/../cluster/guest-init.sh"

for module in ip_vs dummy veth; do modprobe "$module" || mark "modprobe $module failed"; done
# Every scheduler of this kernel, so that none is loaded within a measurement.
for module in /lib/modules/"$(uname -r)"/kernel/net/netfilter/ipvs/*.ko*; do
    name="$(basename "${module%%.ko*}")"
    modprobe "$name" || mark "modprobe $name failed"
done
mark ready
serve
