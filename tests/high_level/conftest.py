"""One export of the tiny model for all tests: exporting takes longer than everything else together."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

CAPACITY = 448


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import tiny_qwen

    return tiny_qwen.write_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Path:
    """A bundle's `hl` folder."""
    from memrt.export.vlm_graphs import export_vlm

    folder = tmp_path_factory.mktemp("exported") / "hl"
    export_vlm(checkpoint, None, folder, capacity=CAPACITY, image_sizes=[(256, 256)])
    return folder
