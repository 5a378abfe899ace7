#!/usr/bin/env bash
# `kubectl lvs plan`, `check` and `bundle` against a real API server: what it refuses is told, what is planned is what would
# be, nothing is written, and no Secret leaves. About a minute.
set -euo pipefail
test_name=plan
# shellcheck source=installed_cluster.sh
. "$(dirname "${BASH_SOURCE[0]}")/installed_cluster.sh"

# Before anything is installed.
"$lvs" check --output json >"$work/check.json" || failed "check finds a problem: $(cat "$work/check.json")"
grep -q 'none of lvs.dev is there' "$work/check.json" || failed "check does not say that nothing is installed"

install_cluster
case="$here/plans/a-real-server-leaves"
"$kubectl" create secret generic checks --namespace lvs-system --from-literal=db.password=correct-horse-7 >/dev/null
state() { "$kubectl" get virtualservices,realservers,virtualrouters,nodeplans,nodes,namespaces --all-namespaces \
    --output 'jsonpath={range .items[*]}{.kind} {.metadata.name} {.metadata.resourceVersion}{"\n"}{end}'; }
state >"$work/before"

# plan CODE WORDS ARGUMENT…
plan() {
    local code="$1" words="$2" found=0
    shift 2
    "$lvs" plan "$@" >"$work/out" 2>"$work/err" || found=$?
    [ "$found" -eq "$code" ] || failed "plan $* ended with $found, not $code: $(cat "$work/out" "$work/err")"
    grep -qF -- "$words" "$work/out" "$work/err" || failed "plan $* does not say '$words': $(cat "$work/out" "$work/err")"
}
plan 0 'Nothing would change.' --filename "$case/cluster.yaml"
plan 2 'go on for at most 300 s' --delete --filename "$case/deleted.yaml"
plan 2 'RealServer shop/web-9 would be deleted' --delete --filename "$case/deleted.yaml"
plan 2 'Accepted=False AddressInUse' --filename "$here/plans/an-address-in-use/applied.yaml"
plan 2 'VirtualRouter edge: lb-a -> lb-b' --filename - <"$here/plans/a-director-goes/applied.yaml"
sed 's/{port: 80}/{port: 80000}/' "$here/plans/an-address-in-use/applied.yaml" >"$work/invalid.yaml"
plan 3 'spec.ports[0].port' --filename "$work/invalid.yaml"
sed 's/type: NAT/type: NAT, tunnel: {type: GUE, port: 6080}/' "$here/plans/an-address-in-use/applied.yaml" >"$work/rule.yaml"
plan 3 'tunnel' --filename "$work/rule.yaml"
plan 3 'the path "nowhere.yaml" does not exist' --filename nowhere.yaml

# What belongs to Kubernetes itself and is in the way.
cat <<'Y' | "$kubectl" apply --filename - >/dev/null
apiVersion: v1
kind: ConfigMap
metadata: {name: kube-proxy, namespace: kube-system}
data: {config.conf: "mode: iptables"}
---
apiVersion: v1
kind: Service
metadata: {name: front, namespace: shop}
spec: {externalIPs: [192.0.2.100], ports: [{port: 443}]}
---
apiVersion: v1
kind: Service
metadata: {name: back, namespace: shop}
spec: {externalIPs: [192.0.2.101], ports: [{port: 443}]}
Y
found=0
"$lvs" check --output json >"$work/check.json" || found=$?
[ "$found" -eq 1 ] || failed "check ended with $found, not 1: $(cat "$work/check.json")"
said() { jq --exit-status "any(.[]; .level == \"$1\" and .subject == \"$2\" and (.what | contains(\"$3\")))" "$work/check.json" >/dev/null ||
    failed "check says no $1 of $2 with '$3': $(cat "$work/check.json")"; }
said Ok kube-proxy 'mode iptables'
said Problem 'Service shop/front' 192.0.2.100
said Warning 'Service shop/back' 192.0.2.101

"$lvs" bundle --archive "$work/a.tar.gz" 2>"$work/progress" >/dev/null || failed "bundle: $(cat "$work/progress")"
mkdir "$work/unpacked" && tar --extract --gzip --file "$work/a.tar.gz" --directory "$work/unpacked"
grep -rq 'name: web-9' "$work/unpacked" || failed "the archive has no objects"
for secret in correct-horse-7 "$(printf correct-horse-7 | base64)"; do
    ! grep -rqF "$secret" "$work/unpacked" || failed "the archive has a Secret"
done
state | diff "$work/before" - || failed "something was written"
echo "plan: a real API server is asked, judges, and is left as it was"
