#!/usr/bin/env bash
# unpack-image.sh ARCHIVE DIR: the root of an OCI archive's image into DIR/root, its
# configuration into DIR/config.json. No daemon, no registry.
set -euo pipefail
archive="$1" directory="$2"
layout="$(mktemp -d)"
trap 'rm -rf "$layout"' EXIT
tar -xf "$archive" -C "$layout"
blob() { printf '%s/blobs/%s\n' "$layout" "${1/://}"; }
manifest="$(blob "$(jq -r '.manifests[0].digest' "$layout/index.json")")"
rm -rf "$directory"
mkdir -p "$directory/root"
jq -r '.layers[].digest' "$manifest" | while read -r layer; do tar -xf "$(blob "$layer")" -C "$directory/root"; done
jq '.config' "$(blob "$(jq -r '.config.digest' "$manifest")")" >"$directory/config.json"
