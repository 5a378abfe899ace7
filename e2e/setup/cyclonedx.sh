#!/usr/bin/env bash
# CycloneDX's own JSON schemas, as the Python library of that project has them, from PyPI. Prints their folder.
set -euo pipefail
# shellcheck source=cache.sh
. "$(dirname "${BASH_SOURCE[0]}")/cache.sh"

install_schemas() {
    /usr/bin/python3 -m venv "$1/environment"
    "$1/environment/bin/pip" install --quiet --disable-pip-version-check --no-deps --target "$1/modules" \
        "cyclonedx-python-lib==$CYCLONEDX_PYTHON_LIB_VERSION"
    mv "$1/modules/cyclonedx/schema/_res" "$1/schemas"
    rm -rf "$1/environment" "$1/modules"
    [ -s "$1/schemas/bom-1.5.SNAPSHOT.schema.json" ]
}

"$SETUP_DIR/packages.sh"
folder="$LVS_CACHE/cyclonedx/$CYCLONEDX_PYTHON_LIB_VERSION"
make_once "$folder" "the schemas of CycloneDX" "20 s" install_schemas
printf '%s\n' "$folder/schemas"
