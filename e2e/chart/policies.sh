#!/usr/bin/env bash
# The chart installed into a real API server: what an agent's token, a tenant
# and a stranger may and may not write. The agents' pods are those of the
# chart's DaemonSet, bound to nodes by the real scheduler; their tokens are made
# by TokenRequest, as the kubelet does it.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
# shellcheck source=check.sh
. "$here/check.sh"
# shellcheck source=../cluster/process.sh
. "$here/../cluster/process.sh"
chart="${CHART:-$here/../../charts/lvs-operator}"
helm="$("$here/../setup/tool.sh" helm)"
kubectl_binary="$("$here/../setup/tool.sh" kubectl)"
control_plane="$here/../cluster/control-plane.sh"
namespace=lvs-system

work="$(mktemp -d "${TMPDIR:-/tmp}/lvs-chart.XXXXXX")"
finish_test() {
    "$control_plane" down "$work/cp" || true
    if [ "${KEEP_LOGS:-}" = 1 ]; then printf 'logs: %s\n' "$work/cp/logs"; else rm -rf "$work"; fi
}
trap finish_test EXIT
"$control_plane" up "$work/cp"
export KUBECONFIG="$work/cp/kubeconfig"
# shellcheck source=/dev/null
. "$work/cp/control-plane.env"

k() { "$kubectl_binary" "$@"; }
kn() { k --namespace "$namespace" "$@"; }

# node NAME: a node that the scheduler takes for real.
node() {
    k create -f - <<Y
apiVersion: v1
kind: Node
metadata: {name: $1, labels: {kubernetes.io/os: linux, kubernetes.io/hostname: $1}}
Y
    k patch node "$1" --subresource=status --type=merge -p '{"status": {
        "capacity": {"cpu": "2", "memory": "2Gi", "pods": "20"},
        "allocatable": {"cpu": "2", "memory": "2Gi", "pods": "20"},
        "conditions": [{"type": "Ready", "status": "True", "reason": "Test", "message": "no kubelet"}]}}'
}
{
    node lb-a
    node lb-b
    node web-1
} >/dev/null

cat >"$work/values.yaml" <<'Y'
defaultRouter:
  directors:
  - {nodeName: lb-a, priority: 100}
  - {nodeName: lb-b, priority: 80}
  interfaces:
  - {name: outside, devices: [eth0, ens3]}
  - {name: inside, devices: [eth1]}
  additionalAddresses:
  - {address: 198.51.100.1, interfaceName: inside}
  addressPools:
  - {name: public, addresses: [192.0.2.100-192.0.2.120, 2001:db8::/120], interfaceName: outside, assignment: Automatic}
  grants:
  - namespaces: {from: All}
    addressPoolNames: [public]
    realServerCIDRs: [192.0.2.0/24]
    realServerNodes: All
  detection: {leaseDurationSeconds: 10}
  announcement: {burstCount: 5, intervalMilliseconds: 100, refreshSeconds: 0}
  timeouts: {tcpSeconds: 900, tcpFinSeconds: 120, udpSeconds: 300}
Y
install() {
    "$helm" "$1" lvs-operator "$chart" --namespace "$namespace" --create-namespace --values "$work/values.yaml" "${@:2}"
}
accepted "helm install into a real API server" install install
[ "$failures" -eq 0 ] || summary # nothing else makes sense
# Every manifest again, and unknown fields refused this time (Helm lets them pass).
strict() {
    install template --kube-version 1.34.0 --no-hooks | k apply --server-side --force-conflicts --field-manager=strict \
        --dry-run=server --validate=strict -f -
    install template --kube-version 1.34.0 -s templates/prepare-uninstall.yaml | k apply --server-side \
        --field-manager=strict --dry-run=server --validate=strict -f -
}
accepted "no field that the API server does not know" strict
warnings() {
    local policy text
    for policy in lvs-operator-agent-plan-status lvs-operator-agent-lease; do
        wait_until 30 "the type check of $policy" k get validatingadmissionpolicy "$policy" -o jsonpath='{.status.typeChecking}' || return 1
        text="$(k get validatingadmissionpolicy "$policy" -o jsonpath='{.status.typeChecking.expressionWarnings}')"
        [ -z "$text" ] || {
            printf '%s\n' "$text"
            return 1
        }
    done
}
accepted "the policies pass the API server's type check" warnings

# The agents' pods, as the DaemonSet makes them.
agent_pod() {
    kn get pods --selector app.kubernetes.io/component=agent --field-selector "spec.nodeName=$1" -o 'jsonpath={.items[0].metadata.name}'
}
agent_pod_exists() { [ -n "$(agent_pod "$1")" ]; }
for name in lb-a lb-b web-1; do
    wait_until 60 "the agent's pod on $name (logs: $work/cp/logs)" agent_pod_exists "$name"
    kn create token lvs-operator-agent --bound-object-kind Pod --bound-object-name "$(agent_pod "$name")" >"$work/$name.token"
done
kn create token lvs-operator-agent >"$work/unbound.token"

# as_agent NODE ARGUMENTS…: kubectl with that agent's token and nothing else.
as_agent() {
    "$kubectl_binary" --kubeconfig=/dev/null --server "$API_URL" --certificate-authority "$work/cp/pki/ca.crt" \
        --token "$(cat "$work/$1.token")" --namespace "$namespace" --cache-dir "$work/cache" "${@:2}"
}

# plan NAME NODE: a plan as the controller writes it.
plan() {
    kn create -f - <<Y
apiVersion: lvs.dev/v1alpha1
kind: NodePlan
metadata: {name: $1}
spec:
  nodeName: $2
  state: Active
  source: {kind: VirtualService, namespace: default, name: web, uid: 7d3c7c0e-6a37-4f8c-9d5c-0a4b6b1f2a11, generation: 1}
  virtualRouterName: default
  realServer: {directRoutingAddresses: [192.0.2.100]}
Y
}
accepted "a plan for lb-a" plan vs-0000000000000001 lb-a
accepted "a plan for lb-b" plan vs-0000000000000002 lb-b
# patch_status NODE PLAN TYPE BODY: one PATCH, as an agent sends it. (kubectl
# would first GET the subresource, which agents have no use and no right for.)
patch_status() {
    curl --silent --show-error --fail-with-body --cacert "$work/cp/pki/ca.crt" \
        --header "Authorization: Bearer $(cat "$work/$1.token")" --header "Content-Type: application/$3" \
        --request PATCH --data "$4" \
        "$API_URL/apis/lvs.dev/v1alpha1/namespaces/$namespace/nodeplans/$2/status?${5:-}"
}
# report NODE PLAN: a status by server-side apply.
report() {
    patch_status "$1" "$2" apply-patch+yaml "{\"apiVersion\": \"lvs.dev/v1alpha1\", \"kind\": \"NodePlan\",
        \"metadata\": {\"name\": \"$2\"}, \"status\": {\"agentVersion\": \"$RANDOM\"}}" "fieldManager=lvs-agent&force=true"
}
# A policy is in force a moment after it was made: wait for the first refusal.
in_force() {
    { report unbound vs-0000000000000001 || true; } | grep -qF "names no node" &&
        { as_agent unbound replace -f "$work/probe.json" 2>&1 || true; } | grep -qF "names no node"
}
kn create -f - -o json >"$work/probe.json" <<'Y'
apiVersion: coordination.k8s.io/v1
kind: Lease
metadata: {name: foreign, labels: {lvs.dev/other: x}}
spec: {holderIdentity: someone, leaseDurationSeconds: 10}
Y
wait_until 60 "the policies to be in force" in_force

# Rule: the status of its own node's plans, and nothing else of a plan.
accepted "lb-a reports on its own plan" report lb-a vs-0000000000000001
accepted "lb-b reports on its own plan" report lb-b vs-0000000000000002
refused "lb-b reports on lb-a's plan" "the agent of node lb-b may not write the status of NodePlan vs-0000000000000001, which is node lb-a's" \
    report lb-b vs-0000000000000001
refused "a token bound to no pod reports" "this one names no node" report unbound vs-0000000000000001
refused "lb-a changes its own plan" 'cannot patch resource "nodeplans"' \
    as_agent lb-a patch nodeplan vs-0000000000000001 --type=merge -p '{"spec": {"state": "Withdrawn"}}'
refused "lb-a deletes its own plan" 'cannot delete resource "nodeplans"' as_agent lb-a delete nodeplan vs-0000000000000001
refused "lb-a makes a plan" 'cannot create resource "nodeplans"' as_agent lb-a create -f - <<'Y'
{"apiVersion": "lvs.dev/v1alpha1", "kind": "NodePlan", "metadata": {"name": "vs-0000000000000003"}, "spec": {}}
Y
spec_unchanged() {
    patch_status lb-a vs-0000000000000001 merge-patch+json \
        '{"spec": {"nodeName": "lb-b"}, "metadata": {"labels": {"stolen": "yes"}}, "status": {"agentVersion": "1"}}' &&
        [ "$(kn get nodeplan vs-0000000000000001 -o 'jsonpath={.spec.nodeName}{.metadata.labels.stolen}')" = lb-a ]
}
accepted "a status write changes neither spec nor labels" spec_unchanged

# Rule: the Leases of routers it directs, and of these only what a director does.
kn create -f - >/dev/null <<'Y'
apiVersion: coordination.k8s.io/v1
kind: Lease
metadata:
  name: lvs-router-default
  labels: {lvs.dev/virtual-router: default}
  annotations: {lvs.dev/directors: "lb-a,lb-b"}
spec: {leaseDurationSeconds: 10, leaseTransitions: 0}
Y
# put NODE LEASE FILTER: reads the Lease, changes it by FILTER (jq), writes it
# back with that agent's token: a compare-and-swap.
put() { as_agent "$1" get lease "$2" -o json | jq "$3" | as_agent "$1" replace -f -; }
hold() { printf '.spec += {holderIdentity: "%s", leaseTransitions: %d, renewTime: "2030-01-01T00:00:%02d.000000Z"}' "$1" "$2" "$3"; }

refused "a node that does not direct acquires" "node web-1 is not a director of this router; its directors are: lb-a, lb-b" \
    put web-1 lvs-router-default "$(hold web-1/1 1 0)"
refused "lb-a acquires in lb-b's name" "not lb-b/1" put lb-a lvs-router-default "$(hold lb-b/1 1 0)"
refused "lb-a acquires as a node whose name it begins" "not lb-a2/1" put lb-a lvs-router-default "$(hold lb-a2/1 1 0)"
refused "lb-a acquires without a new epoch" "grows with every acquisition" put lb-a lvs-router-default "$(hold lb-a/1 0 0)"
refused "a token bound to no pod acquires" "this one names no node" put unbound lvs-router-default "$(hold lb-a/1 1 0)"
accepted "lb-a acquires, epoch 1" put lb-a lvs-router-default "$(hold lb-a/1 1 1)"
accepted "lb-a renews" put lb-a lvs-router-default "$(hold lb-a/1 1 2)"
accepted "lb-a renews after a restart, same epoch" put lb-a lvs-router-default "$(hold lb-a/2 1 3)"
accepted "lb-a acquires again after its lease ran out, epoch 2" put lb-a lvs-router-default "$(hold lb-a/2 2 4)"
refused "lb-a lowers the epoch" "never falls; it was 2 and would be 1" put lb-a lvs-router-default "$(hold lb-a/2 1 5)"
refused "lb-b renews in lb-a's name" "only its holder renews or offers" put lb-b lvs-router-default "$(hold lb-a/2 2 6)"
refused "lb-b raises the epoch in lb-a's name" "only its holder renews or offers" put lb-b lvs-router-default "$(hold lb-a/2 3 4)"
refused "lb-b releases for lb-a" "empty while lb-a/2 holds it" put lb-b lvs-router-default "$(hold "" 2 6)"
refused "lb-b takes over without a new epoch" "grows with every acquisition" put lb-b lvs-router-default "$(hold lb-b/1 2 6)"
refused "lb-b offers in lb-a's name" "only its holder renews or offers" \
    put lb-b lvs-router-default '.metadata.annotations["lvs.dev/offered"] = "2"'
challenge() { printf '.metadata.annotations["lvs.dev/challenge"] = "%s"' "$1"; }
refused "lb-b challenges in web-1's name" "challenge it in their own name" put lb-b lvs-router-default "$(challenge 2/web-1/1)"
refused "lb-b challenges another epoch" "challenge it in their own name" put lb-b lvs-router-default "$(challenge 3/lb-b/1)"
refused "lb-b challenges and annotates" "challenge it in their own name" \
    put lb-b lvs-router-default "$(challenge 2/lb-b/1) | .metadata.annotations.other = \"1\""
refused "lb-b challenges and renews" "challenge it in their own name" \
    put lb-b lvs-router-default "$(challenge 2/lb-b/1) | .spec.renewTime = \"2030-01-01T00:02:00.000000Z\""
refused "web-1 challenges, no director" "is not a director of this router" put web-1 lvs-router-default "$(challenge 2/web-1/1)"
accepted "lb-b challenges" put lb-b lvs-router-default "$(challenge 2/lb-b/1)"
refused "lb-b takes its challenge back" "challenge it in their own name" put lb-b lvs-router-default 'del(.metadata.annotations["lvs.dev/challenge"])'
accepted "lb-a answers" put lb-a lvs-router-default "del(.metadata.annotations[\"lvs.dev/challenge\"]) | $(hold lb-a/2 2 5)"
accepted "lb-a offers" put lb-a lvs-router-default '.metadata.annotations["lvs.dev/offered"] = "2"'
accepted "lb-b takes over what is offered, epoch 3" put lb-b lvs-router-default \
    "del(.metadata.annotations[\"lvs.dev/offered\"]) | $(hold lb-b/1 3 7)"
refused "lb-a renews after it lost" "only its holder renews or offers" put lb-a lvs-router-default '.spec.renewTime = "2030-01-01T00:01:00.000000Z"'
accepted "lb-b releases" put lb-b lvs-router-default "$(hold "" 3 8)"
accepted "lb-a acquires after a release, epoch 4" put lb-a lvs-router-default "$(hold lb-a/2 4 9)"
refused "lb-a adds a director" "annotation lvs.dev/directors" \
    put lb-a lvs-router-default '.metadata.annotations["lvs.dev/directors"] = "lb-a,lb-b,web-1"'
refused "web-1 adds itself and acquires in one write" "is not a director of this router" \
    put web-1 lvs-router-default ".metadata.annotations[\"lvs.dev/directors\"] = \"web-1\" | $(hold web-1/1 5 0)"
refused "lb-a removes the annotation" "annotation lvs.dev/directors" \
    put lb-a lvs-router-default 'del(.metadata.annotations["lvs.dev/directors"])'
refused "lb-a relabels" "labels, owners" put lb-a lvs-router-default '.metadata.labels["lvs.dev/virtual-router"] = "other"'
refused "lb-a gives the Lease an owner" "labels, owners" put lb-a lvs-router-default \
    '.metadata.ownerReferences = [{apiVersion: "v1", kind: "Node", name: "lb-a", uid: "00000000-0000-0000-0000-000000000001"}]'
refused "lb-a patches instead of comparing and swapping" 'cannot patch resource "leases"' \
    as_agent lb-a patch lease lvs-router-default --type=merge -p '{"spec": {"leaseTransitions": 9}}'
refused "lb-a takes a Lease that is no router's" "not that of a VirtualRouter" put lb-a foreign "$(hold lb-a/1 1 0)"
refused "lb-a makes a Lease" 'cannot create resource "leases"' as_agent lb-a create -f - <<'Y'
{"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "lvs-router-mine"}}
Y
refused "lb-a deletes the Lease" 'cannot delete resource "leases"' as_agent lb-a delete lease lvs-router-default
stale() {
    as_agent lb-a get lease lvs-router-default -o json >"$work/stale.json"
    put lb-a lvs-router-default "$(hold lb-a/2 4 11)" >/dev/null
    jq "$(hold lb-a/2 4 12)" "$work/stale.json" | as_agent lb-a replace -f -
}
refused "a write from an old resourceVersion" "the object has been modified" stale

# Even with more rights by mistake (an administrator's broad binding) the
# policies hold.
kn create rolebinding by-mistake --clusterrole=cluster-admin --serviceaccount="$namespace:lvs-operator-agent" >/dev/null
may_delete() { as_agent lb-a auth can-i delete leases | grep -qx yes; }
wait_until 30 "the mistake to be in force" may_delete
refused "with all rights: lb-a deletes a Lease" "neither creates nor deletes Leases" as_agent lb-a delete lease lvs-router-default
refused "with all rights: lb-a changes its own plan" "nothing of a NodePlan but its status" \
    as_agent lb-a patch nodeplan vs-0000000000000001 --type=merge -p '{"metadata": {"labels": {"a": "b"}}}'
refused "with all rights: lb-a reports on lb-b's plan" "which is node lb-b's" report lb-a vs-0000000000000002
kn delete rolebinding by-mistake >/dev/null

# What the chart adds to the cluster's own roles.
k create namespace tenant >/dev/null
k --namespace tenant create rolebinding alice --clusterrole=edit --user=alice >/dev/null
k --namespace tenant create rolebinding bob --clusterrole=view --user=bob >/dev/null
kn create rolebinding carol --clusterrole=edit --user=carol >/dev/null
can() { [ "$(k auth can-i --as "$1" --namespace "$2" "$3" "$4" --subresource="${5:-}" 2>/dev/null)" = yes ]; }
cannot() { [ "$(k auth can-i --as "$1" --namespace "$2" "$3" "$4" --subresource="${5:-}" 2>/dev/null)" = no ]; }
wait_until 30 "the aggregation of roles" can alice tenant create virtualservices.lvs.dev
accepted "an editor makes real servers" can alice tenant create realservers.lvs.dev
accepted "a viewer sees services" can bob tenant list virtualservices.lvs.dev
accepted "a viewer makes no service" cannot bob tenant create virtualservices.lvs.dev
accepted "an editor writes no status" cannot alice tenant patch virtualservices.lvs.dev status
accepted "an editor makes no router" cannot alice tenant create virtualrouters.lvs.dev
for verb in create update patch delete; do
    accepted "an editor of the operator's namespace may not $verb NodePlans" cannot carol "$namespace" "$verb" nodeplans.lvs.dev
done

# What documents and examples tell users to apply is what the API server takes.
strictly() { k apply --dry-run=server --validate=strict --filename "$1"; }
for example in "$here"/../../examples/*.yaml; do
    if [ "${example##*/}" = values.yaml ]; then
        accepted "examples/values.yaml" "$helm" template lvs-operator "$chart" --kube-version 1.34.0 --values "$example"
    else
        accepted "examples/${example##*/}" strictly "$example"
    fi
done
# Of the README's blocks of YAML one begins as a values file, the others are objects.
awk -v work="$work" '/^```yaml/ { block = work "/readme-" ++n ".yaml"; next } /^```/ { block = ""; next } block { print > block }' \
    "$here/../../README.md"
for block in "$work"/readme-*.yaml; do
    if [ "$(head -n 1 "$block")" = "# values.yaml" ]; then
        accepted "README: the values file" "$helm" template lvs-operator "$chart" --kube-version 1.34.0 --values "$block"
    else
        accepted "README: objects ($(grep -m 1 'name:' "$block"))" strictly "$block"
    fi
done
"$helm" get notes lvs-operator --namespace "$namespace" |
    awk '/kubectl apply -f\)/ { inside = 1; next } /^Then:/ { inside = 0 } inside { sub(/^  /, ""); print }' >"$work/notes.yaml"
accepted "NOTES: the first service" strictly "$work/notes.yaml"

# A second release would fight over the hosts.
refused "a second release" "exists and cannot be imported" \
    "$helm" install second "$chart" --namespace "$namespace" --values "$work/values.yaml"
accepted "helm upgrade" install upgrade

# Metrics for whom the API server permits it: rights that are there only then. (An upgrade replaces the agents' pods, so that
# their tokens are no longer good: the API server is asked about the ServiceAccount.)
agent_account="system:serviceaccount:$namespace:lvs-operator-agent"
# says ANSWER USER VERB OBJECT: what the API server says, and nothing else, as a failing kubectl.
says() { [ "$(k auth can-i --as "$2" "$3" "$4" 2>/dev/null)" = "$1" ]; }
questions="tokenreviews.authentication.k8s.io subjectaccessreviews.authorization.k8s.io"
for question in $questions; do
    accepted "agents may not create $question" says no "$agent_account" create "$question"
done
accepted "helm upgrade with metrics for bearers of tokens" install upgrade --set metrics.tls.secretName=our-tls,metrics.authentication.enabled=true
for question in $questions; do
    accepted "agents may create $question then" wait_until 30 "the right" says yes "$agent_account" create "$question"
done
accepted "they list no Secrets even then" says no "$agent_account" list secrets
k create clusterrolebinding dave --clusterrole=lvs-operator-metrics-reader --user=dave >/dev/null
accepted "who is bound may get /metrics" wait_until 30 "the right" says yes dave get /metrics
accepted "and no other path" says no dave get /logs
accepted "who is not bound may not" says no alice get /metrics
accepted "helm upgrade without them" install upgrade
for question in $questions; do
    accepted "agents may not create $question any more" wait_until 30 "the right to be gone" says no "$agent_account" create "$question"
done
summary
