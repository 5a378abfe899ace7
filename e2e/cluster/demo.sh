#!/usr/bin/env bash
# `make demo`: the whole product in a cluster of real nodes, from nothing.
#
#   demo.sh up      KEEP=1 leaves the cluster up and says how to look around
#   demo.sh test    the same, with the stories of stories.sh, plugin.sh, takeovers.sh and
#                   lifecycle.sh before the clean-up, and one after it
#   demo.sh down    ends a cluster that was kept
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
root="$(cd "$here/../.." && pwd)"
# shellcheck source=process.sh
. "$here/process.sh"
# shellcheck source=guest.sh
. "$here/guest.sh"
# shellcheck source=traffic.sh
. "$here/traffic.sh"
# shellcheck source=stories.sh
. "$here/stories.sh"
# shellcheck source=plugin.sh
. "$here/plugin.sh"
# shellcheck source=takeovers.sh
. "$here/takeovers.sh"
# shellcheck source=lifecycle.sh
. "$here/lifecycle.sh"

state="${DEMO_STATE:-$root/e2e/.run/demo}"
lab() { "$here/lab.sh" "$1" "$state" "${@:2}"; }
namespace=lvs-system
virtual_address=192.168.50.200

# Progress: elapsed seconds in front of every line, and the split at the end.
phase_name=""
phase_started=0
split=()
phase() {
    [ -z "$phase_name" ] || split+=("$(printf '%s %s s' "$phase_name" "$((SECONDS - phase_started))")")
    phase_name="$1"
    phase_started=$SECONDS
}
last_step=starting
step() {
    last_step="$*"
    printf '[%4d s] %s\n' "$SECONDS" "$*"
}
shown() { sed --unbuffered 's/^/         | /'; }

finished=""
at_exit() {
    local status=$?
    trap '' INT TERM HUP
    if [ -z "$finished" ]; then
        [ "$status" -ne 0 ] || status=1
        step "FAILED in ${phase_name:-start} (status $status), at: $last_step"
        if running "$state" apiserver; then diagnose >"$state/logs/diagnosis.txt" 2>&1 || true; fi
    fi
    if [ "${KEEP:-}" = 1 ] && running "$state" apiserver; then
        look_around
    else
        "$here/lab.sh" down "$state" || status=1
    fi
    if [ -z "$finished" ]; then
        step "logs: $state/logs (diagnosis*.txt first), $state/guests/*/share/*.log"
    fi
    exit "$status"
}

# diagnose: what one would look at, while it is still there.
diagnose() {
    kubectl get all,lvsvs,lvsrs,lvsvr,lvsnp,leases --all-namespaces -o wide
    kubectl get lvsvs,lvsrs,lvsvr,lvsnp,leases.coordination.k8s.io --all-namespaces -o yaml
    kubectl get events --all-namespaces --sort-by=.lastTimestamp
    kubectl describe pods --all-namespaces
    kubectl logs --namespace "$namespace" --selector app.kubernetes.io/name=lvs-operator --prefix --tail=300 --all-containers
    local node processes=()
    for node in node-1 node-2 node-3; do
        timeout 30 "$here/lab.sh" run "$state" "$node" "hostname; ipvsadm -Ln; ip -brief address; ip route; ip rule; nft list tables" \
            >"$state/logs/diagnosis-$node.txt" 2>&1 &
        processes+=($!)
    done
    wait "${processes[@]}"
}

look_around() {
    cat <<T

The cluster is still up. To look around:
  export KUBECONFIG=$state/kubeconfig PATH=\$PATH:$(dirname "$kubectl")
  kubectl get virtualservices,realservers,virtualrouters
a shell on a node (node-1, node-2, node-3; leave with Ctrl-]), or one command:
  e2e/cluster/lab.sh shell $state node-1
  e2e/cluster/lab.sh run $state node-1 'ipvsadm -Ln'
a command on the client or an outside real server (web-2, web-3):
  e2e/cluster/lab.sh host $state client 'curl -s http://$virtual_address/'
to end it:
  make demo-down
T
}

up() {
    local holder
    if running "$state" apiserver; then
        echo "demo: a cluster is up already; 'make demo-down' ends it" >&2
        exit 2
    fi
    kubectl=/usr/bin/false # until there is one
    trap at_exit EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    rm -rf "$state"
    mkdir -p "$state/logs"

    phase tools
    step "tools (usually 1 s; the first time about 18 min: they are built from source)"
    "$here/../setup/provision.sh" packages rust kubernetes helm kernel
    kubectl="$("$here/../setup/tool.sh" kubectl)"
    helm="$("$here/../setup/tool.sh" helm)"
    export KUBECONFIG="$state/kubeconfig"

    phase build
    step "the product's images (usually seconds; the first time about 5 min)"
    make --silent -C "$root" image 2>&1 | shown
    if [ "$1" = test ]; then
        (cd "$root" && cargo build --quiet --locked --package lvs-e2e --bin failover-probe &&
            cargo build --quiet --locked --package kubectl-lvs)
    fi

    phase images
    step "the images into a containerd's store, with which every node starts (usually 2 s)"
    lab images "$root/target/images/controller.tar" "$root/target/images/agent.tar"

    phase nodes
    step "control plane and three nodes with real kubelets (usually 25 s)"
    lab up 2>&1 | shown
    kubectl get nodes -o wide | shown

    phase helm
    step "helm install (usually 20 s)"
    snapshot_nodes "$state" before
    "$helm" install lvs-operator "$root/charts/lvs-operator" --namespace "$namespace" --create-namespace \
        --values "$root/examples/values.yaml" --wait --timeout 5m >"$state/logs/helm.log" 2>&1 ||
        { cat "$state/logs/helm.log" && false; }
    # helm --wait is content with one pod missing.
    kubectl rollout status --namespace "$namespace" --timeout=180s daemonset/lvs-operator-agent | shown
    kubectl rollout status --namespace "$namespace" --timeout=180s deployment/lvs-operator-controller | shown
    kubectl get pods --namespace "$namespace" -o wide | shown

    phase traffic
    step "a web server on node-3; the address on the outside web servers, by hand as without an agent"
    web_server_on_node node-3
    prepare_outside_server "$state" web-2 "$virtual_address"
    prepare_outside_server "$state" web-3 "$virtual_address"
    step "kubectl apply -f examples/virtualservice.yaml"
    kubectl apply -f "$root/examples/virtualservice.yaml" | shown
    kubectl wait --for=condition=Ready --timeout=120s virtualservices.lvs.dev/web | shown
    step "kubectl get virtualservices,realservers,virtualrouters"
    kubectl get virtualservices,realservers,virtualrouters | shown
    holder="$(master)"
    [ -n "$holder" ] || { step "VirtualRouter default names no master" && false; }
    step "ipvsadm -Ln on $holder, the master"
    lab run "$holder" 'ipvsadm -Ln' | shown
    step "100 connections from the client, weights 2:1:1"
    spread "$state" "$virtual_address" 100 >"$state/logs/spread-1.txt"
    shown <"$state/logs/spread-1.txt"
    expect_spread "$state/logs/spread-1.txt" node-3:50 web-2:25 web-3:25
    step "weight of web-2 to 2, live"
    kubectl patch realservers.lvs.dev web-2 --type=merge -p '{"spec": {"weight": 2}}' | shown
    wait_until 60 "the kernel of $holder to have the new weight" weight_is "$state" "$holder" 192.168.50.102 2
    spread "$state" "$virtual_address" 100 >"$state/logs/spread-2.txt"
    shown <"$state/logs/spread-2.txt"
    expect_spread "$state/logs/spread-2.txt" node-3:40 web-2:40 web-3:20
    if [ "${KEEP:-}" = 1 ]; then
        phase ""
        finished=yes
        step "done; nothing was deleted (KEEP=1). Split: $(printf '%s, ' "${split[@]}" | sed 's/, $//')"
        return
    fi

    if [ "$1" = test ]; then
        phase stories
        stories
    fi

    phase clean-up
    step "deleting everything"
    kubectl delete -f "$root/examples/virtualservice.yaml" | shown
    "$helm" uninstall lvs-operator --namespace "$namespace" --wait --timeout 5m 2>&1 | shown
    kubectl delete pod web --now | shown
    snapshot_nodes "$state" after
    step "the hosts, before and after"
    compare_snapshots "$state" before after | shown
    if [ "$1" = test ]; then
        phase "one node"
        step "story: one node"
        story_one_node
    fi
    lab down
    phase ""
    finished=yes
    step "done. Split: $(printf '%s, ' "${split[@]}" | sed 's/, $//')"
}

kubectl() { "$kubectl" "$@"; }
case "${1:-}" in
up | test) up "$1" ;;
down)
    "$here/lab.sh" down "$state"
    echo "demo: ended"
    ;;
*)
    echo "usage: demo.sh up|test|down" >&2
    exit 2
    ;;
esac
