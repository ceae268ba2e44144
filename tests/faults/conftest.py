"""Makes the helpers beside the tests, and the arm that the link's tests drive, importable under importlib mode."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "robot_io")]


@pytest.fixture
def chain(tmp_path):
    """Makes chains, and ends them whatever happens."""
    from chain import Chain

    made: list[Chain] = []

    def make(**arguments) -> Chain:
        made.append(Chain(tmp_path / f"chain{len(made)}", **arguments))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def runtimes():
    """Starts runtimes whose arm moves."""
    from runtimes import Runtime

    made: list[Runtime] = []

    def start(endpoint: str) -> Runtime:
        for _ in range(5):
            made.append(Runtime(endpoint))
            if made[-1].follows():
                return made[-1]
            made[-1].close()
        raise AssertionError(f"no runtime came to move the arm: {[one.first for one in made]}")

    yield start
    for one in made:
        one.close()
