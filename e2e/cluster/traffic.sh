# Sourced: traffic and comparisons in a tier 1 cluster. Needs `kubectl` as a
# function or command with KUBECONFIG set.
# shellcheck shell=bash

TRAFFIC_HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"

# web_server_on_node NODE: a pod in the host's network that answers with the
# node's name on port 80.
web_server_on_node() {
    kubectl apply -f - >/dev/null <<Y
apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  nodeName: $1
  hostNetwork: true
  containers:
  - name: httpd
    image: $("$TRAFFIC_HERE/images.sh" name)
    imagePullPolicy: Never
    command: [/bin/sh, -c]
    args: ["mkdir -p /www && echo \$NODE_NAME >/www/index.html && exec httpd -f -p 80 -h /www"]
    env: [{name: NODE_NAME, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}]
    readinessProbe: {httpGet: {path: /, port: 80}, periodSeconds: 2, timeoutSeconds: 5}
Y
    kubectl wait --for=condition=Ready --timeout=120s pod/web >/dev/null
}

# prepare_outside_server STATE HOST ADDRESS: what one does by hand on a real
# server of direct routing that has no agent.
prepare_outside_server() {
    # shellcheck disable=SC2016  # expanded in the guest
    "$TRAFFIC_HERE/lab.sh" host "$1" "$2" "sysctl -qw net.ipv4.conf.eth0.arp_ignore=1 net.ipv4.conf.eth0.arp_announce=2
        ip address add $3/32 dev lo"
}

# spread STATE ADDRESS COUNT: COUNT requests from the client, each on its own
# connection; prints "<answers> <server>", most first. Fails when a request does.
spread() {
    local answers
    answers="$("$TRAFFIC_HERE/lab.sh" host "$1" client \
        "curl --silent --show-error --fail --max-time 20 --header 'Connection: close' 'http://$2/?[1-$3]'")" || return 1
    sort <<<"$answers" | uniq -c | sort -rn
}

# expect_spread FILE SERVER:COUNT…: each within 2 of what the weights say (a
# changed weight may fall into the middle of a round), and nobody else.
expect_spread() {
    local file="$1" entry server expected got wrong=""
    shift
    for entry in "$@"; do
        server="${entry%:*}"
        expected="${entry#*:}"
        got="$(awk -v server="$server" '$2 == server { print $1 }' "$file")"
        got="${got:-0}"
        if [ $((got - expected)) -gt 2 ] || [ $((expected - got)) -gt 2 ]; then
            wrong+=" $server answered $got times, expected $expected;"
        fi
    done
    [ "$(wc -l <"$file")" -eq $# ] || wrong+=" $(wc -l <"$file") servers answered, expected $#;"
    [ -z "$wrong" ] || { printf 'wrong spread:%s\n' "$wrong" >&2 && return 1; }
}

# weight_is STATE NODE REAL_SERVER WEIGHT: in that node's kernel.
weight_is() {
    "$TRAFFIC_HERE/lab.sh" run "$1" "$2" "ipvsadm -Ln" |
        awk -v server="$3:80" -v weight="$4" '$2 == server && $4 == weight { found = 1 } END { exit !found }'
}

nodes_or_all() { printf '%s\n' "${@:-node-1 node-2 node-3}"; }

# snapshot_nodes STATE NAME [NODE…]: STATE/snapshots/NAME/<node>; of all nodes unless some are named.
snapshot_nodes() {
    local node processes=()
    mkdir -p "$1/snapshots/$2"
    for node in $(nodes_or_all "${@:3}"); do
        "$TRAFFIC_HERE/lab.sh" run "$1" "$node" "bash $TRAFFIC_HERE/host-snapshot.sh" >"$1/snapshots/$2/$node" &
        processes+=($!)
    done
    for process in "${processes[@]}"; do wait "$process"; done
}

# compare_snapshots STATE BEFORE AFTER [NODE…]: one line per node; fails with the
# difference when there is one.
compare_snapshots() {
    local node file status=0
    for node in $(nodes_or_all "${@:4}"); do
        file="$1/snapshots/$2/$node"
        [ "$(wc -l <"$file")" -gt 100 ] || { echo "$node: the snapshot is not complete: $file" && return 1; }
        if diff --unified=0 "$file" "$1/snapshots/$3/$node" >"$1/snapshots/$node.diff"; then
            printf '%s: links, addresses, routes, rules, nftables, IPVS and %s sysctls as before\n' "$node" "$(grep -c ' = ' "$file")"
        else
            printf '%s: DIFFERS from before:\n' "$node"
            grep '^[-+]' "$1/snapshots/$node.diff" | grep -vE '^(---|\+\+\+) /'
            status=1
        fi
    done
    return "$status"
}
