"""A small bundle, signed by a key of the tests' own."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from memrt.runtime.signing import PrivateKey, generate_key, sign_bundle

sys.path.insert(0, str(Path(__file__).parent))  # the helpers beside the tests, under importlib import mode

from small_bundle import make_bundle


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> PrivateKey:
    return generate_key(tmp_path_factory.mktemp("keys") / "lab")


@pytest.fixture
def signed(tmp_path: Path, key: PrivateKey) -> Path:
    folder = make_bundle(tmp_path / "bundle")
    sign_bundle(folder, key, version=7)
    return folder
