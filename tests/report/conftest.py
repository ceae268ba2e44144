"""Two recorded runs and one browser for all tests of the run's page; the arm and the VLM are those of other tests."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(Path(__file__).parent), *(str(TESTS / name) for name in ("recording", "loop", "keyframes"))]

from browser import Browser, find_browser  # noqa: E402
from reported_runs import record_keyframes, record_texts  # noqa: E402


@pytest.fixture(scope="session")
def texts_run(tmp_path_factory) -> Path:
    """A run with an action memory, a spatial memory and grounded subgoals; some of it is hostile."""
    return record_texts(tmp_path_factory.mktemp("texts") / "run.mcap")


@pytest.fixture(scope="session")
def keyframes_run(tmp_path_factory) -> Path:
    """A run with a keyframe memory that gives frames up."""
    return record_keyframes(tmp_path_factory.mktemp("keyframes") / "run.mcap")


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    program = find_browser()
    if program is None:
        pytest.skip("no Chromium: `make browser` installs Debian's chromium-headless-shell; Ubuntu has no such package")
    with Browser(program, tmp_path_factory.mktemp("browser")) as opened:
        yield opened
