#!/bin/bash
# place-volume.sh FROM VOLUME: the files of VOLUME become those of FROM, all at once, as a kubelet does it:
#   VOLUME/key -> ..data/key    VOLUME/..data -> ..XXXXXX    VOLUME/..XXXXXX/key
set -euo pipefail
shopt -s dotglob nullglob
from="$1" volume="$2"
mkdir -p "$volume"
new="$(mktemp -d "$volume/..XXXXXX")"
chmod 755 "$new"
cp -R "$from/." "$new"
old="$(readlink "$volume/..data" || true)"
ln -sfn "${new##*/}" "$volume/..data_new"
mv -T "$volume/..data_new" "$volume/..data"
for path in "$new"/*; do
    [ -L "$volume/${path##*/}" ] || ln -s "..data/${path##*/}" "$volume/${path##*/}"
done
for path in "$volume"/*; do
    [ -e "$path" ] || rm "$path"
done
[ -z "$old" ] || rm -rf "${volume:?}/$old"
