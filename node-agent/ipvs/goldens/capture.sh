#!/bin/bash
# Captures what ipvsadm sends to the kernel, and what the kernel answers to its
# dumps, for the golden tests. Needs root, IPVS, ipvsadm and strace; changes
# only a network namespace of its own.
#
#   capture.sh >DIR/ipvsadm.txt
#
# Output: "# ipvsadm <arguments>", then one line per message of the family
# IPVS: "send|receive <flags> <payload in hex>", where the payload is what
# follows struct nlmsghdr; for commands that list also "print <line>": what
# ipvsadm itself says.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
if [ "${1:-}" != inside ]; then
    exec unshare -n "$BASH" "${BASH_SOURCE[0]}" inside
fi
ip link set lo up
# What sync daemons send and receive on.
ip link add sync0 type dummy
ip address add 198.51.100.254/24 dev sync0
ip address add 2001:db8:51::1/64 dev sync0 nodad
ip link set sync0 up
trace="$(mktemp)"
trap 'rm -f "$trace"' EXIT

messages() {
    python3 - "$trace" <<'P'
import re, sys

# One message: header fields as strace names them (-X raw: as numbers), then the payload as a string.
MESSAGE = re.compile(r'\{nlmsg_len=\w+, nlmsg_type=(\w+), nlmsg_flags=(\w+), nlmsg_seq=\w+, nlmsg_pid=-?\w+\}, '
                     r'"((?:\\x[0-9a-f]{2})*)"')
FIRST_FAMILY = 0x11  # beyond nlctrl
for line in open(sys.argv[1]):
    call = re.search(r'\b(sendmsg|recvmsg)\(', line)
    # libnl looks at each answer twice, first with MSG_PEEK.
    if not call or re.search(r', 0x[0-9a-f]+\) = \d+$', line):
        continue
    for kind, flags, payload in MESSAGE.findall(line):
        if int(kind, 0) >= FIRST_FAMILY:
            print({"sendmsg": "send", "recvmsg": "receive"}[call.group(1)], flags, payload.replace("\\x", ""))
P
}

capture() {
    echo "# ipvsadm $*"
    strace -qq -o "$trace" -X raw -xx -s 65536 -e trace=sendmsg,recvmsg -e signal=none ipvsadm "$@" |
        sed 's/^/print /'
    messages
}

while read -r -a arguments; do capture "${arguments[@]}"; done <"$here/commands.txt"
capture -Sn
capture -L --timeout
capture -L --daemon
capture --stop-daemon master
capture --stop-daemon backup
