"""Makes the recorded runs of the report's tests, and what they are made of, importable."""

from __future__ import annotations

import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(Path(__file__).parent), *(str(TESTS / name) for name in ("report", "loop", "keyframes"))]
