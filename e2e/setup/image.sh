#!/usr/bin/env bash
# image.sh: builds the release binaries (static, glibc inside) and the two
# images from them, as OCI archives target/images/{controller,agent}.tar, each with
# a list of what is in it ({controller,agent}.cdx.json, see sbom.sh), and prints the
# sizes. No daemon and no registry where buildah works; docker or podman
# otherwise. Names: localhost/lvs-operator/{controller,agent}:<version>.
# ARCH=arm64 builds {controller,agent}-arm64.tar instead, with Debian's cross
# compiler; --version of the binaries runs under qemu, and no more of them.
# QUICK=1 builds without link-time optimisation, in a folder of its own: for
# those who change the product and try it in the lab; not for figures.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
cd "$root"
architecture="${ARCH:-amd64}"
run=()
case "$architecture" in
amd64) target=x86_64-unknown-linux-gnu suffix="" ;;
arm64)
    "$root/e2e/setup/arm64.sh"
    target=aarch64-unknown-linux-gnu suffix=-arm64 run=(qemu-aarch64-static)
    export CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
    ;;
*) echo "image: ARCH is amd64 or arm64, not $architecture" >&2 && exit 2 ;;
esac
# Its own folder: other flags would make every other build start again.
build="$root/target/image"
images="$root/target/images"
version="$(sed -nE '/^\[workspace\.package\]/,/^\[/s/^version = "(.*)"/\1/p' Cargo.toml)"
say() { printf 'image: %s\n' "$*" >&2; }

if [ "${QUICK:-}" = 1 ]; then
    build="$root/target/image-quick"
    export CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_RELEASE_OPT_LEVEL=1
fi
say "release binaries (usually 4 min cold on 2 cores, seconds when nothing changed)"
# Static; and no path of this machine in the texts of panics. Quick ones keep them: what one worktree built serves another.
flags="$(printf '%s\x1f' -Ctarget-feature=+crt-static)"
if [ "${QUICK:-}" != 1 ]; then
    flags+="$(printf '%s\x1f' "--remap-path-prefix=$root=/lvs-operator" "--remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo")"
fi
CARGO_TARGET_DIR="$build" CARGO_ENCODED_RUSTFLAGS="${flags%$'\x1f'}" \
    nice -n 10 cargo build --quiet --release --locked --target "$target" --package lvs-controller --package lvs-agent
binaries="$build/$target/release"
for binary in lvs-controller lvs-agent; do
    # A program interpreter means: not static, and nothing in an empty image could load it.
    if LC_ALL=C readelf --program-headers "$binaries/$binary" | grep -q INTERP; then
        say "FAILED: $binary is not static"
        exit 1
    fi
    # For this architecture, and whole enough to begin.
    said="$("${run[@]}" "$binaries/$binary" --version)"
    [ "$said" = "$binary $version" ] || { say "FAILED: $binary --version says $said" && exit 1; }
done

mkdir -p "$images"
storage="$(mktemp -d "${TMPDIR:-/tmp}/lvs-image.XXXXXX")"
trap 'rm -rf "$storage"' EXIT
mkdir "$storage/context"
cp Containerfile "$binaries/lvs-controller" "$binaries/lvs-agent" "$storage/context/"

with_buildah() {
    local buildah=(buildah --root "$storage/root" --runroot "$storage/run" --storage-driver=vfs)
    # The time stamp is fixed: the same binaries make the same image.
    "${buildah[@]}" build --quiet --isolation=chroot --platform "linux/$architecture" --timestamp 0 --target "$1" --tag "$2" \
        --file "$storage/context/Containerfile" "$storage/context" &&
        "${buildah[@]}" push --quiet "$2" "oci-archive:$3:$2"
}
with_podman() {
    podman build --quiet --platform "linux/$architecture" --timestamp 0 --target "$1" --tag "$2" --file "$storage/context/Containerfile" "$storage/context" &&
        podman save --quiet --format oci-archive --output "$3" "$2"
}
# BuildKit writes OCI; the classic builder cannot.
with_docker() {
    docker buildx build --quiet --platform "linux/$architecture" --target "$1" --tag "$2" --file "$storage/context/Containerfile" \
        --output "type=oci,dest=$3,name=$2" "$storage/context"
}

# architecture_of ARCHIVE: what the image's configuration says.
architecture_of() {
    blob() { tar -xOf "$1" "blobs/${2/://}"; }
    local manifest
    manifest="$(tar -xOf "$1" index.json | jq -r '.manifests[0].digest')"
    blob "$1" "$(blob "$1" "$manifest" | jq -r .config.digest)" | jq -r .architecture
}

for component in controller agent; do
    name="localhost/lvs-operator/$component:$version"
    archive="$images/$component$suffix.tar"
    made=
    for builder in buildah podman docker; do
        command -v "$builder" >/dev/null || continue
        rm -f "$archive.partial"
        if "with_$builder" "$component" "$name" "$archive.partial" >"$storage/$builder.log" 2>&1; then
            made=$builder
            break
        fi
        say "$builder could not build the image: $(tail -n 1 "$storage/$builder.log")"
    done
    if [ -z "$made" ]; then
        say "MISSING: a working buildah, podman or docker (Debian: apt-get install buildah)"
        exit 3
    fi
    made_for="$(architecture_of "$archive.partial")"
    [ "$made_for" = "$architecture" ] || { say "FAILED: $name is for $made_for, not $architecture" && exit 1; }
    "$root/e2e/setup/sbom.sh" "lvs-$component" "$target" >"$storage/sbom.json"
    mv "$archive.partial" "$archive"
    mv "$storage/sbom.json" "$images/$component$suffix.cdx.json"
    printf '%-44s binary %5.1f MiB, image %5.1f MiB  (%s)\n' "$name" \
        "$(stat -c %s "$binaries/lvs-$component" | awk '{print $1 / 1048576}')" \
        "$(stat -c %s "$archive" | awk '{print $1 / 1048576}')" "$made"
done
