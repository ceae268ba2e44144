"""Makes the helpers beside the tests importable under importlib import mode; skips what needs franky without it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

pytest.importorskip("franky", reason="extra franka")
pytest.importorskip("franky_sim", reason="extra dev")
