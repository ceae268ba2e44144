"""Makes the helpers beside the tests importable under importlib import mode; skips what needs franky without it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

pytest.importorskip("franky", reason="extra franka")
pytest.importorskip("franky_sim", reason="extra dev")


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    """What a robot's computer must not do, one that runs other tests may; two tests are about it and set it back."""
    from memrt.robot_io.franka import driver, forwarding
    from memrt.runtime.clock import NS_PER_S

    monkeypatch.setattr(driver, "SILENT_NS", 5 * NS_PER_S)
    monkeypatch.setattr(forwarding, "GIVE_UP_NS", 5 * NS_PER_S)
