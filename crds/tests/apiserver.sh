#!/usr/bin/env bash
# The API's rules against a real kube-apiserver of their own: tests/apiserver.rs
# with everything it needs, about a minute.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
root="$here/../.."
control_plane="$root/e2e/cluster/control-plane.sh"
kubectl="$("$root/e2e/setup/tool.sh" kubectl)"

work="$(mktemp -d "${TMPDIR:-/tmp}/lvs-api.XXXXXX")"
finish_test() {
    "$control_plane" down "$work/cp" || true
    rm -rf "$work"
}
trap finish_test EXIT
"$control_plane" up "$work/cp" etcd apiserver

cd "$root"
PATH="$(dirname "$kubectl"):$PATH" LVS_TEST_KUBECONFIG="$work/cp/kubeconfig" \
    cargo test --locked --package lvs-crds --test apiserver -- --ignored
