#!/usr/bin/env bash
# provision.sh [STEP…]: installs or builds what the lab needs, each thing once.
# Steps: packages servers rust kubernetes helm kernel cargo-deny
# kubernetes-validate. Without
# arguments all of them. Safe to run concurrently and again; does nothing when all is there.
set -euo pipefail
# shellcheck source=cache.sh
. "$(dirname "${BASH_SOURCE[0]}")/cache.sh"

ALL="packages servers rust kubernetes helm kernel cargo-deny kubernetes-validate"
started=$SECONDS
read -r -a steps <<<"${*:-$ALL}"
for step in "${steps[@]}"; do
    case " $ALL " in
    *" $step "*) "$SETUP_DIR/$step.sh" >/dev/null ;;
    *)
        echo "provision.sh: no step '$step'; steps: $ALL" >&2
        exit 2
        ;;
    esac
done
say "ready: ${steps[*]} ($((SECONDS - started)) s; cache $LVS_CACHE)"
