#!/usr/bin/env bash
# helm, from its Go module, unless a helm 3 is on PATH.
set -euo pipefail
# shellcheck source=cache.sh
. "$(dirname "${BASH_SOURCE[0]}")/cache.sh"

build() {
    GOFLAGS=-mod=mod GOTOOLCHAIN=local CGO_ENABLED=0 GOBIN="$1" \
        go install -trimpath -ldflags "-s -w -X helm.sh/helm/v3/internal/version.version=$HELM_VERSION" \
        "helm.sh/helm/v3/cmd/helm@$HELM_VERSION"
    "$1/helm" version
}

"$SETUP_DIR/tool.sh" helm >/dev/null 2>&1 && exit 0
command -v go >/dev/null || missing "helm 3, or go ≥ 1.$GO_MINIMUM_MINOR to build it" \
    "install Go from https://go.dev/dl/ or helm from https://helm.sh/docs/intro/install/"
make_once "$LVS_CACHE/helm/$HELM_VERSION" "building helm $HELM_VERSION from its Go module" "2 min" build
