#!/usr/bin/env bash
# image-once.sh: target/images from the cache when it has the images of exactly
# these sources, else image.sh. A second clone of the same commit builds nothing.
set -euo pipefail
# shellcheck source=cache.sh
. "$(dirname "${BASH_SOURCE[0]}")/cache.sh"
cd "$SETUP_DIR/../.."

# The content of every file an image depends on, committed or not.
sources_key() {
    local paths=(Cargo.toml Cargo.lock rust-toolchain.toml Containerfile crds controller node-agent scrape e2e/Cargo.toml e2e/setup/image.sh e2e/setup/sbom.sh)
    if git rev-parse --git-dir >/dev/null 2>&1; then
        git ls-files -z --cached --others --exclude-standard -- "${paths[@]}"
    else
        find "${paths[@]}" -type f -print0
    fi | LC_ALL=C sort -z | while IFS= read -r -d '' file; do
        [ ! -f "$file" ] || sha256sum "$file"
    done | sha256sum | cut -c1-16
}

if [ "${QUICK:-}" = 1 ] || [ "${ARCH:-amd64}" != amd64 ]; then
    exec "$SETUP_DIR/image.sh" # nothing that others should find
fi
key="$(sources_key)"
kept="$LVS_CACHE/product/$key"
mkdir -p target/images
if [ -s "$kept/sizes" ]; then
    for file in {controller,agent}.{tar,cdx.json}; do
        cmp --quiet "$kept/$file" "target/images/$file" || cp "$kept/$file" "target/images/$file"
    done
    cat "$kept/sizes"
    exit
fi
sizes="$("$SETUP_DIR/image.sh")"
printf '%s\n' "$sizes"
[ "$(sources_key)" = "$key" ] || exit 0 # edited while it was built
partial="$(mktemp -d "$LVS_CACHE/product.partial.XXXXXX")"
cp target/images/{controller,agent}.{tar,cdx.json} "$partial/"
printf '%s\n' "$sizes" >"$partial/sizes"
mkdir -p "$LVS_CACHE/product"
mv -T "$partial" "$kept" 2>/dev/null || rm -rf "$partial" # somebody else was first
# The last few; sources change often.
mapfile -t old < <(find "$LVS_CACHE/product" -mindepth 1 -maxdepth 1 -type d -printf '%T@ %p\n' | sort -rn | tail -n +6 | cut -d' ' -f2-)
[ "${#old[@]}" -eq 0 ] || rm -rf "${old[@]}"
