#!/bin/sh
# install.sh FOLDER [PYTHON]: installs memrt from this wheel set into FOLDER, a new virtual environment.
# Needs no network. Every wheel is checked against requirements.lock; a failed installation leaves no FOLDER behind.
set -eu

folder=${1:?expected the folder to install into, found nothing. Fix: sh install.sh /opt/memrt/VERSION}
here=$(cd "$(dirname "$0")" && pwd)
field() { sed -n "s/^ *\"$1\": \"\{0,1\}\([^\",]*\)\"\{0,1\},\{0,1\}$/\1/p" "$here/wheelhouse.json"; }
refuse() { echo "install.sh: expected $1, found $2. Fix: $3" >&2; exit 2; }

version=$(field python)
python=${2:-$(command -v "python$version" || command -v python3 || echo python3)}
found=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])') || refuse "Python $version" "none at $python" "install it"
[ "$found" = "$version" ] || refuse "Python $version" "Python $found" "name it: install.sh $folder PYTHON, or make a wheel set for $found"
[ "$(uname -m)" = "$(field arch)" ] || refuse "a computer of $(field arch)" "$(uname -m)" "make a wheel set for it: memrt wheelhouse --arch $(uname -m)"
[ ! -e "$folder" ] || refuse "a new folder" "$folder" "remove it, or name another"

trap 'rm -rf "$folder"' EXIT
# JetPack's TensorRT is one of the system's packages.
"$python" -m venv $([ "$(field system_packages)" = false ] || echo --system-site-packages) "$folder"
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check --no-index --require-hashes \
  --find-links "$here/wheels" --requirement "$here/requirements.lock"
trap - EXIT
echo "$folder: memrt $(field memrt) with Python $version, $(ls "$here/wheels" | wc -l) packages"
