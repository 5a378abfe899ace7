#!/usr/bin/env bash
# packages.sh [lab|servers|arm64]: Debian packages that the lab needs, or the server
# programs that health checks are shown against, or what builds and runs binaries for arm64. Nothing is started, and no service that this
# installs is left enabled: they are used as plain binaries, inside guests and
# namespaces only.
set -euo pipefail
# shellcheck source=cache.sh
. "$(dirname "${BASH_SOURCE[0]}")/cache.sh"

# package:binary that shows it is there (a path, or a name looked up on PATH
# and in the sbin directories).
LAB_PACKAGES="
    etcd-server:etcd
    busybox-static:busybox
    containerd:containerd
    runc:runc
    containernetworking-plugins:/usr/lib/cni/bridge
    buildah:buildah
    ipvsadm:ipvsadm
    keepalived:keepalived
    ldirectord:ldirectord
    nftables:nft
    iptables:iptables
    ipset:ipset
    conntrack:conntrack
    iproute2:ip
    iputils-ping:ping
    iputils-arping:arping
    tcpdump:tcpdump
    curl:curl
    dnsmasq-base:dnsmasq
    bind9-dnsutils:dig
    lighttpd:lighttpd
    lighttpd-mod-openssl:/usr/lib/lighttpd/mod_openssl.so
    vsftpd:vsftpd
    ftp:ftp
    kmod:modprobe
    python3-minimal:/usr/bin/python3
    python3.11-venv:/usr/lib/python3.11/ensurepip/__main__.py
    jq:jq
    socat:socat
    libcap2-bin:capsh
    ethtool:ethtool
    openssl:openssl
    prometheus:promtool
    redis-server:redis-server
    util-linux:unshare
    procps:ps
    psmisc:fuser
    xz-utils:xz
    gcc:cc
    make:make
    flex:flex
    bison:bison
    bc:bc
    libc6-dev:/usr/include/stdio.h
    shellcheck:shellcheck
    systemd:/lib/systemd/systemd-networkd
    dbus-daemon:dbus-daemon
    dbus-bin:dbus-send
    network-manager:NetworkManager
"
SERVER_PACKAGES="
    bind9:named
    dovecot-imapd:/usr/lib/dovecot/imap-login
    dovecot-pop3d:/usr/lib/dovecot/pop3-login
    etcd-server:etcd
    exim4-daemon-light:exim4
    freeradius:freeradius
    kamailio:kamailio
    lighttpd:lighttpd
    lighttpd-mod-openssl:/usr/lib/lighttpd/mod_openssl.so
    mariadb-client-core:my_print_defaults
    mariadb-server-core:mariadbd
    postgresql-15:/usr/lib/postgresql/15/bin/postgres
    redis-server:redis-server
    slapd:slapd
    vsftpd:vsftpd
"
ARM64_PACKAGES="
    gcc-aarch64-linux-gnu:aarch64-linux-gnu-gcc
    libc6-dev-arm64-cross:/usr/aarch64-linux-gnu/include/stdio.h
    qemu-user-static:qemu-aarch64-static
"
# Daemons among them whose packages enable themselves.
SERVICES="etcd etcd-server containerd keepalived ldirectord lighttpd vsftpd ipvsadm nftables prometheus
    NetworkManager NetworkManager-dispatcher NetworkManager-wait-online
    bind9 named dovecot exim4 freeradius kamailio postgresql redis-server slapd"

case "${1:-lab}" in
lab) PACKAGES="$LAB_PACKAGES" ;;
servers) PACKAGES="$SERVER_PACKAGES" ;;
arm64) PACKAGES="$ARM64_PACKAGES" ;;
*)
    echo "usage: packages.sh [lab|servers|arm64]" >&2
    exit 2
    ;;
esac

present() {
    case "$1" in
    /*) [ -e "$1" ] ;;
    *) PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null ;;
    esac
}

absent=()
for entry in $PACKAGES; do
    present "${entry#*:}" || absent+=("${entry%%:*}")
done
[ "${#absent[@]}" -eq 0 ] && exit 0

how="on Debian 12, as root: apt-get install --no-install-recommends ${absent[*]}"
command -v apt-get >/dev/null || missing "Debian packages: ${absent[*]}" "$how"
[ "$(id -u)" -eq 0 ] || missing "Debian packages: ${absent[*]} (and root to install them)" "$how"

say "installing ${#absent[@]} Debian packages: ${absent[*]} (usually 1 min)"
log="$LVS_CACHE/packages.log"
exec {lock_fd}>"$LVS_CACHE/packages.lock"
flock "$lock_fd"

# policy-rc.d is Debian's own way to keep maintainer scripts from starting
# daemons; one that is already there is the administrator's and stays.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi
enabled_before=()
for service in $SERVICES; do
    if [ -e "/lib/systemd/system/$service.service" ] || [ -e "/etc/init.d/$service" ]; then
        enabled_before+=("$service")
    fi
done

export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
install() {
    apt-get install -y --no-install-recommends -o DPkg::Lock::Timeout=600 "${absent[@]}"
}
if ! { install || { apt-get update -q && install; }; } >"$log" 2>&1 {lock_fd}>&-; then
    tail -n 15 "$log" >&2
    missing "Debian packages: ${absent[*]} (apt-get failed; log: $log)" "$how"
fi

# Only services that came with this run are taken out of the boot sequence.
for service in $SERVICES; do
    case " ${enabled_before[*]} " in *" $service "*) continue ;; esac
    if [ -e "/lib/systemd/system/$service.service" ]; then
        systemctl disable --quiet "$service" >>"$log" 2>&1 || say "could not disable $service.service at boot"
    fi
    if [ -e "/etc/init.d/$service" ]; then
        update-rc.d "$service" disable >>"$log" 2>&1 || say "could not disable /etc/init.d/$service at boot"
    fi
done

still=()
for entry in $PACKAGES; do
    present "${entry#*:}" || still+=("${entry%%:*} (for ${entry#*:})")
done
[ "${#still[@]}" -eq 0 ] || missing "after apt-get install: ${still[*]}" "$how"
