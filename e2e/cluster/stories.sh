# Sourced by demo.sh test: stories that need real kubelets, told in a cluster
# where examples/virtualservice.yaml is applied and balanced. Every story leaves
# it so. Needs: state, namespace, virtual_address, kubectl, helm, lab, step, shown.
# shellcheck shell=bash disable=SC2154,SC2317

# A takeover would take longer; the guests share processors with each other and with the probe.
UPGRADE_OUTAGE_SECONDS=0.5

master() { kubectl get virtualrouters.lvs.dev default -o jsonpath='{.status.master.nodeName}'; }
agent_on() {
    kubectl get pods --namespace "$namespace" --selector app.kubernetes.io/component=agent \
        --field-selector "spec.nodeName=$1" -o jsonpath="{.items[0].metadata.$2}"
}
balanced() {
    spread "$state" "$virtual_address" 40 >"$state/logs/spread-story.txt" &&
        expect_spread "$state/logs/spread-story.txt" "$@"
}
set_weight() { kubectl patch realservers.lvs.dev "$1" --type=merge -p "{\"spec\": {\"weight\": $2}}" >/dev/null; }
# one_answers: exactly one host on the segment answers ARP for the address.
one_answers() {
    local answers
    answers="$(lab host client "arping -c 4 -w 20 -I eth0 $virtual_address" | grep -oiE '\[[0-9a-f:]{17}\]' | sort -u)"
    if [ -z "$answers" ] || [ "$(wc -l <<<"$answers")" -ne 1 ]; then
        printf 'ARP for %s answered by: %s\n' "$virtual_address" "${answers:-nobody}" >&2
        return 1
    fi
}
service_ready() { kubectl wait --for=condition=Ready --timeout=120s virtualservices.lvs.dev/web >/dev/null; }

# refused_with TEXT COMMAND…: it must fail, and for this reason.
refused_with() {
    local text="$1" output
    shift
    if output="$("$@" 2>&1)"; then
        printf 'was accepted, expected a refusal with "%s": %s\n' "$text" "$output" >&2
        return 1
    fi
    grep -qF -- "$text" <<<"$output" || { printf 'expected "%s", got: %s\n' "$text" "$output" >&2 && return 1; }
}

# With the token that an agent's pod has on node-1, as its kubelet wrote it.
story_stolen_token() {
    local token uid own other plans leases content='application/merge-patch+json'
    uid="$(agent_on node-1 uid)"
    token="$(lab run node-1 "cat /var/lib/kubelet/pods/$uid/volumes/kubernetes.io~projected/api-token/token")"
    # shellcheck source=/dev/null
    . "$state/control-plane.env"
    as_agent() {
        curl --silent --show-error --fail-with-body --max-time 30 --cacert "$state/pki/ca.crt" \
            --header "Authorization: Bearer $token" --header "Content-Type: $content" "${@:2}" "$API_URL$1"
    }
    plans="/apis/lvs.dev/v1alpha1/namespaces/$namespace/nodeplans"
    own="$(kubectl get nodeplans.lvs.dev --namespace "$namespace" --field-selector spec.nodeName=node-1 -o jsonpath='{.items[0].metadata.name}')"
    other="$(kubectl get nodeplans.lvs.dev --namespace "$namespace" --field-selector spec.nodeName=node-2 -o jsonpath='{.items[0].metadata.name}')"
    [ -n "$own" ] && [ -n "$other" ] || return 1
    as_agent "$plans/$own" >/dev/null
    as_agent "$plans/$own/status?dryRun=All" --request PATCH --data '{"status": {"agentVersion": "story"}}' >/dev/null
    refused_with "the agent of node node-1 may not write the status of NodePlan $other, which is node node-2's" \
        as_agent "$plans/$other/status" --request PATCH --data '{"status": {"agentVersion": "story"}}'
    refused_with "nodeplans.lvs.dev \\\"$own\\\" is forbidden" \
        as_agent "$plans/$own" --request PATCH --data '{"metadata": {"labels": {"story": "x"}}}'
    refused_with "cannot list resource \\\"secrets\\\"" as_agent "/api/v1/namespaces/$namespace/secrets"
    refused_with "cannot patch resource \\\"virtualservices\\\"" \
        as_agent /apis/lvs.dev/v1alpha1/namespaces/default/virtualservices/web --request PATCH --data '{"spec": {"ports": [{"port": 81}]}}'
    refused_with "cannot delete resource \\\"nodeplans\\\"" as_agent "$plans/$other" --request DELETE
    leases="/apis/coordination.k8s.io/v1/namespaces/$namespace/leases"
    refused_with "cannot delete resource \\\"leases\\\"" as_agent "$leases/lvs-router-default" --request DELETE
    refused_with "cannot create resource \\\"leases\\\"" as_agent "$leases" --request POST --data '{}'
    # Read, changed, written back, as an agent does: in another's name, and released for another.
    lease_in_other_hands() {
        local content=application/json answer attempt
        for attempt in 1 2 3 4 5; do
            as_agent "$leases/lvs-router-default" | jq "$1" >"$state/stolen-lease.json"
            answer="$(as_agent "$leases/lvs-router-default?dryRun=All" --request PUT --data "@$state/stolen-lease.json" 2>&1)" && return 0
            # The holder has renewed it between reading and writing.
            grep -qF '"reason": "Conflict"' <<<"$answer" || break
        done
        printf 'attempt %d: %s\n' "$attempt" "$answer"
        return 1
    }
    refused_with "or empty by the holder; not node-2/1" \
        lease_in_other_hands '.spec |= (.holderIdentity = "node-2/1" | .leaseTransitions += 1)'
    if [ "$(master)" != node-1 ]; then
        refused_with "not empty while" lease_in_other_hands '.spec.holderIdentity = ""'
    fi
}

# Another product's definition of the same kind and plural.
story_istio_beside_ours() {
    kubectl apply -f - >/dev/null <<'Y'
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: virtualservices.networking.istio.io}
spec:
  group: networking.istio.io
  scope: Namespaced
  names: {kind: VirtualService, plural: virtualservices, singular: virtualservice, shortNames: [vs]}
  versions:
  - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}
Y
    kubectl wait --for=condition=Established --timeout=30s crd/virtualservices.networking.istio.io >/dev/null
    kubectl apply -f - >/dev/null <<'Y'
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web}
spec: {hosts: [web]}
Y
    kubectl get lvsvs web >/dev/null
    kubectl get virtualservices.lvs.dev web >/dev/null
    [ "$(kubectl get lvsvs -o jsonpath='{.items[*].apiVersion}')" = lvs.dev/v1alpha1 ]
    [ "$(kubectl get lvs -o name | grep -c '^virtualservice.networking')" = 0 ]
    service_ready
    kubectl delete crd virtualservices.networking.istio.io >/dev/null
    kubectl get lvsvs web >/dev/null
}

# New values reach the router; what balances is left alone, and clients notice nothing while one agent after the other goes.
story_upgrade() {
    local struck outage
    begin_traffic
    struck="$(microseconds "$EPOCHREALTIME")"
    "$helm" upgrade lvs-operator "$root/charts/lvs-operator" --namespace "$namespace" --values "$root/examples/values.yaml" \
        --set agent.logLevel=debug --wait --timeout 5m >/dev/null
    kubectl rollout status --namespace "$namespace" daemonset/lvs-operator-agent --timeout=300s >/dev/null
    [ "$(kubectl get pods --namespace "$namespace" --selector app.kubernetes.io/component=agent \
        -o jsonpath='{range .items[*]}{.spec.containers[0].env[?(@.name=="LVS_LOG")].value}{"\n"}{end}' | grep -c debug)" = 3 ]
    outage="$(end_traffic "$struck")"
    echo "upgrade: longest time without an answer $outage s" | shown
    at_most "outage" "$outage" "$UPGRADE_OUTAGE_SECONDS"
    service_ready
    wait_until 60 "balance after the upgrade" balanced node-3:20 web-2:10 web-3:10
}

# A drained node keeps its agent, and hands the address over to one that stays.
story_drain() {
    local node uid
    moved_on() { [ -n "$(master)" ] && [ "$(master)" != "$node" ]; }
    node="$(master)"
    uid="$(agent_on "$node" uid)"
    kubectl drain "$node" --ignore-daemonsets --timeout=120s --pod-selector app.kubernetes.io/name=lvs-operator >/dev/null 2>&1
    [ "$(agent_on "$node" uid)" = "$uid" ]
    wait_until 30 "another master than $node, which is drained" moved_on
    balanced node-3:20 web-2:10 web-3:10
    kubectl uncordon "$node" >/dev/null
    kubectl rollout status --namespace "$namespace" deployment/lvs-operator-controller --timeout=180s >/dev/null
}

# What the README has people type. A newcomer's kubectl and folder are those of this shell.
story_own_service_of_the_readme() {
    local folder="$state/readme" commands answers
    mkdir -p "$folder"
    awk '/^# own.yaml$/ { take = 1 } /^```$/ { take = 0 } take' "$root/README.md" >"$folder/own.yaml"
    commands="$(sed -n '/^## Try your own/,/^## Install/ s/^    //p' "$root/README.md" |
        sed "s|e2e/.run/demo|$state|; s|-f own.yaml|-f $folder/own.yaml|")"
    grep -q 'lab.sh host' <<<"$commands"
    (cd "$root" && eval "$commands") >"$folder/out"
    shown <"$folder/out"
    answers="$(grep -cxE 'web-[23]' "$folder/out")"
    [ "$answers" -eq 8 ] && [ "$(grep -cx web-2 "$folder/out")" -eq 4 ]
    kubectl delete -f "$folder/own.yaml" >/dev/null
}

stories() {
    local story
    # What the demo showed last was another weight.
    set_weight web-2 1
    wait_until 60 "balance 2:1:1" balanced node-3:20 web-2:10 web-3:10
    for story in own_service_of_the_readme kubectl_lvs plan_check_bundle stolen_token istio_beside_ours drain upgrade keep_traffic_and_reinstall; do
        step "story: ${story//_/ }"
        "story_$story"
    done
    takeovers
}
