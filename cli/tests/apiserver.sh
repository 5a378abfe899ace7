#!/usr/bin/env bash
# What `kubectl lvs import` writes is what a real API server takes: of every sample that Debian's packages bring, of
# the goldens, and of random configurations. About a minute.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
root="$here/../.."
control_plane="$root/e2e/cluster/control-plane.sh"
kubectl="$("$root/e2e/setup/tool.sh" kubectl)"

work="$(mktemp -d "${TMPDIR:-/tmp}/lvs-import.XXXXXX")"
finish_test() {
    "$control_plane" down "$work/cp" || true
    rm -rf "$work"
}
trap finish_test EXIT

cd "$root"
mkdir "$work/objects"
LVS_TEST_OBJECTS="$work/objects" cargo test --quiet --locked --package kubectl-lvs --test laws -- --ignored write_random_objects
cargo build --quiet --locked --package kubectl-lvs
for sample in /usr/share/doc/keepalived/samples/keepalived.conf.* /usr/share/doc/ldirectord/examples/ldirectord.cf; do
    target/debug/kubectl-lvs import --node-name lb-a "$sample" 2>"$work/report" >"$work/objects/${sample##*/}.yaml"
done
for golden in cli/tests/goldens/*/objects.yaml; do
    name="${golden%/objects.yaml}"
    cp "$golden" "$work/objects/golden-${name##*/}.yaml"
done

"$control_plane" up "$work/cp" etcd apiserver
export KUBECONFIG="$work/cp/kubeconfig"
"$kubectl" apply --filename charts/lvs-operator/charts/crds/crds >/dev/null
"$kubectl" wait --for=condition=Established crd --all --timeout=60s >/dev/null
"$kubectl" create namespace shop >/dev/null

files=0
objects=0
for file in "$work"/objects/*; do
    [ -s "$file" ] || continue # nothing to balance in it
    if ! "$kubectl" apply --dry-run=server --validate=strict --filename "$file" >"$work/log" 2>&1; then
        grep -v 'server dry run' "$work/log" | head -n 20
        echo "import: the API server refuses objects of ${file##*/}"
        exit 1
    fi
    files=$((files + 1))
    objects=$((objects + $(grep -c 'server dry run' "$work/log")))
done
[ "$files" -gt 0 ] || { echo "import: nothing was applied" && exit 1; }
echo "import: a real API server takes $objects objects of $files files"
