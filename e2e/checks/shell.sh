#!/usr/bin/env bash
# Runs shellcheck over every shell script of the repository.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
mapfile -t scripts < <(git ls-files '*.sh' .ci/run)
[ "${#scripts[@]}" -gt 10 ] || { echo "only ${#scripts[@]} scripts found: the check would see nothing" && exit 1; }
shellcheck "${scripts[@]}"
echo "shellcheck: ${#scripts[@]} scripts"
