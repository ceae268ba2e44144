"""One flash at a time: a lock that the kernel drops with the last process that holds it, however that ends."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from memrt.runtime.errors import MemrtError

_HOLDER_BYTES = 200
# Whoever only asks holds the lock for a moment: that is no other flash.
_TRIES, _PAUSE_S = 3, 0.2


class BusyError(MemrtError):
    """Another flash, rollback or recovery is under way."""


@contextmanager
def hold(path: Path, holder: str, tries: int = _TRIES) -> Iterator[None]:
    """Hold the lock. `holder` tells others who has it. Raises BusyError when another has it.

    A forked process holds it on, until it ends too.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if not _lock(descriptor, fcntl.LOCK_EX, tries):
            raise BusyError(
                "flash",
                expected="no other on this computer at the same time",
                found=_holder(descriptor),
                fix="wait until it has ended; `memrt flash HOST --status` shows it",
            )
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, holder.encode()[:_HOLDER_BYTES], 0)
        yield
    finally:
        os.close(descriptor)


def held(path: Path) -> str | None:
    """Who holds the lock; None when nobody does."""
    if not path.is_file():
        return None
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return None if _lock(descriptor, fcntl.LOCK_SH, 1) else _holder(descriptor)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, kind: int, tries: int) -> bool:
    for left in reversed(range(tries)):
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if left:
                time.sleep(_PAUSE_S)
    return False


def _holder(descriptor: int) -> str:
    return os.pread(descriptor, _HOLDER_BYTES, 0).decode("utf-8", "replace") or "another"
