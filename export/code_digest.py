"""What engines depend on beside weights and settings: the code that makes them.

Whoever keeps an engine to use it again later must make it anew once this has changed.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

# The code that decides what an engine computes: a figure must not be of an engine that the present code would not make.
FILES = ("*.py", "streaming/*.py", "quantisers/*.py", "checkpoints/*.py", "bench/*.py")


@lru_cache(maxsize=1)
def code_digest() -> str:
    """SHA-256 over the source files that engines depend on."""
    root = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted({path for pattern in FILES for path in root.glob(pattern)}):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
