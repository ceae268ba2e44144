#!/usr/bin/env bash
# root.sh FOLDER [PACKAGE...]: a fresh Debian in FOLDER, of the packages that every Debian has and the ones named here.
#
# What the deployment tests install memrt into: nothing of the computer they run on is in it. Built once: a FOLDER that
# an earlier call finished with the same packages is left as it is. Needs root, mmdebstrap, and a Debian mirror (apt's
# own sources are used). SUITE chooses another release than bookworm.
set -euo pipefail

root=${1:?expected the folder of the root, found nothing. Fix: root.sh FOLDER [PACKAGE...]}
shift
suite=${SUITE:-bookworm}
made="$suite $*"

[ "$(id -u)" = 0 ] || { echo "root.sh: expected root, found user $(id -un). Fix: run it by sudo" >&2; exit 2; }
command -v mmdebstrap >/dev/null || { echo "root.sh: expected mmdebstrap, found none. Fix: apt-get install mmdebstrap" >&2; exit 2; }
if [ "$(cat "$root.made" 2>/dev/null)" = "$made" ] && [ -x "$root/bin/sh" ]; then
  echo "$root is there: $made"
  exit 0
fi

rm -rf --one-file-system "$root" "$root.made"
mkdir -p "$(dirname "$root")"
packages=$*
# No documents, no translations: a third of the size.
mmdebstrap --quiet --variant=minbase ${packages:+--include="${packages// /,}"} \
  --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
  "$suite" "$root"
echo "$made" > "$root.made"
echo "$root: $(du -sh --apparent-size "$root" | cut -f1), $made"
