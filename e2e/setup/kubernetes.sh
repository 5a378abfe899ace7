#!/usr/bin/env bash
# Kubernetes' own binaries. Those of KUBEBUILDER_ASSETS and PATH are used where
# they are recent enough (tool.sh); the rest is built from the Go module
# k8s.io/kubernetes, which no registry of binaries is needed for.
set -euo pipefail
# shellcheck source=cache.sh
. "$(dirname "${BASH_SOURCE[0]}")/cache.sh"

# The module replaces its staging modules by directories that the module zip
# does not have; a module of our own replaces them by their published versions.
write_module() {
    local directory="$1" source="$2" library="v0.${KUBERNETES_VERSION#v1.}" module component
    {
        printf 'module cluster\n\ngo 1.24.0\n\nrequire k8s.io/kubernetes %s\n\nreplace (\n' "$KUBERNETES_VERSION"
        sed -nE 's/^\s+(k8s\.io\/\S+) => \.\/staging.*/\1/p' "$source/go.mod" | while read -r module; do
            printf '\t%s => %s %s\n' "$module" "$module" "$library"
        done
        printf ')\n'
    } >"$directory/go.mod"
    {
        printf '//go:build tools\n\npackage tools\n\nimport (\n'
        for component in $KUBERNETES_COMPONENTS; do
            printf '\t_ "k8s.io/kubernetes/cmd/%s"\n' "$component"
        done
        printf ')\n'
    } >"$directory/tools.go"
    cp "$source/go.sum" "$directory/go.sum"
}

build() {
    local partial="$1" work source minor packages=() component
    work="$(mktemp -d "$LVS_CACHE/kubernetes-module.XXXXXX")"
    # shellcheck disable=SC2064  # expanded now on purpose: the directory is known
    trap "rm -rf '$work'" EXIT
    export GOFLAGS=-mod=mod GOTOOLCHAIN=local CGO_ENABLED=0
    source="$(cd "$work" && go mod download -json "k8s.io/kubernetes@$KUBERNETES_VERSION" | jq -r .Dir)"
    write_module "$work" "$source"
    minor="${KUBERNETES_VERSION#v1.}"
    minor="${minor%%.*}"
    for component in $KUBERNETES_COMPONENTS; do
        packages+=("k8s.io/kubernetes/cmd/$component")
    done
    cd "$work"
    go mod tidy
    go build -trimpath -ldflags "-s -w \
        -X k8s.io/component-base/version.gitVersion=$KUBERNETES_VERSION \
        -X k8s.io/component-base/version.gitMajor=1 \
        -X k8s.io/component-base/version.gitMinor=$minor" \
        -o "$partial/" "${packages[@]}"
    "$partial/kube-apiserver" --version
}

need_go() {
    local hint="install Go 1.$GO_MINIMUM_MINOR or newer from https://go.dev/dl/ into /usr/local/go and put /usr/local/go/bin on PATH"
    command -v go >/dev/null || missing "go ≥ 1.$GO_MINIMUM_MINOR (builds Kubernetes and helm)" "$hint"
    local minor
    minor="$(go env GOVERSION | sed -nE 's/^go1\.([0-9]+).*/\1/p')"
    [ "${minor:-0}" -ge "$GO_MINIMUM_MINOR" ] ||
        missing "go ≥ 1.$GO_MINIMUM_MINOR (found $(go env GOVERSION))" "$hint"
}

component_missing=
for component in $KUBERNETES_COMPONENTS; do
    "$SETUP_DIR/tool.sh" "$component" >/dev/null 2>&1 || component_missing="$component"
done
if [ -n "$component_missing" ]; then
    need_go
    make_once "$LVS_CACHE/kubernetes/$KUBERNETES_VERSION" \
        "building Kubernetes $KUBERNETES_VERSION from its Go module" "7 min on 2 cores" build
fi
