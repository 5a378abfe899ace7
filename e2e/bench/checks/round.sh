#!/usr/bin/env bash
# round.sh bare|ours|keepalived|ldirectord PERIOD_SECONDS TCP_COUNT HTTP_COUNT: one prober against fresh listeners, with the
# programs in the folder of this script; prints one JSON object. What it costs is what its process has used in 20 s, by
# /proc, after every target was asked twice. How long that takes is a figure too: 10 s; keepalived and ldirectord tell IPVS
# of each target, and ldirectord asks one after another.
set -euo pipefail
name="$1" period="$2" tcp_count="$3" http_count="$4"
programs="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
tcp=18080 http=18081
# Real servers of one virtual server of keepalived, whose start takes as long as the square of them.
together=1200
work="$(mktemp -d)"
cd "$work"
cleanup() {
    # shellcheck disable=SC2046  # a list
    kill $(jobs -p) 2>/dev/null || true
    wait
    rm -rf "$work"
}
trap cleanup EXIT
ulimit -n "$(ulimit -Hn)"

# address INDEX: as 127.1.0.0, 127.1.0.1 …
address() { echo "127.1.$(($1 / 256)).$(($1 % 256))"; }

keepalived_configuration() {
    local index
    for ((index = 0; index < tcp_count + http_count; index++)); do
        if [ $((index % together)) -eq 0 ]; then
            [ "$index" -eq 0 ] || printf '}\n'
            printf 'virtual_server 192.0.2.1 %s {\n delay_loop %s\n lb_algo rr\n lb_kind NAT\n protocol TCP\n' $((80 + index / together)) "$period"
        fi
        if [ "$index" -lt "$tcp_count" ]; then
            printf 'real_server %s %s {\n TCP_CHECK {\n connect_timeout 3\n }\n}\n' "$(address "$index")" "$tcp"
        else
            printf 'real_server %s %s {\n HTTP_GET {\n url {\n path /\n status_code 200\n }\n connect_timeout 3\n fast_recovery\n }\n}\n' \
                "$(address "$index")" "$http"
        fi
    done
    printf '}\n'
}

ldirectord_configuration() {
    local index
    printf 'checktimeout=3\ncheckinterval=%s\nsupervised=yes\nlogfile="%s/log"\nvirtual=192.0.2.1:80\n' "$period" "$work"
    for ((index = 0; index < tcp_count; index++)); do printf '\treal=%s:%s masq\n' "$(address "$index")" "$tcp"; done
    printf '\tscheduler=rr\n\tprotocol=tcp\n\tchecktype=connect\n'
}

"$programs/listener" "$tcp" "$http" "$((tcp_count + http_count))" "$period" >listened &
listener=$!
until grep -q ready listened; do sleep 0.05; done
case "$name" in
bare) "$programs/prober" "$tcp" "$tcp_count" "$http" "$http_count" "$period" 3600 >/dev/null & ;;
ours) "$programs/check_prober" "$tcp" "$tcp_count" "$http" "$http_count" "$period" 3600 >/dev/null & ;;
keepalived)
    keepalived_configuration >keepalived.conf
    LD_PRELOAD="$programs/willing_ipvs.so" keepalived --check --dont-fork --log-console --use-file "$work/keepalived.conf" \
        --pid "$work/main.pid" --checkers_pid "$work/checkers.pid" >log 2>&1 &
    until [ -s checkers.pid ]; do sleep 0.1; done
    ;;
ldirectord)
    ldirectord_configuration >ldirectord.cf
    ldirectord "$work/ldirectord.cf" start >log.out 2>&1 &
    ;;
esac
started=$!
launched="${EPOCHREALTIME/./}"
prober="$started"
[ "$name" != keepalived ] || prober="$(<checkers.pid)"

# Clock ticks that it has used, with those of children that have ended.
used() {
    local stat
    stat="$(<"/proc/$prober/stat")"
    # shellcheck disable=SC2086  # split on purpose
    set -- ${stat##*) }
    echo $((${12} + ${13} + ${14} + ${15}))
}
for ((look = 0; look < 1800; look++)); do
    ! grep -q spread listened || break
    sleep 0.1
done
began="${EPOCHREALTIME/./}"
before="$(used)" begun="${EPOCHREALTIME/./}"
sleep 20
after="$(used)" ended="${EPOCHREALTIME/./}"
resident="$(awk '/^VmHWM/ { print $2 }' "/proc/$prober/status")"
kill -TERM "$listener"
wait "$listener"
kill -TERM "$started"
wait "$started" || true
tail -n 1 listened | jq -c --argjson ticks "$((after - before))" --argjson hertz "$(getconf CLK_TCK)" --argjson microseconds "$((ended - begun))" --argjson resident "$resident" --argjson began "$((began - launched))" \
    '. + {begins_seconds: ($began / 1e5 | round / 10), processor_share: ($ticks / $hertz / ($microseconds / 1e6)), resident_megabytes: ($resident / 1024 * 10 | round / 10)}'
