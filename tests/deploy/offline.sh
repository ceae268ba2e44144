#!/usr/bin/env bash
# offline.sh ROOT SET [ARGUMENT...]: installs the wheel set SET into a copy of the Debian in ROOT (root.sh), with no network
# but its own loopback, and runs `memrt run --robot sim ARGUMENT...` there to its end.
#
# The copy is an overlay in memory and is gone afterwards. Needs root, and about 1.5 GB of memory for a set of 250 MB.
set -euo pipefail

root=$(realpath "${1:?expected the folder of a root, found nothing. Fix: offline.sh ROOT SET}")
set_dir=$(realpath "${2:?expected a wheel set, found nothing. Fix: make one with memrt wheelhouse}")
shift 2

if [ "${INSIDE:-}" != yes ]; then
  [ "$(id -u)" = 0 ] || { echo "offline.sh: expected root, found user $(id -un). Fix: run it by sudo" >&2; exit 2; }
  scratch=$(mktemp -d)
  trap 'rmdir "$scratch"' EXIT
  # --kill-child: nothing outlives the test; all that it mounts is gone with it.
  INSIDE=yes SCRATCH=$scratch unshare --mount --net --pid --ipc --uts --fork --kill-child "$0" "$root" "$set_dir" "$@"
  exit
fi

ip link set lo up
scratch=$SCRATCH
mount -t tmpfs tmpfs "$scratch"
mkdir -p "$scratch/upper" "$scratch/work" "$scratch/root"
mount -t overlay overlay -o "lowerdir=$root,upperdir=$scratch/upper,workdir=$scratch/work" "$scratch/root"
cd "$scratch/root"
mkdir -p set proc dev/shm
mount --bind "$set_dir" set
mount -t proc proc proc
mount -t tmpfs tmpfs dev
mkdir dev/shm
mount -t tmpfs tmpfs dev/shm
for device in null zero full random urandom tty; do
  touch "dev/$device" && mount --bind "/dev/$device" "dev/$device"
done

# An empty environment: what the installation needs, it brings.
inside() { chroot . /usr/bin/env -i HOME=/root PATH=/usr/bin:/bin LANG=C.UTF-8 "$@"; }

echo "interfaces: $(ip -brief link | cut -d" " -f1 | tr "\n" " ")"
if inside /usr/bin/python3 -c 'import socket; socket.create_connection(("192.0.2.1", 80), timeout=2)' 2>/dev/null; then
  echo "offline.sh: expected no network, found one" >&2
  exit 1
fi
began=$SECONDS
inside /bin/sh /set/install.sh /opt/memrt/current
echo "installed in $((SECONDS - began)) s"
inside /opt/memrt/current/bin/python -c 'import importlib.metadata as m; print(m.version("memrt"), m.requires("memrt")[:2])'
status=0
inside MUJOCO_GL=egl /opt/memrt/current/bin/memrt run --robot sim "$@" || status=$?
echo "memrt run ended with status $status after $((SECONDS - began)) s"
exit $status
