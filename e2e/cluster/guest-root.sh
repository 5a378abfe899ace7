#!/bin/bash
# The first process of a guest: the machine's root, read-only, gets a tmpfs on
# top; then the script named on the kernel command line (lvs.init=) is pid 1.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc
for argument in $(</proc/cmdline); do
    case "$argument" in lvs.init=*) script="${argument#*=}" ;; esac
done
mount -t tmpfs -o size=75% rw /mnt
mkdir /mnt/upper /mnt/work /mnt/root
mount -t overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work root /mnt/root
cd /mnt/root || exit
mkdir -p old
pivot_root . old
exec chroot . /bin/bash "$script"
