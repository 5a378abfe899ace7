#!/usr/bin/env bash
# The lists of what is in the images (target/images/*.cdx.json, of `make image`): valid by CycloneDX's schema, with a checksum
# of every crate that is not ours, and with every crate of which the binary itself has a trace (the file names of panics).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
modules="$(e2e/setup/kubernetes-validate.sh)"
schemas="$(e2e/setup/cyclonedx.sh)"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

PYTHONPATH="$modules" /usr/bin/python3 - "$schemas" target/images/controller.cdx.json target/images/agent.cdx.json <<'P'
import json, pathlib, sys
import jsonschema, referencing

folder, *files = map(pathlib.Path, sys.argv[1:])
schemas = {path.name.replace(".SNAPSHOT", ""): json.loads(path.read_text()) for path in folder.glob("*.schema.json")}
# They name each other by web address or file name.
retrieve = lambda uri: referencing.Resource.from_contents(schemas[uri.rsplit("/", 1)[-1].replace(".SNAPSHOT", "")])
check = jsonschema.Draft7Validator(schemas["bom-1.5.schema.json"], registry=referencing.Registry(retrieve=retrieve))
for file in files:
    bill = json.loads(file.read_text())
    for error in check.iter_errors(bill):
        sys.exit(f"{file}: {error.json_path}: {error.message}")
    # The check must be able to fail.
    bill["components"][0]["type"] = "crate"
    if check.is_valid(bill):
        sys.exit(f"{file}: the schema takes anything")
P

for component in controller agent; do
    bill="target/images/$component.cdx.json"
    jq -e --arg name "lvs-$component" '.metadata.component.name == $name
        and ([.components[] | select(.name | test("^(lvs-.*|rust-std|libgcc|libc6-dev|glibc)$") | not) | select(.hashes == [])] == [])
        and ([.components[].purl] | length == (unique | length))
        and ([.dependencies[] | .ref, .dependsOn[]] - [.components[].purl, .metadata.component.purl] == [])' "$bill" >/dev/null ||
        { printf 'sbom: %s: a name, a checksum or a dependency is not as it should be\n' "$bill" && exit 1; }
    mkdir "$work/$component"
    e2e/machine/unpack-image.sh "target/images/$component.tar" "$work/$component"
    grep -aoE 'registry/src/[^/]+/[A-Za-z0-9_.+-]+/' "$work/$component/root/lvs-$component" | awk -F/ '{ print $4 }' | sort -u >"$work/traces"
    [ "$(wc -l <"$work/traces")" -gt 20 ] || { printf 'sbom: only %s crates leave a trace in lvs-%s: the check would see little\n' "$(wc -l <"$work/traces")" "$component" && exit 1; }
    jq -r '.components[] | select(.scope == "required") | "\(.name)-\(.version)"' "$bill" | sort -u >"$work/listed"
    missing="$(comm -23 "$work/traces" "$work/listed")"
    [ -z "$missing" ] || { printf 'sbom: lvs-%s has these crates, and %s not:\n%s\n' "$component" "$bill" "$missing" && exit 1; }
    printf 'sbom: lvs-%s: %s components, %s of them seen in the binary\n' "$component" "$(jq '.components | length' "$bill")" "$(wc -l <"$work/traces")"
done
