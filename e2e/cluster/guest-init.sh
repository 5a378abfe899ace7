# Sourced by the scripts that run as pid 1 in a guest: mounts, eth0 on the wire
# (the way to the machine's services at 10.0.2.2), and the command server. The root
# is the machine's, read-only, with a tmpfs on top (guest-root.sh).
# shellcheck shell=bash

export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C
mount -t proc proc /proc
for argument in $(</proc/cmdline); do
    case "$argument" in
    lvs.kernel=*) KERNEL="${argument#*=}" ;;
    lvs.repository=*) REPOSITORY="${argument#*=}" ;;
    lvs.share=*) SHARE="${argument#*=}" ;;
    lvs.address=*) ADDRESS="${argument#*=}" ;;
    esac
done

# Nothing in here may end pid 1.
set +e

umount -l /old
mkdir -p /share /lib/modules /run
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t hostfs share /share -o "$SHARE"

# mark TEXT: seconds since boot, for the split of the start-up time.
mark() {
    local seconds
    read -r seconds _ </proc/uptime
    echo "$seconds $*"
    echo "$seconds $*" >>/share/marks
}

mount -t devpts devpts /dev/pts
mount -t tmpfs shm /dev/shm
ln -sfn /proc/self/fd /dev/fd
mount -t tmpfs -o mode=755 run /run
mkdir -p /run/lock /run/netns
mount -t cgroup2 none /sys/fs/cgroup
mount --bind "$KERNEL/lib/modules" /lib/modules
mount --make-rshared /
# shellcheck source=/dev/null
[ -f /share/guest.env ] && . /share/guest.env

hostname "${GUEST_NAME:-guest}"
printf '127.0.0.1 localhost\n::1 localhost\n127.0.1.1 %s\n' "$(hostname)" >/etc/hosts
rm -f /etc/resolv.conf
echo 'nameserver 10.0.2.3' >/etc/resolv.conf

for path in /sys/class/net/vec*; do
    device="${path##*/}"
    ip link set "$device" name "eth${device#vec}"
done
ip link set lo up
ip link set eth0 up
ip address add "$ADDRESS/24" dev eth0
ip route add default via 10.0.2.2

# Whoever gets here is root on the machine: the wire is a namespace of its own.
socat -t 86400 "TCP-LISTEN:7000,bind=$ADDRESS,reuseaddr,fork,backlog=64" \
    "EXEC:/bin/bash $REPOSITORY/e2e/cluster/guest-command.sh" >/dev/null 2>&1 &
socat "TCP-LISTEN:7001,bind=$ADDRESS,reuseaddr,fork" "EXEC:/bin/bash -il,pty,stderr,setsid,ctty,sane" >/dev/null 2>&1 &
mark "command server"

# serve: what pid 1 does when everything is started: nothing but to reap, as
# bash does by itself.
serve() {
    exec {never}<> <(:)
    while :; do read -r -t 3600 -u "$never"; done
}
