#!/usr/bin/env bash
# images.sh lab: builds the lab's own image (busybox: the pause container and
# a small real web server) into the cache and prints the archive's path.
# No daemon and no registry: buildah to an OCI archive.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
# shellcheck source=../setup/cache.sh
. "$here/../setup/cache.sh"

LAB_IMAGE=localhost/lab/busybox:1

build_lab() {
    local target="$1" context storage
    context="$(mktemp -d)"
    storage="$(mktemp -d)"
    # shellcheck disable=SC2064  # expanded now on purpose
    trap "rm -rf '$context' '$storage'" EXIT
    cp "$(command -v busybox)" "$context/busybox"
    cat >"$context/Containerfile" <<'C'
FROM scratch
COPY busybox /bin/busybox
COPY busybox /bin/sh
COPY busybox /bin/httpd
ENV PATH=/bin
ENTRYPOINT ["/bin/busybox", "sleep", "2147483647"]
C
    buildah --root "$storage/root" --runroot "$storage/run" --storage-driver=vfs \
        build --isolation=chroot --tag "$LAB_IMAGE" "$context"
    buildah --root "$storage/root" --runroot "$storage/run" --storage-driver=vfs \
        push "$LAB_IMAGE" "oci-archive:$target/lab.tar:$LAB_IMAGE"
}

case "${1:-}" in
lab)
    recipe="$(sha256sum "${BASH_SOURCE[0]}" | cut -c1-12)"
    make_once "$LVS_CACHE/images/$recipe" "building the lab's image" "2 s" build_lab
    printf '%s\n' "$LVS_CACHE/images/$recipe/lab.tar"
    ;;
name) printf '%s\n' "$LAB_IMAGE" ;;
*)
    echo "usage: images.sh lab|name" >&2
    exit 2
    ;;
esac
