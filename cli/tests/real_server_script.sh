#!/usr/bin/env bash
# `kubectl lvs realserver-script` with real packets through a real IPVS: in a guest, for direct routing, each tunnel
# and NAT (30 s). What it does there: real_server_guest.sh.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
# shellcheck source=../../e2e/bench/guest.sh
. "$here/../../e2e/bench/guest.sh"
(cd "$REPOSITORY" && cargo build --quiet --locked --package kubectl-lvs)

# shellcheck disable=SC2119  # no program is needed
with_guest
folder="$GUEST_STATE/guests/ipvs/share/cases"
mkdir "$folder"

# service NAME FORWARDING ADDRESS REAL_SERVER [ARGUMENT…]: the script of a service.
service() {
    cat >"$folder/$1.yaml" <<Y
apiVersion: lvs.dev/v1alpha1
kind: VirtualService
metadata: {name: $1}
spec: {addresses: ["$3"], ports: [{port: 80}], forwarding: $2, realServerSelector: {}}
---
apiVersion: lvs.dev/v1alpha1
kind: RealServer
metadata: {name: server}
spec: {target: {type: Addresses, addresses: ["$4"]}}
Y
    "$REPOSITORY/target/debug/kubectl-lvs" realserver-script -f "$folder/$1.yaml" --real-server server "${@:5}" >"$folder/$1.sh"
    shellcheck "$folder/$1.sh"
}
# rules NAME ADDRESS REAL_SERVER OPTIONS
rules() { printf -- '-A -t %s:80 -s rr\n-a -t %s:80 -r %s:80 %s\n' "$2" "$2" "$3" "$4" >"$folder/$1.rules"; }

four=192.0.2.100 six=2001:db8::100 server4=192.0.2.21 server6=2001:db8::21
service other '{type: DR}' $four $server4
service dr4 '{type: DR}' $four $server4
rules dr4 $four $server4 -g
service dr6 '{type: DR}' $six $server6
rules dr6 "[$six]" "[$server6]" -g
service ipip4 '{type: TUN}' $four $server4
rules ipip4 $four $server4 -i
service ipip6 '{type: TUN}' $six $server6
rules ipip6 "[$six]" "[$server6]" -i
service sit6 '{type: TUN}' $six $server4
rules sit6 "[$six]" $server4 -i
service gue4 '{type: TUN, tunnel: {type: GUE, port: 6080}}' $four $server4
rules gue4 $four $server4 '-i --tun-type gue --tun-port 6080'
service gre4 '{type: TUN, tunnel: {type: GRE, checksum: Checksum}}' $four $server4
rules gre4 $four $server4 '-i --tun-type gre --tun-csum'
service gre6 '{type: TUN, tunnel: {type: GRE}}' $six $server6
rules gre6 "[$six]" "[$server6]" '-i --tun-type gre'
service nat4 '{type: NAT}' $four 198.51.100.21 --gateway 198.51.100.1
rules nat4 $four 198.51.100.21 -m

cp "$here/real_server_guest.sh" "$folder/"
in_guest 'bash /share/cases/real_server_guest.sh /share/cases'
