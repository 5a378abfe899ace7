# Sourced by tests of the plugin against a real API server: the plugin, a control plane that ends with the test, and the
# cluster of plans/a-real-server-leaves. Needs: test_name.
# shellcheck shell=bash disable=SC2034,SC2154

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
root="$here/../.."
control_plane="$root/e2e/cluster/control-plane.sh"
kubectl="$("$root/e2e/setup/tool.sh" kubectl)"

work="$(mktemp -d "${TMPDIR:-/tmp}/lvs-$test_name.XXXXXX")"
finish_test() {
    "$control_plane" down "$work/cp" || true
    rm -rf "$work"
}
trap finish_test EXIT
failed() {
    echo "$test_name: $*"
    exit 1
}

cd "$root" || exit
cargo build --quiet --locked --package kubectl-lvs
lvs="$root/target/debug/kubectl-lvs"
export KUBECTL="$kubectl"
"$control_plane" up "$work/cp" etcd apiserver
export KUBECONFIG="$work/cp/kubeconfig"

install_cluster() {
    local node
    "$kubectl" apply --filename charts/lvs-operator/charts/crds/crds >/dev/null
    "$kubectl" wait --for=condition=Established crd --all --timeout=60s >/dev/null
    "$kubectl" apply --filename "$here/plans/a-real-server-leaves/cluster.yaml" >/dev/null
    # Addresses of a Node are in its status, which is written by itself.
    for node in lb-a:192.0.2.1 lb-b:192.0.2.2 web-1:192.0.2.21 web-2:192.0.2.22; do
        "$kubectl" patch node "${node%%:*}" --subresource=status --type=merge \
            --patch "{\"status\":{\"addresses\":[{\"type\":\"InternalIP\",\"address\":\"${node##*:}\"}]}}" >/dev/null
    done
}
