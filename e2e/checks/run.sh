#!/usr/bin/env bash
# `make test`: every check, one line each with the time it took, its output in
# target/test-logs/. A failed check does not hide the next; the last line
# counts. With arguments only the checks whose name contains one of them.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit

logs=target/test-logs
mkdir -p "$logs"
passed=0
failed=()
words=("$@")
ahead=

# chosen NAME: whether that check is one of those asked for.
chosen() {
    local word
    [ "${#words[@]}" -gt 0 ] || return 0
    for word in "${words[@]}"; do case "$1" in *"$word"*) return 0 ;; esac done
    return 1
}

# check NAME WHAT COMMAND…
check() {
    local name="$1" what="$2" started=$SECONDS
    shift 2
    chosen "$name" || return 0
    printf '[%4d s] %-12s %s\n' "$SECONDS" "$name" "$what"
    if "$@" >"$logs/$name.log" 2>&1; then
        passed=$((passed + 1))
        printf '[%4d s] %-12s passed in %d s\n' "$SECONDS" "$name" $((SECONDS - started))
    else
        failed+=("$name")
        printf '[%4d s] %-12s FAILED after %d s; %s ends:\n' "$SECONDS" "$name" $((SECONDS - started)) "$logs/$name.log"
        tail -n 25 "$logs/$name.log" | sed 's/^/         | /'
    fi
}

interrupted() {
    [ -z "$ahead" ] || kill -- "-$ahead" 2>/dev/null
    printf 'interrupted; %d passed, %d failed so far\n' "$passed" "${#failed[@]}"
    exit 130
}
trap interrupted INT TERM HUP

e2e/setup/provision.sh || exit
cargo_deny="$(e2e/setup/tool.sh cargo-deny)" || exit

check format "rustfmt" cargo fmt --all --check
check shell "shellcheck" e2e/checks/shell.sh
check lint "clippy, warnings are errors (cold 3 min)" cargo clippy --workspace --all-targets --locked -- -D warnings
check documents "links, files and tests that documents name" e2e/checks/documents.sh
check arrows "the arrows between crates" e2e/checks/arrows.sh
check dependencies "licences, bans and sources" "$cargo_deny" --workspace check licenses bans sources
check fuzz "the lock files of the fuzz targets (make fuzz runs them)" e2e/checks/fuzz.sh locks
# Laws look at the same histories each time: what lands does not depend on luck. `make soak` looks at others.
check unit "tests and laws of the crates, 100,000 storms among them (cold 10 min)" env LVS_STORMS=100000 PROPTEST_RNG_SEED=9568 cargo test --workspace --locked --no-fail-fast
# The next ones wait most of their time, and release binaries take both processors for minutes: these are built in what those leave.
if chosen servers && chosen image; then
    setsid chrt --idle 0 make --silent image >"$logs/image-ahead.log" 2>&1 &
    ahead=$!
fi
check servers "health checks against Debian's server programs (1 min)" e2e/checks/servers.sh
check generated "CustomResourceDefinitions are what the types say" e2e/checks/generated.sh
check api "the rules of the API against a real API server (2 min)" crds/tests/apiserver.sh
check import "what kubectl lvs import writes, against a real API server (2 min)" cli/tests/apiserver.sh
check plan "kubectl lvs plan, check and bundle, against a real API server (1 min)" cli/tests/plan_apiserver.sh
check shadow "kubectl lvs import --shadow of a cluster's objects, against a real API server (1 min)" cli/tests/shadow_apiserver.sh
check metrics "alerts fire when they should; the dashboard's queries are valid" e2e/checks/metrics.sh
check chart "what the chart renders" e2e/chart/render.sh
check policies "the chart's policies against a real API server (1 min)" e2e/chart/policies.sh
[ -z "$ahead" ] || wait "$ahead" # what it has built is not built again; what failed says so again
ahead=
check image "release binaries and images (cold 5 min)" make --silent image
check sbom "bills of materials are valid, and have what is in the binaries" e2e/checks/sbom.sh
check scripts "scripts for hosts outside the cluster, with packets (1 min)" cli/tests/real_server_script.sh
check differential "random operations: our model, our dumps and a real kernel (30 s)" make --silent differential
check stories "packet stories in one machine (tier 2, 25 min)" make --silent stories
check cluster "the demo and stories of real kubelets (tier 1, 5 min)" make --silent stories-cluster

# What failed once more, in few lines, as whoever sees only the end must know it.
for name in "${failed[@]}"; do
    printf '%s failed:\n' "$name"
    { grep -aE -A 1 'FAILED|panicked at|^error' "$logs/$name.log" || tail -n 5 "$logs/$name.log"; } |
        cut -c1-300 | head -n 8 | sed 's/^/    /'
done
if [ "${#failed[@]}" -gt 0 ]; then
    printf 'failed: %s (logs in %s)\n' "${failed[*]}" "$logs"
fi
printf '%d passed, %d failed\n' "$passed" "${#failed[@]}"
[ "${#failed[@]}" -eq 0 ] && [ "$passed" -gt 0 ]
