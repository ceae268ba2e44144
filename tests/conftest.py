"""Settings for all tests, which run on busy computers: hypothesis never times its examples, and draws the same ones
each run; a node that says nothing for a while is not taken for dead. `real_time/stalls.py` has the rest.
"""

import sys
from pathlib import Path

import pytest
from hypothesis import settings

from memrt.robot_io.link import client
from memrt.runtime.clock import NS_PER_S

sys.path.insert(0, str(Path(__file__).parent / "real_time"))
pytest_plugins = ["stalls", "pytester"]

settings.register_profile("memrt", deadline=None, derandomize=True)
settings.load_profile("memrt")


@pytest.fixture(autouse=True)
def patient_link(monkeypatch):
    monkeypatch.setattr(client, "STATE_LOST_NS", 20 * NS_PER_S)
    monkeypatch.setattr(client, "CONNECT_MS", 60_000)
