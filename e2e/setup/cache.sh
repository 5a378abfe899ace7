# Sourced: where the slow things are kept, and how one of them is made once.
# shellcheck shell=bash

SETUP_DIR="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
# shellcheck source=versions.env
. "$SETUP_DIR/versions.env"

LVS_CACHE="${LVS_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/lvs-operator}"
export LVS_CACHE
mkdir -p "$LVS_CACHE"

# say TEXT: one progress line, on stderr (stdout carries results).
say() { printf 'setup: %s\n' "$*" >&2; }

# missing WHAT HOW: names exactly what is missing and how to get it, then ends.
missing() {
    printf 'setup: MISSING: %s\nsetup: to get it: %s\n' "$1" "$2" >&2
    exit 3
}

# make_once DIR WHAT DURATION COMMAND…: makes directory DIR exactly once, also
# when several provisionings run at the same time. COMMAND gets a fresh
# temporary directory as last argument; DIR appears by one rename, complete or
# not at all. The log of a failed run is kept and named.
make_once() {
    local dir="$1" what="$2" duration="$3"
    shift 3
    [ -d "$dir" ] && return 0
    mkdir -p "$(dirname "$dir")"
    local lock="$dir.lock" log="$dir.log" partial started=$SECONDS
    exec {lock_fd}>"$lock"
    if ! flock --nonblock "$lock_fd"; then
        say "waiting for another provisioning to finish $what"
        flock "$lock_fd"
    fi
    if [ ! -d "$dir" ]; then
        say "$what (usually $duration)"
        partial="$(mktemp -d "$dir.partial.XXXXXX")"
        if ! ("$@" "$partial") >"$log" 2>&1 {lock_fd}>&-; then
            rm -rf "$partial"
            tail -n 15 "$log" >&2
            say "FAILED: $what; whole log: $log"
            exit 4
        fi
        chmod 755 "$partial"
        mv "$partial" "$dir"
        say "$what: done in $((SECONDS - started)) s"
    fi
    exec {lock_fd}>&-
}
