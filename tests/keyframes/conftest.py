"""Makes the helpers beside these tests, and those of the loop's, importable under importlib import mode."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent / "loop")]
