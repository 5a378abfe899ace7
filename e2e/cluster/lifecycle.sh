# Sourced by demo.sh test: the operator leaves and comes back; a cluster of one
# node. Needs what stories.sh and takeovers.sh need.
# shellcheck shell=bash disable=SC2154,SC2317

# Connections that are kept open, beside those that are new all the time: enough for each real server to have some.
PATIENT_CLIENTS=8

install_chart() {
    "$helm" install lvs-operator "$root/charts/lvs-operator" --namespace "$namespace" --create-namespace \
        --values "$root/examples/values.yaml" --wait --timeout 5m >"$state/logs/helm-again.log" 2>&1 ||
        { cat "$state/logs/helm-again.log" >&2 && return 1; }
    # helm --wait is content with one pod missing.
    kubectl rollout status --namespace "$namespace" --timeout=180s daemonset/lvs-operator-agent >/dev/null
    kubectl rollout status --namespace "$namespace" --timeout=180s deployment/lvs-operator-controller >/dev/null
}

# begin_patience: clients that ask once a second, each on the connection it has, until end_patience. Of each answer there is a
# line: status, connections that were made for it, the server's program.
begin_patience() {
    rm -f "$state"/logs/patient-*.txt
    # shellcheck disable=SC2016  # expanded by the inner shell
    launch_on_wire "$state" patience ip netns exec client bash -c '
        for ((client = 1; client <= $3; client++)); do
            stdbuf --output=L curl --silent --rate 60/m --output /dev/null --write-out "%{http_code} %{num_connects} %header{server}\n" \
                "http://$1/?[1-100000]" >"$2/patient-$client.txt" &
        done
        wait' patience "$virtual_address" "$state/logs" "$PATIENT_CLIENTS"
    wait_until 60 "clients of the web servers that keep connections" kept_connections 2
}

# kept_connections LEAST: some clients were answered so often by a server that keeps connections (the one of node-3 does not),
# all on their first one.
kept_connections() {
    awk -v least="$1" '
        FNR == 1 { counted = $3 ~ /^lighttpd/; clients += counted }
        counted { answers[FILENAME]++; if ($1 != 200 || $2 != (FNR == 1)) { printf "%s: %s\n", FILENAME, $0; lost++ } }
        END {
            for (file in answers) if (answers[file] < least) few++
            printf "%d clients kept their connection, %d did not, %d had too few answers\n", clients - lost, lost, few
            exit !(clients >= 2 && !lost && !few)
        }' "$state"/logs/patient-*.txt
}

end_patience() {
    finish "$state" patience
    kept_connections "$1"
}

# scheduled NODE: connections that its kernel has counted for the service; fewer than before mean that it was made anew.
scheduled() {
    lab run "$1" "ipvsadm -Ln --stats --exact" |
        awk -v service="$virtual_address:80" '$1 == "TCP" && $2 == service { print $3; found = 1 } END { exit !found }'
}
lifetime() { lab run "$1" "ip -o address show dev eth1 to $virtual_address" | grep -o 'valid_lft [^ ]*'; }
no_agents() { ! lab run "$1" "pgrep -x lvs-agent"; }
refreshed() { lifetime "$1" | grep -qE '^valid_lft [0-9]+sec$'; }

# uninstallPolicy KeepTraffic: the operator goes, traffic does not; the operator that comes back takes over what is there.
story_keep_traffic_and_reinstall() {
    local holder before after struck outage node
    holder="$(master)"
    begin_patience
    begin_traffic
    struck="$(microseconds "$EPOCHREALTIME")"
    "$helm" upgrade lvs-operator "$root/charts/lvs-operator" --namespace "$namespace" --reuse-values \
        --set uninstallPolicy=KeepTraffic --wait --timeout 5m >/dev/null
    [ "$(master)" = "$holder" ]
    "$helm" uninstall lvs-operator --namespace "$namespace" --wait --timeout 5m >/dev/null
    for node in $NODES; do wait_until 60 "the agent of $node to have ended" no_agents "$node"; done
    [ "$(lifetime "$holder")" = "valid_lft forever" ]
    # Long enough for an address that somebody should have refreshed to be gone.
    sleep "$FENCE_SECONDS"
    # shellcheck disable=SC2086  # a list
    [ "$(carriers $NODES)" = "$holder" ]
    balanced node-3:20 web-2:10 web-3:10
    kubectl get virtualservices.lvs.dev/web >/dev/null
    before="$(scheduled "$holder")"

    install_chart
    service_ready
    wait_until 60 "$holder to refresh the address again" refreshed "$holder"
    # shellcheck disable=SC2086  # a list
    [ "$(carriers $NODES)" = "$holder" ]
    [ "$(master)" = "$holder" ]
    after="$(scheduled "$holder")"
    [ "$after" -gt "$before" ] ||
        { printf 'the kernel of %s counted %s connections, and %s before: the service was made anew\n' "$holder" "$after" "$before" >&2 && return 1; }
    outage="$(end_traffic "$struck")"
    echo "keep traffic and reinstall: longest time without an answer $outage s" | shown
    at_most "outage" "$outage" "$UPGRADE_OUTAGE_SECONDS"
    end_patience 20 | shown
    wait_until 60 "balance after the reinstallation" balanced node-3:20 web-2:10 web-3:10
}

# After the clean-up: two nodes are gone for good. The chart's own values, two controllers among them, do for the one that is
# left, which is a real server, too.
story_one_node() {
    local node controllers
    for node in node-2 node-3; do
        lab power-off "$node"
        kubectl delete node "$node" >/dev/null
    done
    snapshot_nodes "$state" before-alone node-1
    install_chart
    controllers="$(kubectl get pods --namespace "$namespace" --selector app.kubernetes.io/component=controller \
        -o jsonpath='{range .items[*]}{.spec.nodeName}{"\n"}{end}')"
    [ "$controllers" = $'node-1\nnode-1' ]
    web_server_on_node node-1
    sed 's/node: {name: node-3}/node: {name: node-1}/' "$root/examples/virtualservice.yaml" | kubectl apply -f - >/dev/null
    service_ready
    [ "$(master)" = node-1 ]
    wait_until 60 "balance on one node" balanced node-1:20 web-2:10 web-3:10
    kubectl delete -f "$root/examples/virtualservice.yaml" >/dev/null
    "$helm" uninstall lvs-operator --namespace "$namespace" --wait --timeout 5m >/dev/null
    kubectl delete pod web --now >/dev/null
    snapshot_nodes "$state" after-alone node-1
    compare_snapshots "$state" before-alone after-alone node-1 | shown
}
