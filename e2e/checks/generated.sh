#!/usr/bin/env bash
# The CustomResourceDefinitions in the repository and in the chart, and the
# reference of the API, are what the types say.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
fresh="$(mktemp -d "${TMPDIR:-/tmp}/lvs-crds.XXXXXX")"
trap 'rm -rf "$fresh"' EXIT
cargo run --quiet --locked --package lvs-crds --bin crdgen -- "$fresh"
[ -n "$(ls "$fresh")" ] || { echo "crdgen wrote nothing" && exit 1; }
for copy in crds/generated charts/lvs-operator/charts/crds/crds; do
    diff --recursive --unified "$copy" "$fresh" || { echo "$copy differs from the types: run 'make generate' and commit" && exit 1; }
done
cargo run --quiet --locked --package lvs-crds --bin reference | diff --unified docs/reference.md - ||
    { echo "docs/reference.md differs from the types: run 'make generate' and commit" && exit 1; }
echo "generated: $(find "$fresh" -name '*.yaml' | wc -l) definitions, and their reference, as the types say"
