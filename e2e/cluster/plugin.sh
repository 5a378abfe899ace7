# Sourced by demo.sh: `kubectl lvs` against the cluster, compared with ipvsadm on
# its nodes. Needs: state, root, namespace, virtual_address, kubectl, lab, step,
# shown, master, balanced, wait_until.
# shellcheck shell=bash disable=SC2154,SC2317

# As a user calls it: kubectl finds the plugin on PATH, the plugin finds kubectl.
lvs() {
    PATH="${CARGO_TARGET_DIR:-$root/target}/debug:$PATH" KUBECTL="$kubectl" "$kubectl" lvs "$@"
}

# Services and real servers of a node in one form, by the plugin and by ipvsadm.
rules_of_plugin() {
    lvs services --node "$1" --output json | jq -r '
        {DR: "Route", NAT: "Masq", TUN: "Tunnel", Local: "Local"} as $words
        | .nodes[].services[]
        | "\(.protocol) \(.address):\(.port) \(.scheduler)",
          (. as $service | .destinations[]
            | "\($service.address):\($service.port) -> \(.address):\(.port) \($words[.forwarding]) \(.weight)")' | sort
}
rules_of_ipvsadm() {
    lab run "$1" 'ipvsadm -Ln' | awk '
        /^(TCP|UDP|SCTP) / { service = $2; print $1, $2, $3 }
        $1 == "->" && $2 != "RemoteAddress:Port" { print service, $1, $2, $3, $4 }' | sort
}
counters_of_plugin() {
    lvs stats --node "$1" --output json | jq -r '
        def numbers: "\(.connections) \(.incomingPackets) \(.outgoingPackets) \(.incomingBytes) \(.outgoingBytes)";
        .nodes[].services[]
        | "\(.address):\(.port) \(.counters | numbers)",
          (.destinations[] | "-> \(.address):\(.port) \(.counters | numbers)")' | sort
}
counters_of_ipvsadm() {
    lab run "$1" 'ipvsadm -Ln --stats --exact' | awk '
        /^(TCP|UDP|SCTP) / { print $2, $3, $4, $5, $6, $7 }
        $1 == "->" && $2 != "RemoteAddress:Port" { print $1, $2, $3, $4, $5, $6, $7 }' | sort
}
# counted NODE: nothing was added in longer than the 2 s after which the kernel sums
# what its processors have counted (net/netfilter/ipvs/ip_vs_est.c).
counted() {
    local before
    before="$(counters_of_ipvsadm "$1")" && sleep 2.5 && [ "$(counters_of_ipvsadm "$1")" = "$before" ]
}
connections_of_plugin() {
    lvs connections default/web --node "$1" --output json | jq -r '
        .nodes[].connections[]
        | "\(.protocol) \(.clientAddress):\(.clientPort) \(.virtualAddress):\(.virtualPort) \(.realServerAddress):\(.realServerPort)"' | sort
}
connections_of_ipvsadm() {
    lab run "$1" 'ipvsadm -Lnc' | awk -v address="$virtual_address:80" '$5 == address { print $1, $4, $5, $6 }' | sort
}

# same WHAT NODE: the plugin and ipvsadm say the same of a node's rules, counters or connections.
same() {
    "$1_of_plugin" "$2" >"$state/plugin-$1.txt" && "$1_of_ipvsadm" "$2" >"$state/ipvsadm-$1.txt" &&
        diff "$state/plugin-$1.txt" "$state/ipvsadm-$1.txt"
}

# says TEXT COMMAND…: the command succeeds, and its answer has the text.
says() {
    local text="$1" answer
    shift
    answer="$("$@")" || return 1
    grep -qF -- "$text" <<<"$answer" || { printf 'expected "%s" of: %s\n%s\n' "$text" "$*" "$answer" >&2 && return 1; }
}

# ends CODE TEXT COMMAND…: the command ends with this code, and says the text.
ends() {
    local expected="$1" text="$2" answer code=0
    shift 2
    answer="$("$@" 2>&1)" || code=$?
    if [ "$code" != "$expected" ] || ! grep -qF -- "$text" <<<"$answer"; then
        printf 'expected code %s and "%s" of: %s\ngot code %s:\n%s\n' "$expected" "$text" "$*" "$code" "$answer" >&2
        return 1
    fi
}

story_kubectl_lvs() {
    local holder node other
    holder="$(master)"
    lvs get | shown
    says "default         $holder" lvs get
    # A standby that is a real server itself has none.
    for node in node-1 node-2 node-3; do same rules "$node"; done
    same rules "$holder"
    [ -s "$state/ipvsadm-rules.txt" ]
    lvs services --node "$holder" | shown
    says "$holder (master of default)" lvs services

    # Counters: zero, then 40 connections.
    wait_until 30 "all that passed so far is counted" counted "$holder"
    lvs zero default/web | shown
    says "0 0 0 0 0" counters_of_plugin "$holder"
    balanced node-3:20 web-2:10 web-3:10
    wait_until 30 "40 connections counted" says "$virtual_address:80 40 " counters_of_plugin "$holder"
    wait_until 30 "counters as ipvsadm's" same counters "$holder"
    lvs stats default/web --node "$holder" | shown
    lvs rates default/web --node "$holder" | shown
    wait_until 30 "connections as ipvsadm's" same connections "$holder"
    [ "$(wc -l <"$state/plugin-connections.txt")" -ge 40 ]
    lvs connections default/web --node "$holder" --limit 3 | shown
    says "the first 3 connections, there are more" lvs connections default/web --node "$holder" --limit 3

    lvs timeouts | shown
    says "Timeout (tcp tcpfin udp): $(lvs timeouts --node "$holder" -o json |
        jq -r '.nodes[].timeouts | "\(.tcpSeconds) \(.tcpFinSeconds) \(.udpSeconds)"')" lab run "$holder" 'ipvsadm -L --timeout'
    lvs daemon | shown
    says "no sync daemons" lvs daemon

    lvs explain virtualservice/web | shown
    [ "$(lvs explain vs/web | grep -c 'holds what it should')" = 3 ]
    # Somebody else's hand in a kernel: seen before the agent has put it back, or not at all.
    lab run "$holder" 'ipvsadm -A -t 192.0.2.99:99 -s rr'
    says "(foreign)" lvs services --node "$holder"
    # What is zeroed is ours, unless all of it is asked for.
    [ "$(lvs zero --node "$holder" -o json | jq -r '.nodes[].zeroed | length')" = 1 ]
    says "all counters set to zero" lvs zero --all --node "$holder"
    lab run "$holder" 'ipvsadm -D -t 192.0.2.99:99'

    # Who may read, and who may ask kernels.
    kubectl apply -f "$root/examples/viewers.yaml" >/dev/null
    local viewer=(--as viewer --as-group lvs-viewers) operator=(--as operator --as-group lvs-operators)
    ends 0 "$virtual_address" lvs get "${viewer[@]}"
    ends 1 "pods/exec" lvs services "${viewer[@]}"
    ends 2 "nobody looked" lvs explain web --namespace default "${viewer[@]}"
    ends 0 "default/web" lvs services "${operator[@]}"

    # Planned work, as that operator.
    lvs hand-over default "${operator[@]}" 2>&1 | shown
    other="$(master)"
    [ -n "$other" ] && [ "$other" != "$holder" ]
    lvs hand-over default --to "$holder" "${operator[@]}" 2>&1 | shown
    [ "$(master)" = "$holder" ]
    # The same word again, after the addresses have been elsewhere.
    lvs hand-over default --to "$other" "${operator[@]}"
    lvs hand-over default --to "$holder" "${operator[@]}"
    [ "$(master)" = "$holder" ]
    # Connections of a moment ago, which TCP keeps for two minutes.
    balanced node-3:20 web-2:10 web-3:10
    ends 1 "web-2 gets no new connections" lvs drain default/web-2 --timeout 5 "${operator[@]}"
    balanced node-3:27 web-3:13
    ends 0 "web-2 is Up" lvs drain default/web-2 --undo "${operator[@]}"
    wait_until 60 "balance after the drain" balanced node-3:20 web-2:10 web-3:10
    kubectl delete -f "$root/examples/viewers.yaml" >/dev/null
    kubectl annotate virtualrouters.lvs.dev default lvs.dev/hand-over-to- >/dev/null
}

# What would change, what is wrong, and an archive of it all, with agents that answer.
story_plan_check_bundle() {
    local weights="$state/weights.yaml" archive="$state/bundle.tar.gz" listed node
    # What is there already changes nothing; another weight is an edit on the holder.
    lvs plan --filename "$root/examples/virtualservice.yaml" | shown
    kubectl get realservers.lvs.dev web-2 --output yaml | sed 's/^  weight: .*/  weight: 7/' >"$weights"
    ends 2 "-r 192.168.50.102:80 -g -w 7" lvs plan --filename "$weights"
    [ "$(kubectl get realservers.lvs.dev web-2 --output 'jsonpath={.spec.weight}')" = 1 ]
    # Nothing here keeps the operator from working, and every agent says what its node has.
    lvs check --all | shown
    [ "$(lvs check --all --output json | jq '[.. | strings | select(contains("could not be asked"))] | length')" = 0 ]
    # An archive has what agents say, and no Secret.
    lvs bundle --archive "$archive" 2>&1 | shown
    listed="$(tar -tzf "$archive")"
    for node in node-1 node-2 node-3; do
        grep -q "nodes/$node/facts.json" <<<"$listed"
        grep -q "nodes/$node/services.json" <<<"$listed"
    done
    ! grep -qi secret <<<"$listed"
    ! tar -xzOf "$archive" | grep -q "$(kubectl get secret --namespace "$namespace" lvs-operator-heartbeat-key -o jsonpath='{.data.key}')"
}
