#!/usr/bin/env bash
# sbom.sh PACKAGE TARGET: what is in the release binary of a package, as CycloneDX 1.5 in JSON, on standard output.
# Every crate that is linked into it, by cargo's own graph of dependencies, with the checksum of Cargo.lock; crates that ran only
# while it was built (macros, build scripts) have the scope "excluded"; the standard library and the C library are
# inside a static binary too. The same sources and tools make the same bytes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
package="$1" target="$2"

# tree EDGES: "name version", one line for each crate.
tree() {
    cargo tree --locked --quiet --package "$package" --target "$target" --edges "$1" --prefix none --format '{p}' |
        awk 'NF { print $1, substr($2, 2) }' | sort -u
}
# debian PACKAGE: its version, where there is a dpkg that has it.
debian() { dpkg-query --show --showformat='${Version}' "$1" 2>/dev/null || true; }
case "$target" in
x86_64-*) cc=cc c_library=libc6-dev ;;
aarch64-*) cc=aarch64-linux-gnu-gcc c_library=libc6-dev-arm64-cross ;;
*) echo "sbom: no C library is known for $target" >&2 && exit 2 ;;
esac

jq --null-input --sort-keys --arg package "$package" --arg target "$target" \
    --rawfile linked <(tree normal,no-proc-macro) --rawfile all <(tree normal,build) \
    --slurpfile metadata <(cargo metadata --format-version 1 --locked --filter-platform "$target") \
    --rawfile lock Cargo.lock --arg rust "$(rustc --version | cut -d' ' -f2)" \
    --arg c_library "$c_library" --arg c_library_version "$(debian "$c_library")" \
    --arg c_library_release "$(getconf GNU_LIBC_VERSION | cut -d' ' -f2)" --arg gcc "$("$cc" -dumpfullversion)" '
    def crates: split("\n") | map(select(. != ""));
    def key: "\(.name) \(.version)";
    def purl: "pkg:cargo/\(.name)@\(.version | gsub("\\+"; "%2B"))";
    ($linked | crates) as $linked
    | ($all | crates | map({key: ., value: true}) | from_entries) as $all
    | ($lock | split("[[package]]\n")[1:] | map(
        [(capture("name = \"(?<name>[^\"]+)\"\nversion = \"(?<version>[^\"]+)\"") | key),
         (capture("checksum = \"(?<checksum>[0-9a-f]{64})\"").checksum // null)]
        | select(.[1]) | {key: .[0], value: .[1]}) | from_entries) as $checksums
    | $metadata[0] as $metadata
    | ($metadata.packages | map({key: .id, value: .}) | from_entries) as $by_id
    | def license: if .license then [{expression: (.license | gsub("/"; " OR "))}] else [] end;
      def component: . as $crate | {
        type: "library", name, version, purl: purl, "bom-ref": purl, licenses: license,
        scope: (if $linked | index($crate | key) then "required" else "excluded" end),
        hashes: ($checksums[key] | if . then [{alg: "SHA-256", content: .}] else [] end)};
      def beside($name; $version; $purl; $license):
        {type: "library", name: $name, version: $version, purl: $purl, "bom-ref": $purl, scope: "required", licenses: [$license]};
    ($metadata.packages | map(select($all[key])) | sort_by(.name, .version)) as $packages
    | ($packages[] | select(.name == $package)) as $root
    | [beside("rust-std"; $rust; "pkg:generic/rust-std@\($rust)"; {expression: "MIT OR Apache-2.0"}),
       (if $c_library_version != "" then beside($c_library; $c_library_version;
            "pkg:deb/debian/\($c_library)@\($c_library_version | gsub("\\+"; "%2B"))"; {license: {id: "LGPL-2.1-or-later"}})
        else beside("glibc"; $c_library_release; "pkg:generic/glibc@\($c_library_release)"; {license: {id: "LGPL-2.1-or-later"}}) end),
       beside("libgcc"; $gcc; "pkg:generic/libgcc@\($gcc)"; {expression: "GPL-3.0-or-later WITH GCC-exception-3.1"})] as $beside
    | {
        bomFormat: "CycloneDX", specVersion: "1.5", version: 1,
        metadata: {component: ($root | {type: "application", name, version, purl: purl, "bom-ref": purl, licenses: license}
            + {properties: [{name: "target", value: $target}]})},
        components: (($packages | map(select(.name != $package) | component)) + $beside),
        dependencies: ($packages | map(. as $crate | {
            ref: purl,
            dependsOn: ([$metadata.resolve.nodes[] | select(.id == $crate.id).deps[]
                | select(any(.dep_kinds[]; .kind != "dev")) | $by_id[.pkg] | select($all[key]) | purl]
                + (if .name == $package then $beside | map(.purl) else [] end) | unique)}))
      }'
