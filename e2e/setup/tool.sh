#!/usr/bin/env bash
# tool.sh NAME: prints the path of one tool. First KUBEBUILDER_ASSETS, then
# PATH, then the cache; Kubernetes components older than the product supports
# are passed over. Exit 1 when there is none (run provision.sh).
set -euo pipefail
# shellcheck source=cache.sh
. "$(dirname "${BASH_SOURCE[0]}")/cache.sh"

name="${1:?usage: tool.sh NAME}"

# recent_enough PATH: true unless it is a Kubernetes component below the
# minimum. A binary that cannot tell its version is not used.
recent_enough() {
    local text minor
    case " $KUBERNETES_COMPONENTS " in
    *" $name "*) ;;
    *) return 0 ;;
    esac
    if [ "$name" = kubectl ]; then
        text="$("$1" version --client 2>/dev/null)" || return 1
    else
        text="$("$1" --version 2>/dev/null)" || return 1
    fi
    minor="$(sed -nE 's/.*v1\.([0-9]+)\..*/\1/p' <<<"$text" | head -n 1)"
    [ "${minor:-0}" -ge "$KUBERNETES_MINIMUM_MINOR" ]
}

candidates=()
[ -n "${KUBEBUILDER_ASSETS:-}" ] && candidates+=("$KUBEBUILDER_ASSETS/$name")
on_path="$(command -v "$name" || true)"
[ -n "$on_path" ] && candidates+=("$on_path")
candidates+=(
    "$LVS_CACHE/kubernetes/$KUBERNETES_VERSION/$name"
    "$LVS_CACHE/helm/$HELM_VERSION/$name"
    "$LVS_CACHE/cargo-deny/$CARGO_DENY_VERSION/bin/$name"
)
for candidate in "${candidates[@]}"; do
    if [ -x "$candidate" ] && recent_enough "$candidate"; then
        printf '%s\n' "$candidate"
        exit 0
    fi
done
printf 'tool.sh: no usable %s; run e2e/setup/provision.sh\n' "$name" >&2
exit 1
