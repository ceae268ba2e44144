"""Which recordings of a folder stay."""

from __future__ import annotations

from pathlib import Path


def keep_newest(folder: Path, room: int) -> list[Path]:
    """Delete the oldest `*.mcap` of `folder` until those left hold at most `room` bytes; returns what was deleted.

    Age is what the file system says of the last change. Nothing else in the folder is touched.
    """
    known = sorted((file.stat().st_mtime_ns, file, file.stat().st_size) for file in folder.glob("*.mcap"))
    held, deleted = sum(size for _, _, size in known), []
    for _, file, size in known:
        if held <= room:
            break
        file.unlink(missing_ok=True)
        held -= size
        deleted.append(file)
    return deleted
