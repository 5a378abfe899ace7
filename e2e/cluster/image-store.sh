#!/usr/bin/env bash
# image-store.sh DIR ARCHIVE…: containerd's own store in DIR with the images of these archives, for nodes that start
# with a copy of it. A containerd of this machine imports them once, for a second and with a socket of its own, instead of
# each node for itself.
set -euo pipefail
directory="$1"
shift
work="$(mktemp -d "${TMPDIR:-/tmp}/lvs-store.XXXXXX")"
rm -rf "$directory"
mkdir -p "$directory"
daemon=""
finish() {
    if [ -n "$daemon" ]; then
        kill "$daemon" 2>/dev/null || true
        wait "$daemon" || true
    fi
    rm -rf "$work"
}
trap finish EXIT
cat >"$work/config.toml" <<T
version = 2
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.aufs", "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing"]
T
containerd --config "$work/config.toml" --root "$directory" --state "$work/state" --address "$work/socket" >"$work/log" 2>&1 &
daemon=$!
until [ -S "$work/socket" ]; do
    kill -0 "$daemon" 2>/dev/null || { cat "$work/log" >&2 && exit 1; }
    sleep 0.05
done
for archive in "$@"; do
    ctr --address "$work/socket" --namespace k8s.io images import "$archive" >"$work/import" 2>&1 || { cat "$work/import" >&2 && exit 1; }
done
