#!/usr/bin/env bash
# Debian's kernel and modules for the guests (real IPVS; the machine's own
# kernel need not have any), and the small initramfs that mounts the machine's
# root over 9p, read-only, under a tmpfs overlay.
#
#   $LVS_CACHE/kernel/<release>/vmlinuz  initramfs.gz  lib/modules/<release>/
#
# A kernel already in the cache is used even when Debian has a newer one;
# remove the directory to follow.
set -euo pipefail
# shellcheck source=cache.sh
. "$(dirname "${BASH_SOURCE[0]}")/cache.sh"
export PATH="$PATH:/usr/sbin:/sbin"

# Loaded by the initramfs, in dependency order, before the root is mounted.
BOOT_MODULES="virtio_pci 9pnet_virtio 9p virtio_net virtio_console virtio_rng overlay"

write_init() {
    cat >"$1/init" <<'I'
#!/bin/busybox sh
# The root of the machine over 9p, read-only, with a tmpfs on top; then the
# script named on the kernel command line (lvs.init=) as pid 1.
B=/bin/busybox
$B mount -t devtmpfs dev /dev
$B mount -t proc proc /proc
for module in /modules/*; do $B insmod "$module" || echo "initramfs: insmod $module failed"; done
$B mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=loose,ro hostroot /lower || echo "initramfs: 9p root failed"
$B mount -t tmpfs -o size=75% rw /rw
$B mkdir /rw/upper /rw/work
$B mount -t overlay -o lowerdir=/lower,upperdir=/rw/upper,workdir=/rw/work root /newroot || echo "initramfs: overlay failed"
script=
for argument in $($B cat /proc/cmdline); do
    case "$argument" in lvs.init=*) script="${argument#lvs.init=}" ;; esac
done
$B mkdir -p /newroot/proc /newroot/sys /newroot/dev /newroot/rw
$B mount --move /dev /newroot/dev
$B mount --move /proc /newroot/proc
$B mount --move /rw /newroot/rw
exec $B switch_root /newroot /bin/bash "$script"
I
    chmod 755 "$1/init"
}

make_initramfs() {
    local root="$1" release="$2" tree number=10 module
    tree="$(mktemp -d)"
    mkdir -p "$tree"/{bin,dev,proc,sys,modules,lower,rw,newroot}
    cp "$(command -v busybox)" "$tree/bin/busybox"
    # shellcheck disable=SC2086  # a list
    for module in $(modprobe -d "$root" -S "$release" --show-depends -a $BOOT_MODULES |
        awk '$1 == "insmod" && !seen[$2]++ { print $2 }'); do
        case "$module" in
        *.xz) xz -dc "$module" >"$tree/modules/$number-$(basename "$module" .xz)" ;;
        *) cp "$module" "$tree/modules/$number-$(basename "$module")" ;;
        esac
        number=$((number + 1))
    done
    write_init "$tree"
    (cd "$tree" && find . | cpio -o -H newc --quiet | gzip -1) >"$root/initramfs.gz"
    rm -rf "$tree"
}

fetch_kernel() {
    local root="$1" package release
    package="$(apt-cache depends linux-image-amd64 | awk '/Depends: linux-image-/ { print $2; exit }')"
    [ -n "$package" ] || { echo "apt knows no linux-image-amd64" && return 1; }
    release="${package#linux-image-}"
    cd "$root"
    apt-get download "$package" || { apt-get update && apt-get download "$package"; }
    dpkg-deb -x "$package"_*.deb unpacked
    rm -f "$package"_*.deb
    mv unpacked/lib .
    mv "unpacked/boot/vmlinuz-$release" vmlinuz
    rm -rf unpacked
    depmod -b "$root" "$release"
    echo "$release" >release
    make_initramfs "$root" "$release"
    [ -s "$root/lib/modules/$release/kernel/net/netfilter/ipvs/ip_vs.ko" ] ||
        [ -s "$root/lib/modules/$release/kernel/net/netfilter/ipvs/ip_vs.ko.xz" ]
}

command -v apt-get >/dev/null || missing "Debian's apt-get and dpkg-deb (fetch the guests' kernel)" \
    "unpack a linux-image-*-amd64 package by hand as e2e/setup/kernel.sh describes"
# The initramfs is part of what is cached, so its recipe is part of the key.
recipe="$(sha256sum "${BASH_SOURCE[0]}" | cut -c1-12)"
make_once "$LVS_CACHE/kernel/$recipe" "fetching Debian's kernel for the guests" "30 s" fetch_kernel
printf '%s\n' "$LVS_CACHE/kernel/$recipe"
