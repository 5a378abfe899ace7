#!/usr/bin/env bash
# Captures anew what ipvsadm and the kernel say to each other, for the golden
# tests of lvs-ipvs (node-agent/ipvs/goldens). Needs strace on this machine.
set -euo pipefail
# shellcheck source=guest.sh
. "$(dirname "${BASH_SOURCE[0]}")/guest.sh"
command -v strace >/dev/null || { progress "strace is missing: apt-get install strace" && exit 3; }
# shellcheck disable=SC2119  # no program is needed
with_guest
goldens="$REPOSITORY/node-agent/ipvs/goldens"
# shellcheck disable=SC2016  # expanded in the guest
in_guest 'bash "$1/capture.sh"' "$goldens" >"$goldens/ipvsadm.txt.new"
mv "$goldens/ipvsadm.txt.new" "$goldens/ipvsadm.txt"
progress "$(grep -c '^#' "$goldens/ipvsadm.txt") runs of ipvsadm captured"
