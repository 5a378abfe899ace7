#!/usr/bin/env bash
# `kubectl lvs import --shadow` without files, against a real API server: its objects are compared with a table, what stands
# against them is told, and so is why it cannot be told. About half a minute.
set -euo pipefail
test_name=shadow
# shellcheck source=installed_cluster.sh
. "$(dirname "${BASH_SOURCE[0]}")/installed_cluster.sh"

# shadow CODE WORDS ARGUMENT…: the table is on standard input.
shadow() {
    local code="$1" words="$2" found=0
    shift 2
    "$lvs" import --shadow - "$@" >"$work/out" 2>"$work/err" || found=$?
    [ "$found" -eq "$code" ] || failed "$* ended with $found, not $code: $(cat "$work/out" "$work/err")"
    grep -qF -- "$words" "$work/out" "$work/err" || failed "$* does not say '$words': $(cat "$work/out" "$work/err")"
    # Without an answer nothing looks like one.
    [ "$code" -ne 3 ] || [ ! -s "$work/out" ] || failed "$* answers all the same: $(cat "$work/out")"
}
cat >"$work/table" <<'T'
-A -t 192.0.2.100:80 -s mh -b mh-fallback
-a -t 192.0.2.100:80 -r 192.0.2.21:80 -g -w 1
-a -t 192.0.2.100:80 -r 192.0.2.22:80 -g -w 1
-a -t 192.0.2.100:80 -r 198.51.100.9:80 -g -w 2
T
# Before anything is installed.
shadow 3 "the server doesn't have a resource type" <"$work/table"

install_cluster

# Without the operator: what would be is told, and that nobody would do it.
shadow 0 '1 of 1 services are equal' <"$work/table"
told() { grep -qF -- "$1" "$work/out" || failed "it does not say '$1': $(cat "$work/out")"; }
told 'note: no Deployment of the operator'"'"'s controller was found: its namespace is taken to be lvs-system'
for node in lb-a lb-b; do told "problem: director $node: no agent's pod is on it"; done
# Agents: one runs, one has not begun. Nobody asks them anything.
agent() { # NODE PHASE
    "$kubectl" apply --filename - >/dev/null <<P
apiVersion: v1
kind: Pod
metadata: {name: agent-$1, namespace: lvs-system, labels: {app.kubernetes.io/component: agent}}
spec:
  nodeName: $1
  tolerations: [{operator: Exists}]
  automountServiceAccountToken: false
  containers: [{name: agent, image: agent}]
P
    "$kubectl" patch pod --namespace lvs-system "agent-$1" --subresource=status --type=merge --patch "{\"status\":{\"phase\":\"$2\"}}" >/dev/null
}
"$kubectl" create serviceaccount default --namespace lvs-system >/dev/null
agent lb-a Running
agent lb-b Pending
shadow 0 "problem: director lb-b: its agent's pod agent-lb-b is Pending" <"$work/table"
! grep -q 'director lb-a' "$work/out" || failed "an agent that runs is told of: $(cat "$work/out")"

# Differences, to people and to programs.
sed 's/-w 2/-w 5/' "$work/table" | shadow 2 '198.51.100.9:80'
told 'different'
sed 's/-w 2/-w 5/' "$work/table" | shadow 2 '"theirs": "5"' --output json
echo '-A -t 192.0.2.99:80 -s rr' | cat "$work/table" - | shadow 2 'only theirs'
shadow 2 'only ours' </dev/null

# A director that is no node of the cluster, and real servers that are none.
"$kubectl" patch virtualrouters.lvs.dev edge --type=merge \
    --patch '{"spec":{"directors":[{"nodeName":"lb-a"},{"nodeName":"lb-9"}]}}' >/dev/null
shadow 0 'problem: VirtualRouter edge: director lb-9: the cluster has no node of this name' <"$work/table"
"$kubectl" apply --filename - >/dev/null <<'R'
apiVersion: lvs.dev/v1alpha1
kind: RealServer
metadata: {name: web-7, namespace: shop, labels: {app: web}}
spec: {target: {type: Node, node: {name: web-7}}}
R
shadow 0 'problem: RealServer shop/web-7: ResolvedRefs=False NodeNotFound' <"$work/table"
"$kubectl" delete realservers.lvs.dev web-7 --namespace shop >/dev/null
"$kubectl" apply --filename "$here/plans/a-real-server-leaves/cluster.yaml" >/dev/null

# What it cannot know: a table that is none, flags of files without files, objects that one may not read, and nobody there.
shadow 3 'line 1: IP' <<<'IP Virtual Server version 1.2.1 (size=4096)'
shadow 3 '--node-name says something of files, and none is named' --node-name lb-9 <"$work/table"
shadow 3 '--namespace says something of files' --namespace shop <"$work/table"
"$kubectl" apply --filename examples/viewers.yaml >/dev/null
shadow 3 'User "guest" cannot list resource "deployments" in API group "apps"' --as guest <"$work/table"
shadow 3 'User "viewer" cannot list resource "deployments"' --as viewer --as-group lvs-viewers <"$work/table"
shadow 3 'context was not found for specified context: nowhere' --context nowhere <"$work/table"
"$control_plane" stop "$work/cp" apiserver
shadow 3 'was refused' <"$work/table"
"$control_plane" start "$work/cp" apiserver
KUBECTL=/no/kubectl shadow 3 'put kubectl on PATH, or name it in KUBECTL' <"$work/table"

echo "shadow: a real API server is asked for its objects, and whatever cannot be told is said and ends with 3"
