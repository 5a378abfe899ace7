#!/usr/bin/env bash
# What the documents point at exists: relative links, files in backticks, and
# the tests that ARCHITECTURE.md names as guards (`file::test`).
# shellcheck disable=SC2016  # the backticks are Markdown's
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

[ -s ARCHITECTURE.md ] || { echo "documents: ARCHITECTURE.md is missing" && exit 1; }
failures=0
seen=0
failed() {
    printf 'documents: %s\n' "$*"
    failures=$((failures + 1))
}

while read -r document; do
    folder="$(dirname "$document")"
    # [text](target), without the fragment; addresses of the web are not ours to check.
    while read -r target; do
        seen=$((seen + 1))
        [ -e "$folder/$target" ] || failed "$document links to $target, which is not there"
    done < <(grep -oE '\]\([^)#]+' "$document" | cut -c3- | grep -vE '^[a-z]+:' || true)
    # `path/with.extension` from the root of the repository, with ::name or without.
    while read -r mention; do
        seen=$((seen + 1))
        path="${mention%%::*}"
        if [ ! -e "$path" ]; then
            failed "$document names $path, which is not there"
        elif [ "$mention" != "$path" ] && ! grep -qE "(fn |\")${mention##*::}\b" "$path"; then
            failed "$document names ${mention##*::} in $path, which does not have it"
        fi
    done < <(grep -oE '`(\.ci|charts|cli|controller|crds|docs|e2e|examples|node-agent|scrape|traces)/[A-Za-z0-9_./-]+(::[a-z0-9_]+)?`' "$document" | tr -d '`')
done < <(git ls-files '*.md')

# A guard that is named without its file would be checked by nobody.
while read -r row; do
    failed "ARCHITECTURE.md: an invariant without a guard: $row"
done < <(awk -F'|' '/^## /{ inside = ($0 == "## Invariants"); next }
    inside && /^\| / && $2 !~ /^ *invariant *$/ && $3 !~ /`[a-z0-9_.-]+\/[^`]+`/' ARCHITECTURE.md)

[ "$seen" -gt 0 ] || failed "nothing was found to check"
[ "$failures" -eq 0 ] || exit 1
echo "documents: $seen links, files and tests are there"
