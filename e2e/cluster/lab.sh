#!/usr/bin/env bash
# Tier 1: a Kubernetes cluster of three real nodes on one segment with a client
# and outside web servers. Everything of one lab is in one directory, STATE.
#
#   lab.sh images STATE ARCHIVE…    images that every node has when it starts;
#                                   before up
#   lab.sh up STATE                 control plane, segment, node-1 node-2 node-3,
#                                   until all are Ready
#   lab.sh down STATE               ends exactly what was started
#   lab.sh import STATE ARCHIVE…    image archives into every node's containerd
#   lab.sh run STATE GUEST SCRIPT   a bash script in a guest (node-1 …), or on
#                                   the switch (segment); output and status come back
#   lab.sh host STATE HOST SCRIPT   the same in a host of the segment (client,
#                                   web-2, web-3)
#   lab.sh shell STATE GUEST        an interactive root shell; leave with Ctrl-]
#   lab.sh power-off STATE GUEST    the plug pulled
#   lab.sh power-on STATE GUEST
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
# shellcheck source=process.sh
. "$here/process.sh"
# shellcheck source=guest.sh
. "$here/guest.sh"
# shellcheck source=segment.sh
. "$here/segment.sh"
tool="$here/../setup/tool.sh"
export PATH="$PATH:/usr/sbin:/sbin"

NODE_INDEXES="1 2 3"
POD_NETWORK=10.244

say() { printf 'lab: %s\n' "$*" >&2; } # instead of the setup's own

boot_node() {
    local state="$1" index="$2" name="node-$2" share
    share="$state/guests/$name/share"
    rm -f "$share"/*.log
    cat >"$share/guest.env" <<G
GUEST_NAME=$name
NODE_INDEX=$index
NODE_INDEXES="$NODE_INDEXES"
NODE_OCTET=$((10 + index))
SEGMENT_IPV4=$SEGMENT_IPV4
SEGMENT_IPV6=$SEGMENT_IPV6
POD_NETWORK=$POD_NETWORK
PAUSE_IMAGE=$("$here/images.sh" name)
IMAGE_STORE=$state/image-store
KUBELET=$("$tool" kubelet)
KUBE_PROXY=$("$tool" kube-proxy)
G
    boot_guest "$state" "$name" "$here/node-init.sh" 1024 "$index" "eth$index"
}

# prepare_node STATE INDEX: its credentials, the cluster's CA, the way to its kubelet.
prepare_node() {
    local state="$1" index="$2" name="node-$2" share="$1/guests/node-$2/share" loopback
    loopback="$(cat "$state/loopback").$index"
    mkdir -p "$share/images"
    # shellcheck source=/dev/null
    . "$state/control-plane.env"
    "$here/control-plane.sh" credentials "$state" "system:node:$name" system:nodes "$GUEST_API_URL" "$share/kubelet.kubeconfig"
    "$here/control-plane.sh" credentials "$state" system:kube-proxy system:node-proxier "$GUEST_API_URL" "$share/kube-proxy.kubeconfig"
    "$here/control-plane.sh" name "$state" "$name" "$loopback"
    carry_out "$state" "kubelet-$index" "$loopback:10250" "$(guest_address "$index"):10250"
    cp "$state/pki/ca.crt" "$share/ca.crt"
}

# images STATE ARCHIVE…: what the nodes start with, beside the lab's own image.
images() {
    mkdir -p "$1"
    "$here/image-store.sh" "$1/image-store" "$("$here/images.sh" lab)" "${@:2}"
}

# Ready for Kubernetes, and with what kube-proxy does to a host done.
nodes_ready() {
    [ "$(grep -ls ' ready$' "$1"/guests/node-*/share/marks | wc -l)" -eq 3 ] && [ "$(kubectl get nodes -o jsonpath='{range .items[*]}{.status.conditions[?(@.type=="Ready")].status}{"\n"}{end}' | grep -c True)" -eq 3 ]
}

up() {
    local state="$1" index
    mkdir -p "$state"
    chmod 700 "$state"
    state="$(cd "$state" && pwd)"
    printf '127.%s.%s\n' $((RANDOM % 200 + 20)) $((RANDOM % 250)) >"$state/loopback"
    export KUBECONFIG="$state/kubeconfig"
    say "starting the control plane and 3 nodes"
    [ -d "$state/image-store" ] || images "$state"
    "$here/control-plane.sh" up "$state"
    open_wire "$state"
    # shellcheck source=/dev/null
    carry_in "$state" "$(. "$state/control-plane.env" && echo "$API_PORT")"
    # shellcheck disable=SC2046,SC2086  # lists
    make_segment "$state" $(printf 'eth%s ' $NODE_INDEXES)
    for index in $NODE_INDEXES; do
        prepare_node "$state" "$index"
        boot_node "$state" "$index"
    done
    say "control plane up after $SECONDS s; waiting for the guests"
    for index in $NODE_INDEXES; do await_guest "$state" "node-$index" 180; done
    say "guests up after $SECONDS s; waiting for the nodes to be Ready"
    wait_until 400 "nodes Ready (logs: $state/guests/node-*/share/*.log)" nodes_ready "$state"
    say "nodes Ready after $SECONDS s"
}

# import STATE ARCHIVE…: on all nodes at once.
import() {
    local state="$1" index archive names=() processes=()
    shift
    for archive in "$@"; do names+=("/share/images/$(basename "$archive")"); done
    for index in $NODE_INDEXES; do
        cp "$@" "$state/guests/node-$index/share/images/"
        # shellcheck disable=SC2016  # expanded in the guest
        run_in_guest "$state" "node-$index" \
            'for archive in "$@"; do ctr --namespace k8s.io images import "$archive" >/dev/null || exit; done' "${names[@]}" &
        processes+=($!)
    done
    for process in "${processes[@]}"; do wait "$process"; done
}

down() { finish_all "$1"; }

command="${1:-}"
state="${2:-}"
if [ -z "$command" ] || [ -z "$state" ]; then
    sed -n '2,/^set -e/{/^set -e/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}" >&2
    exit 2
fi
shift 2
kubectl() { "$kubectl" "$@"; }
kubectl="$("$tool" kubectl)"
case "$command" in
images) images "$state" "$@" ;;
up) up "$state" ;;
down) down "$state" ;;
import) import "$state" "$@" ;;
run)
    case "$1" in
    segment) on_wire "$state" bash -c "$2" ;;
    *) run_in_guest "$state" "$@" ;;
    esac
    ;;
host)
    name="$1"
    shift
    on_wire "$state" ip netns exec "$name" bash -c "$*"
    ;;
shell)
    # A relative path: those of unix sockets are short.
    cd "$state/guests/$1"
    exec socat "-,raw,echo=0,escape=0x1d" UNIX-CONNECT:shell
    ;;
power-off) finish "$state" "$1" KILL ;;
power-on)
    boot_node "$state" "${1#node-}"
    await_guest "$state" "$1" 180
    ;;
*)
    say "no command $command"
    exit 2
    ;;
esac
