from __future__ import annotations

from pathlib import Path

import pytest

from memrt.export.checkpoints.disk import check_disk
from memrt.runtime.errors import MemrtError


def test_refuses_when_the_disk_is_too_small(tmp_path: Path) -> None:
    check_disk(tmp_path / "not" / "there" / "yet", 1)
    with pytest.raises(MemrtError, match=r"too little disk for .*: expected 1000000000000.0 GB free"):
        check_disk(tmp_path / "not" / "there" / "yet", 10**21)
