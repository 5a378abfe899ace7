# Sourced by the scripts that run as pid 1 in a guest: mounts, the user
# network on eth0, and the command server. The root is the machine's, read-only
# over 9p, with a tmpfs on top.
# shellcheck shell=bash

export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C
for argument in $(</proc/cmdline); do
    case "$argument" in
    lvs.kernel=*) KERNEL="${argument#*=}" ;;
    lvs.repository=*) REPOSITORY="${argument#*=}" ;;
    esac
done

# Nothing in here may end pid 1.
set +e

mkdir -p /share /dev/pts /dev/shm /lib/modules /run
mount -t sysfs sys /sys
mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=none share /share

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

# Interfaces by their hardware address: eth0 is always the user network.
number=1
for path in /sys/class/net/*; do
    device="${path##*/}"
    [ "$device" = lo ] && continue
    case "$(<"$path/address")" in
    52:54:00:00:00:01) ip link set "$device" name user0 ;;
    esac
done
for path in /sys/class/net/*; do
    device="${path##*/}"
    case "$device" in lo | user0) continue ;; esac
    ip link set "$device" name "link$number"
    number=$((number + 1))
done
ip link set user0 name eth0
while [ "$number" -gt 1 ]; do
    number=$((number - 1))
    ip link set "link$number" name "eth$number"
done
ip link set lo up
ip link set eth0 up
ip address add 10.0.2.15/24 dev eth0
ip route add default via 10.0.2.2

socat "TCP-LISTEN:7000,bind=10.0.2.15,reuseaddr,fork,backlog=64" \
    "EXEC:/bin/bash $REPOSITORY/e2e/cluster/guest-command.sh" >/dev/null 2>&1 &
mark "command server"

# serve: what pid 1 does when everything is started: a root shell on the
# serial line, again and again. Reaps orphans as bash does.
serve() {
    while :; do
        setsid -c /bin/bash -il </dev/ttyS0 >/dev/ttyS0 2>&1
        sleep 1
    done
}
