# Sourced by demo.sh test: leadership on nodes that each have a kernel of their
# own. What clients see is measured by failover-probe on the segment, outside of
# every guest; what a kernel holds says that kernel. Needs what stories.sh needs,
# and process.sh, guest.sh, traffic.sh.
# shellcheck shell=bash disable=SC2154,SC2317

NODES="node-1 node-2 node-3"
LEASE=lvs-router-default
# Of the wire, which is a network namespace of its own.
PROBE_PORT=7100
PROBE_RHYTHM_MILLISECONDS=20
# Longest outage by docs/leadership.md, while writes to the API server are slow: the
# guests share processors. By the Lease's expiry alone it would be 11 s.
OUTAGE_SECONDS=7
# Lifetime of an address in the kernel, and how long after its last refresh it is
# gone at the latest (V and F of docs/leadership.md).
LIFETIME_SECONDS=2
FENCE_SECONDS=3.25
# `ip monitor` stamps a message when it reads it.
STAMP_ERROR_SECONDS=0.25
FROZEN_SECONDS=20
# A frozen node gives up within this time of going on: one heartbeat interval is
# the bound; every process of the guest wakes at once, on a shared processor.
RESUMED_SECONDS=0.5

others() { tr ' ' '\n' <<<"$NODES" | grep -vxF "$1"; }
microseconds() { tr -d . <<<"$1"; }
# seconds MICROSECONDS
seconds() { jq -rn --argjson microseconds "$1" '$microseconds / 1e4 | round / 100'; }
# at_most WHAT SECONDS LIMIT
at_most() {
    jq -en --argjson is "$2" --argjson limit "$3" '$is <= $limit' >/dev/null && return 0
    printf '%s: %s s, more than %s s\n' "$@" >&2
    return 1
}

# carriers NODE…: those whose kernel has the address.
carriers() {
    local node shown
    for node in "$@"; do
        shown="$(GUEST_ANSWER_SECONDS=20 lab run "$node" "ip -o address show dev eth1 to $virtual_address")" || return 1
        [ -z "$shown" ] || printf '%s\n' "$node"
    done
}
# await_carrier SECONDS NODE…: until exactly one of them has it; its name is in $carrier.
carrier=""
one_carries() { carrier="$(carriers "$@")" && [ "$(wc -w <<<"$carrier")" -eq 1 ]; }
await_carrier() { wait_until "$1" "one of ${*:2} to carry $virtual_address" one_carries "${@:2}"; }

# begin_traffic: new connections from the client until end_traffic.
traffic_orders=""
begin_traffic() {
    local orders="$state/run/traffic.orders" log="$state/logs/traffic.log"
    if ! running "$state" probe; then
        launch_on_wire "$state" probe "$root/target/debug/failover-probe" "127.0.0.1:$PROBE_PORT"
        wait_until 10 "failover-probe to listen" on_wire "$state" bash -c ": </dev/tcp/127.0.0.1/$PROBE_PORT"
    fi
    rm -f "$orders" "$log"
    mkfifo "$orders"
    exec {traffic_orders}<>"$orders"
    # shellcheck disable=SC2016  # expanded by the inner shell
    launch_on_wire "$state" traffic bash -c 'exec socat -t 0.1 - "TCP:127.0.0.1:$1" <"$2"' traffic "$PROBE_PORT" "$orders"
    jq -cn --arg address "$virtual_address" --argjson rhythm "$PROBE_RHYTHM_MILLISECONDS" '{client: "client",
        web: "\($address):80", echo: "\($address):7", rhythm_milliseconds: $rhythm, held: 0, held_before_milliseconds: 0,
        address: $address, carriers: [], writer: null}' >&"$traffic_orders"
    wait_until 60 "undisturbed traffic (log: $log)" grep -qE '"kind":"(steady|failed)"' "$log"
    if grep -F '"kind":"failed"' "$log" >&2; then return 1; fi
}

# end_traffic SINCE: prints the longest outage in seconds that lasted beyond that time.
end_traffic() {
    local log="$state/logs/traffic.log"
    echo end >&"$traffic_orders"
    wait_until 20 "the end of the measurement (log: $log)" grep -q '"kind":"summary"' "$log"
    exec {traffic_orders}>&-
    finish "$state" traffic
    jq -rs --argjson since "$1" --argjson rhythm "$PROBE_RHYTHM_MILLISECONDS" '
        if any(.kind == "failed") then error("failover-probe: \(map(.what))") else . end |
        [.[] | if .kind == "gap" and .to >= $since then .to - .from elif .kind == "summary" then .at - .last_answer else empty end] |
        [max - $rhythm * 1000, 0] | max / 1e4 | round / 100' "$log"
}

# changes NODE LOG: "<microseconds> added|deleted", one line for each change of the
# address that a guest's `ip -o -ts monitor address` wrote down.
changes() {
    local line stamp
    lab run "$1" "grep -F 'eth1    inet $virtual_address/' $2 || [ \$? -eq 1 ]" | while read -r line; do
        stamp="${line%%]*}"
        stamp="$(microseconds "$(date --utc --date="${stamp#[}" +%s.%6N)")"
        case "$line" in
        *"] Deleted "*) echo "$stamp deleted" ;;
        *) echo "$stamp added" ;;
        esac
    done
}

# clock_offset NODE: microseconds that its clock is ahead of this machine's. A file
# of the share is stamped by this machine when the guest writes it.
clock_offset() {
    local file="$state/guests/$1/share/clock" said
    # shellcheck disable=SC2016  # expanded in the guest
    said="$(lab run "$1" 'echo "$EPOCHREALTIME" >/share/clock; cat /share/clock')"
    echo $(($(microseconds "$said") - $(microseconds "$(stat --format=%.6Y "$file")")))
}

# The agent of the holder stands still, its kernel lives: how long after its last
# refresh the kernel drops the address. The kernel's collector runs when an address
# is added, and then not again for a second: one is added at the worst moments.
story_fence() {
    local added seconds spans=() script
    # shellcheck disable=SC2016  # expanded in the guest
    script='
        address="$1" added="$2" log=/run/fence.log
        agent="$(pgrep -x lvs-agent)"
        [ "$(wc -w <<<"$agent")" -eq 1 ] || exit 1
        refreshes() { grep -F "eth1    inet $address/" "$log"; }
        # Here, not by the redirection below, which happens beside what follows: the node may have a log of an earlier turn,
        # whose refreshes are not those of this one.
        : >"$log"
        TZ=UTC ip -o -ts monitor address >"$log" &
        monitor=$!
        trap "kill -CONT $agent; kill $monitor; ip address delete 198.51.100.1/32 dev lo 2>/dev/null" EXIT
        until [ "$(refreshes | wc -l)" -ge 2 ]; do sleep 0.05; done
        kill -STOP "$agent"
        sleep 0.05
        last="$(refreshes | tail -n 1)"
        last="${last%%]*}"
        if [ "$added" != never ]; then
            due=$(($(date --utc --date="${last#[}" +%s%6N) + added * 1000 - ${EPOCHREALTIME/./}))
            sleep "$((due / 1000000)).$(printf %06d $((due % 1000000)))"
            ip address add 198.51.100.1/32 dev lo
        fi
        for ((attempt = 0; attempt < 200; attempt++)); do
            if refreshes | grep -qF "] Deleted "; then exit 0; fi
            sleep 0.05
        done
        echo "$address is still there" >&2
        exit 1'
    for added in never 1500 1650 1750 1800 1850; do
        # shellcheck disable=SC2086  # a list
        await_carrier 30 $NODES
        lab run "$carrier" "$script" "$virtual_address" "$added"
        changes "$carrier" /run/fence.log >"$state/logs/fence-$added.txt"
        seconds="$(awk '$2 == "added" { last = $1 } $2 == "deleted" { print $1 - last; exit }' "$state/logs/fence-$added.txt")"
        spans+=("$(seconds "$seconds")")
    done
    # shellcheck disable=SC2086  # a list
    await_carrier 30 $NODES
    seconds="$(printf '%s\n' "${spans[@]}" | sort -n | tail -n 1)"
    echo "address gone ${spans[*]} s after its last refresh (the first without an addition); most $seconds s of F = $FENCE_SECONDS s" | shown
    at_most "address after its last refresh" "$seconds" "$(jq -n "$FENCE_SECONDS + $STAMP_ERROR_SECONDS")"
    at_most "lifetime of the address" "$LIFETIME_SECONDS" "$(jq -n "($(printf '%s\n' "${spans[@]}" | sort -n | head -n 1)) + $STAMP_ERROR_SECONDS")"
}

# The guest of the holder stands still for a while, and goes on. Its programs are
# traced by the guest's kernel, an ordinary process, and go no further without it.
story_frozen() {
    local node pid stopped resumed outage again after log=/run/frozen.log
    # shellcheck disable=SC2086  # a list
    await_carrier 30 $NODES
    node="$carrier"
    lab run "$node" "TZ=UTC setsid ip -o -ts monitor address >$log 2>&1 </dev/null &"
    begin_traffic
    read -r pid _ <"$state/run/$node.pid"
    stopped="$(microseconds "$EPOCHREALTIME")"
    kill -STOP "$pid"
    # shellcheck disable=SC2046  # a list
    await_carrier 30 $(others "$node") || { kill -CONT "$pid" && return 1; }
    after="$carrier"
    frozen_long_enough() { [ $(($(microseconds "$EPOCHREALTIME") - stopped)) -ge $((FROZEN_SECONDS * 1000000)) ]; }
    wait_until "$((FROZEN_SECONDS + 5))" "the end of $FROZEN_SECONDS s" frozen_long_enough
    outage="$(end_traffic "$stopped")"
    begin_traffic
    resumed="$(microseconds "$EPOCHREALTIME")"
    kill -CONT "$pid"
    let_go() { [ -z "$(carriers "$node")" ]; }
    wait_until 30 "$node to let $virtual_address go" let_go
    # What it must not do any more would come with the next refreshes.
    sleep "$FENCE_SECONDS"
    again="$(end_traffic "$resumed")"
    resumed=$((resumed + $(clock_offset "$node")))
    changes "$node" "$log" >"$state/logs/frozen.txt"
    lab run "$node" "pkill -x ip; rm $log"
    awk -v resumed="$resumed" '$1 >= resumed && $2 == "added"' "$state/logs/frozen.txt" >"$state/logs/frozen-written.txt"
    if [ -s "$state/logs/frozen-written.txt" ]; then
        echo "$node wrote $virtual_address after it went on at $resumed: $(<"$state/logs/frozen.txt")" >&2
        return 1
    fi
    resumed="$(awk -v resumed="$resumed" '$2 == "deleted" && $1 >= resumed { print $1 - resumed; exit }' "$state/logs/frozen.txt")"
    [ -n "$resumed" ] || { echo "$node did not drop $virtual_address after it went on: $(<"$state/logs/frozen.txt")" >&2 && return 1; }
    echo "node frozen for $FROZEN_SECONDS s: gap $outage s; one owner $(seconds "$resumed") s after it went on, gap then $again s" | shown
    at_most "outage" "$outage" "$OUTAGE_SECONDS"
    at_most "time to one owner after $node went on" "$(seconds "$resumed")" "$RESUMED_SECONDS"
    # shellcheck disable=SC2086  # a list
    await_carrier 5 $NODES
    [ "$carrier" = "$after" ]
    one_answers
    # The node may be a real server as well: each change of the table while it goes and comes begins the round of wrr anew.
    wait_until 30 "balance after the freeze" balanced web-2:20 web-3:20
}

# The plug of the holder is pulled: another director takes the address over; the
# old one comes back and stays second.
story_node_killed() {
    local before after struck outage
    # shellcheck disable=SC2086  # a list
    await_carrier 30 $NODES
    before="$carrier"
    begin_traffic
    struck="$(microseconds "$EPOCHREALTIME")"
    lab power-off "$before"
    # shellcheck disable=SC2046  # a list
    await_carrier 30 $(others "$before")
    after="$carrier"
    wait_until 30 "answers through $after" spread "$state" "$virtual_address" 4
    outage="$(end_traffic "$struck")"
    echo "node killed: gap $outage s" | shown
    at_most "outage" "$outage" "$OUTAGE_SECONDS"
    one_answers
    wait_until 30 "balance after the takeover" balanced web-2:20 web-3:20
    other_master() { [ "$(master)" = "$after" ]; }
    wait_until 180 "the status to name $after, the master" other_master
    lab power-on "$before"
    agent_back() {
        [ "$(kubectl get node "$before" -o jsonpath='{.status.conditions[?(@.type=="Ready")].status}')" = True ] &&
            kubectl rollout status --namespace "$namespace" daemonset/lvs-operator-agent --timeout=1s
    }
    wait_until 300 "$before with its agent" agent_back
    # shellcheck disable=SC2086  # a list
    await_carrier 5 $NODES
    [ "$carrier" = "$after" ]
    one_answers
}

# one_holder_per_epoch FILE: "<leaseTransitions> <holderIdentity>" of every state of the Lease.
one_holder_per_epoch() {
    awk 'NF == 2 {
            if ($1 < last || ($1 in holder && holder[$1] != $2)) { print "the Lease went to " $0 " after " last " " holder[last]; bad = 1 }
            last = $1; holder[$1] = $2
        }
        END { if (length(holder) < 4) { print length(holder) " epochs, which is not all that happened"; bad = 1 } exit bad }' "$1" >&2
}

takeovers() {
    local story node
    # node-3 may be the holder, and is a real server: no new connections there. As a
    # backup it has no service.
    set_weight web-1 0
    # shellcheck disable=SC2086  # a list
    await_carrier 30 $NODES
    for node in node-1 node-2 "$carrier"; do
        wait_until 60 "weight 0 in the kernel of $node" weight_is "$state" "$node" 192.168.50.13 0
    done
    launch "$state" lease-history "$kubectl" get --namespace "$namespace" leases.coordination.k8s.io "$LEASE" --watch \
        --output 'jsonpath={.spec.leaseTransitions} {.spec.holderIdentity}{"\n"}'
    for story in fence frozen node_killed; do
        step "story: ${story//_/ }"
        "story_$story"
    done
    finish "$state" lease-history
    one_holder_per_epoch "$state/logs/lease-history.log"
    set_weight web-1 2
    wait_until 60 "weight 2 in the kernel of $carrier" weight_is "$state" "$carrier" 192.168.50.13 2
    # The pods of the node that was killed went with it.
    web_server_on_node node-3
    wait_until 60 "balance as before" balanced node-3:20 web-2:10 web-3:10
}
