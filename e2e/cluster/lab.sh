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
#   lab.sh run STATE GUEST SCRIPT   a bash script in a guest (node-1 … segment);
#                                   output and status come back
#   lab.sh host STATE HOST SCRIPT   the same in a host of the segment (client,
#                                   web-2, web-3)
#   lab.sh shell STATE GUEST        an interactive root shell; leave with Ctrl-]
#   lab.sh power-off STATE GUEST    the plug pulled
#   lab.sh power-on STATE GUEST
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
# shellcheck source=process.sh
. "$here/process.sh"
# shellcheck source=qemu.sh
. "$here/qemu.sh"
tool="$here/../setup/tool.sh"
export PATH="$PATH:/usr/sbin:/sbin"

NODE_INDEXES="1 2 3"
SEGMENT_IPV4=192.168.50
SEGMENT_IPV6=fd00:50
SEGMENT_WEB_SERVERS="web-2:102 web-3:103"
POD_NETWORK=10.244

say() { printf 'lab: %s\n' "$*" >&2; } # instead of the setup's own

# link_of STATE SIDE INDEX: QEMU's arguments for one end of the cable between
# node INDEX and the segment's switch.
link_of() {
    local sockets other=segment
    sockets="$(cat "$1/sockets")"
    [ "$2" = segment ] && other=node
    printf -- '-netdev dgram,id=link%s,local.type=unix,local.path=%s/%s-%s,remote.type=unix,remote.path=%s/%s-%s -device virtio-net-pci,netdev=link%s,mac=52:54:00:00:%s:0%s' \
        "$3" "$sockets" "$2" "$3" "$sockets" "$other" "$3" "$3" "$([ "$2" = node ] && echo 01 || echo 02)" "$3"
}

boot_segment() {
    local state="$1" index links=()
    mkdir -p "$state/guests/segment/share"
    cat >"$state/guests/segment/share/guest.env" <<G
GUEST_NAME=segment
SEGMENT_IPV4=$SEGMENT_IPV4
SEGMENT_IPV6=$SEGMENT_IPV6
SEGMENT_WEB_SERVERS="$SEGMENT_WEB_SERVERS"
G
    for index in $NODE_INDEXES; do
        rm -f "$(cat "$state/sockets")/segment-$index"
        # shellcheck disable=SC2207  # words on purpose
        links+=($(link_of "$state" segment "$index"))
    done
    boot_guest "$state" segment "$here/segment-init.sh" 384 1 "${links[@]}"
}

boot_node() {
    local state="$1" index="$2" name="node-$2" share loopback links
    share="$state/guests/$name/share"
    loopback="$(cat "$state/loopback").$index"
    rm -f "$share"/*.log "$(cat "$state/sockets")/node-$index"
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
    read -r -a links <<<"$(link_of "$state" node "$index")"
    GUEST_FORWARDS="$loopback:10250-:10250" \
        boot_guest "$state" "$name" "$here/node-init.sh" 1024 1 "${links[@]}"
}

# prepare_node STATE INDEX: its credentials, the cluster's CA, images.
prepare_node() {
    local state="$1" index="$2" name="node-$2" share="$1/guests/node-$2/share"
    mkdir -p "$share/images"
    # shellcheck source=/dev/null
    . "$state/control-plane.env"
    "$here/control-plane.sh" credentials "$state" "system:node:$name" system:nodes "$GUEST_API_URL" "$share/kubelet.kubeconfig"
    "$here/control-plane.sh" credentials "$state" system:kube-proxy system:node-proxier "$GUEST_API_URL" "$share/kube-proxy.kubeconfig"
    "$here/control-plane.sh" name "$state" "$name" "$(cat "$state/loopback").$index"
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
    # Unix socket paths are short; they live in a directory of their own.
    mktemp -d "${TMPDIR:-/tmp}/lvs-lab.XXXXXX" >"$state/sockets"
    printf '127.%s.%s\n' $((RANDOM % 200 + 20)) $((RANDOM % 250)) >"$state/loopback"
    LVS_QEMU_ACCELERATOR="$(accelerator)"
    export LVS_QEMU_ACCELERATOR KUBECONFIG="$state/kubeconfig"
    say "starting the control plane and 4 guests with QEMU $LVS_QEMU_ACCELERATOR"
    [ -d "$state/image-store" ] || images "$state"
    "$here/control-plane.sh" up "$state"
    boot_segment "$state"
    for index in $NODE_INDEXES; do
        prepare_node "$state" "$index"
        boot_node "$state" "$index"
    done
    say "control plane up after $SECONDS s; waiting for the guests"
    await_guest "$state" segment 120
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

down() {
    local state="$1"
    finish_all "$state"
    if [ -f "$state/sockets" ]; then
        rm -rf "$(cat "$state/sockets")"
        rm -f "$state/sockets"
    fi
}

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
run) run_in_guest "$state" "$@" ;;
host)
    name="$1"
    shift
    # shellcheck disable=SC2016  # expanded in the guest
    run_in_guest "$state" segment 'exec ip netns exec "$1" bash -c "$2"' "$name" "$*"
    ;;
shell)
    # A relative path: those of unix sockets are short.
    cd "$state/guests/$1"
    exec socat "-,raw,echo=0,escape=0x1d" UNIX-CONNECT:console
    ;;
power-off) finish "$state" "$1" KILL ;;
power-on)
    case "$1" in
    segment) boot_segment "$state" ;;
    *) boot_node "$state" "${1#node-}" ;;
    esac
    await_guest "$state" "$1" 180
    ;;
*)
    say "no command $command"
    exit 2
    ;;
esac
