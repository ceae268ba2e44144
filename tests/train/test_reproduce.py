"""Reproducing the reference policies: what is refused before hours are spent."""

import pytest

from memrt.runtime.errors import MemrtError
from memrt.train.reproduce import STAGES, train_reference


def test_an_unknown_stage_is_refused_with_the_known_ones(tmp_path):
    with pytest.raises(MemrtError, match=", ".join(STAGES)):
        train_reference(root=tmp_path / "run", stages=["highlevel"])


def test_an_earlier_run_is_only_continued_when_asked(tmp_path):
    (tmp_path / "data").mkdir()
    with pytest.raises(MemrtError, match="--resume"):
        train_reference(root=tmp_path, stages=["record"])
