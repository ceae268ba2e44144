"""The disk that recordings and bundles go to: its file system, what is free, how fast it writes.

What a recording needs is counted from runtime/recording: a 256x256 frame with a real camera's noise is about 120 kB,
and the recorder writes and syncs every second. Sources: statvfs(3), proc_pid_mountinfo(5).
"""

from __future__ import annotations

from memrt.runtime.doctor.finding import Finding, error, fine, unknown, warning
from memrt.runtime.doctor.snapshot import CameraFacts, Disk, Snapshot

BYTES_PER_PIXEL = 120_000 / (256 * 256)
GIB = 1 << 30
LEAST_FREE = 10 * GIB
SLOWEST_SYNC_S = 1.0  # the recorder's own period: a slower disk fills its queue of 64 MB
USUAL = (CameraFacts(kind="usual"), CameraFacts(kind="usual"))  # two of 640x480 at 30 frames/s, without a YAML
IN_MEMORY, REMOTE = ("tmpfs", "ramfs"), ("nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs")


def examine(snapshot: Snapshot) -> list[Finding]:
    """Findings about the folder's disk."""
    disk = snapshot.disk
    if disk is None:
        return [unknown("disk", "not looked at")]
    return [_file_system(disk), _free(snapshot, disk), _speed(snapshot, disk)]


def needed_mb_s(snapshot: Snapshot) -> float:
    """What a recording writes per second [MB]."""
    cameras = tuple(snapshot.robot.cameras.values()) if snapshot.robot is not None else ()
    return sum(c.width * c.height * c.fps for c in cameras or USUAL) * BYTES_PER_PIXEL / 1e6


def _file_system(disk: Disk) -> Finding:
    about = "file system"
    if not disk.writable:
        cost = "neither recordings nor engines built here can be kept in it"
        return error(about, f"{disk.folder} cannot be written", cost, f"ls -ld {disk.folder} # or name --folder")
    if disk.file_system in IN_MEMORY:
        cost = "what is recorded there takes memory from the policies, and is gone after a restart"
        return warning(about, f"{disk.file_system}, in memory", cost, "# record to a folder on a disk")
    if disk.file_system in REMOTE:
        cost = "when the network stalls the recorder's queue runs over: gaps in the recording"
        return warning(about, f"{disk.file_system}, on another computer", cost, "# record here, copy afterwards")
    return fine(about, disk.file_system or "not said")


def _free(snapshot: Snapshot, disk: Disk) -> Finding:
    minutes = disk.free_bytes / (needed_mb_s(snapshot) * 1e6) / 60
    found = f"{disk.free_bytes / GIB:.1f} GiB, about {minutes:.0f} minutes of recording"
    if disk.free_bytes >= LEAST_FREE:
        return fine("free space", found)
    cost = "a recording ends when the disk is full (the run goes on); a new bundle needs twice its size"
    return warning("free space", found, cost, f"du -xh --max-depth=2 {disk.folder} | sort -h | tail")


def _speed(snapshot: Snapshot, disk: Disk) -> Finding:
    about, needed = "writing", needed_mb_s(snapshot)
    if disk.write_mb_s is None or disk.slowest_sync_s is None:
        return unknown(about, "not measured")
    found = f"{disk.write_mb_s:.0f} MB/s, a sync of 16 MB took at most {disk.slowest_sync_s:.2f} s"
    if disk.write_mb_s >= needed and disk.slowest_sync_s <= SLOWEST_SYNC_S:
        return fine(about, found)
    cost = f"recordings lose frames (counted): two cameras of 640x480 at 30 frames/s need {needed:.0f} MB/s"
    if snapshot.robot is not None and snapshot.robot.cameras:
        cost = f"recordings lose frames (counted): this robot's cameras need {needed:.0f} MB/s"
    return warning(about, found, cost, "# record to an SSD, or: memrt run --record-frames used # a quarter of the data")
