#!/usr/bin/env bash
# The arrows of ARCHITECTURE.md, from cargo's own dependency graph: which
# crates of the workspace a crate may reach, and what the pure ones must not.
# A failing cargo fails the check.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

failures=0
failed() {
    printf 'arrows: %s\n' "$*"
    failures=$((failures + 1))
}

# reached CRATE: names of all crates it is built with, its own included.
reached() {
    cargo tree --locked --quiet --package "$1" --edges normal,build --prefix none --format '{p}' | awk '{ print $1 }' | sort -u
}

# allow CRATE OTHER…: the only crates of the workspace that CRATE may reach.
allow() {
    local crate="$1" tree member members
    shift
    tree="$(reached "$crate")"
    grep -qx "$crate" <<<"$tree" || failed "cargo tree does not name $crate itself: the check would see nothing"
    mapfile -t members < <(grep -x 'lvs-.*' <<<"$tree")
    for member in "${members[@]}"; do
        case " $crate $* " in
        *" $member "*) ;;
        *) failed "$crate must not reach $member (it may reach: ${*:-none})" ;;
        esac
    done
}

# pure CRATE: no runtime, no client, no sockets, no logging, no randomness.
# k8s-openapi and kube's derive are types.
pure() {
    local tree crate
    tree="$(reached "$1")"
    for crate in tokio kube-client kube-runtime hyper mio socket2 neli nix tracing log-mdc rand getrandom async-std; do
        if grep -qx "$crate" <<<"$tree"; then
            failed "$1 is pure and must not reach $crate; see: cargo tree -p $1 -e normal -i $crate"
        fi
    done
}

allow lvs-crds
allow lvs-plan lvs-crds
allow lvs-core lvs-crds
allow lvs-ipvs lvs-core lvs-crds
allow lvs-scrape
allow lvs-traces
allow lvs-controller lvs-plan lvs-crds lvs-core lvs-scrape lvs-traces
allow lvs-agent lvs-core lvs-ipvs lvs-crds lvs-scrape lvs-traces
allow kubectl-lvs lvs-crds lvs-plan lvs-core
pure lvs-plan
pure lvs-core

if [ "$failures" -gt 0 ]; then
    exit 1
fi
echo "arrows: as ARCHITECTURE.md says"
