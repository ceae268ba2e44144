"""Is there room for what is about to be written? Asked before hours of work, not after."""

from __future__ import annotations

import shutil
from pathlib import Path

from memrt.runtime.errors import MemrtError


def check_disk(folder: str | Path, needed_bytes: int) -> None:
    """Raise MemrtError unless the file system that `folder` lies on, or will lie on, has `needed_bytes` free."""
    place = Path(folder).expanduser().absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < needed_bytes:
        raise MemrtError(
            f"too little disk for {folder}",
            expected=f"{needed_bytes / 1e9:.1f} GB free",
            found=f"{free / 1e9:.1f} GB",
            fix="free some space, or write to another disk",
        )
