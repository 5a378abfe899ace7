#!/usr/bin/env bash
# The guests' kernel: Debian's kernel source built as user-mode Linux, a process
# of this machine. It has real IPVS, which the machine's own kernel need not
# have, and needs no hardware virtualisation (docs/adr/0012).
#
#   $LVS_CACHE/kernel/<recipe>/linux  release  lib/modules/<release>/
#
# kernel.config says what is in it. A kernel already in the cache is used even
# when Debian has a newer source; remove the directory to follow.
set -euo pipefail
# shellcheck source=cache.sh
. "$(dirname "${BASH_SOURCE[0]}")/cache.sh"

build_kernel() {
    local root="$1" work release
    work="$(mktemp -d "$LVS_CACHE/kernel-source.XXXXXX")"
    # shellcheck disable=SC2064  # expanded now on purpose: the directory is known
    trap "rm -rf '$work'" EXIT
    cd "$work"
    apt-get download "$KERNEL_SOURCE_PACKAGE" || { apt-get update && apt-get download "$KERNEL_SOURCE_PACKAGE"; }
    dpkg-deb -x "$KERNEL_SOURCE_PACKAGE"_*.deb package
    mkdir source
    tar -xf package/usr/src/linux-source-*.tar.xz -C source --strip-components=1
    cd source
    make --quiet ARCH=um KCONFIG_ALLCONFIG="$SETUP_DIR/kernel.config" allnoconfig
    every_answer_was_taken
    make --quiet ARCH=um -j "$(nproc)" linux modules
    release="$(make --silent ARCH=um kernelrelease)"
    strip --strip-debug linux -o "$root/linux"
    make --quiet ARCH=um INSTALL_MOD_PATH="$root" INSTALL_MOD_STRIP=1 modules_install
    rm -f "$root/lib/modules/$release/build" "$root/lib/modules/$release/source"
    echo "$release" >"$root/release"
    [ -s "$root/lib/modules/$release/kernel/net/netfilter/ipvs/ip_vs.ko" ]
}

# Kconfig drops an answer whose condition is not met without a word.
every_answer_was_taken() {
    local answer status=0
    while read -r answer; do
        grep -qxF -- "$answer" .config || { echo "kernel.config: $answer was not taken" && status=1; }
    done < <(grep '^CONFIG_' "$SETUP_DIR/kernel.config")
    return "$status"
}

command -v apt-get >/dev/null || missing "Debian's apt-get and dpkg-deb (fetch the source of the guests' kernel)" \
    "build a kernel with ARCH=um by hand as e2e/setup/kernel.sh does"
recipe="$(cat "${BASH_SOURCE[0]}" "$SETUP_DIR/kernel.config" | sha256sum | cut -c1-12)"
make_once "$LVS_CACHE/kernel/$recipe" "building the guests' kernel from Debian's $KERNEL_SOURCE_PACKAGE" "7 min on 2 cores" build_kernel
printf '%s\n' "$LVS_CACHE/kernel/$recipe"
