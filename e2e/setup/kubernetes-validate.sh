#!/usr/bin/env bash
# kubernetes-validate: the schemas of every Kubernetes release, to look at manifests without a cluster. From PyPI, with
# what it needs, each at the version that kubernetes-validate.txt says. Prints the folder of its modules.
set -euo pipefail
# shellcheck source=cache.sh
. "$(dirname "${BASH_SOURCE[0]}")/cache.sh"

install_modules() {
    /usr/bin/python3 -m venv "$1/environment"
    "$1/environment/bin/pip" install --quiet --disable-pip-version-check --target "$1/modules" \
        --requirement "$SETUP_DIR/kubernetes-validate.txt"
    rm -rf "$1/environment" # it knows its own path, which changes
    PYTHONPATH="$1/modules" /usr/bin/python3 -m kubernetes_validate --version
}

"$SETUP_DIR/packages.sh"
# Modules with compiled parts are of one version of Python.
version="$(sed -n 's/^kubernetes-validate==//p' "$SETUP_DIR/kubernetes-validate.txt")"
python="$(/usr/bin/python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')"
folder="$LVS_CACHE/kubernetes-validate/$version-python$python"
make_once "$folder" "installing kubernetes-validate $version" "20 s" install_modules
printf '%s\n' "$folder/modules"
