"""Makes the helpers beside the tests, and those for fuzzing, importable under importlib import mode."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "fuzzing")]
