"""What is kept on the robot's computer, and what is not."""

from pathlib import Path

import pytest

from memrt.runtime.deploy.target.layout import Layout
from memrt.runtime.deploy.target.prune import INSTALLED, prune_bundles, prune_runtimes, prune_staging
from memrt.runtime.errors import MemrtError


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path / "root", tmp_path / "opt", tmp_path / "etc")
    layout.make()
    return layout


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_bundles_that_no_rollback_needs_go_with_their_engines(layout):
    for version in (1, 2):
        folder = layout.bundles / f"am-{version}-0123456789ab"
        (folder / "ll").mkdir(parents=True)
        (folder / "manifest.json").touch()
        (layout.bundles / f"{folder.name}.engines").mkdir()
    assert layout.installed() == ["am-1-0123456789ab", "am-2-0123456789ab"]
    prune_bundles(layout, {"am-2-0123456789ab"})
    assert names(layout.bundles) == ["am-2-0123456789ab", "am-2-0123456789ab.engines"]
    assert names(layout.staging) == []


def test_one_transfer_is_kept(layout):
    for digest in ("a", "b"):
        (layout.staging / digest / "ll").mkdir(parents=True)
    prune_staging(layout, "b")
    assert names(layout.staging) == ["b"]


def test_runtimes_go_unless_they_are_needed_or_not_ours(layout):
    for version in ("1", "2", "by-hand"):
        (layout.runtimes / version).mkdir(parents=True)
        if version != "by-hand":
            (layout.runtimes / version / INSTALLED).touch()
    layout.runtime.symlink_to("2")
    prune_runtimes(layout, {"2", None})
    assert names(layout.runtimes) == ["2", "by-hand", "current"]


def test_folders_can_be_moved_by_the_environment():
    moved = Layout.here({"MEMRT_ROOT": "/data/memrt", "MEMRT_RUNTIMES": "", "HOME": "/root"})
    assert moved == Layout(root=Path("/data/memrt"))


@pytest.mark.parametrize("name", ["../../etc", "current", "am-1", "am-1-0123456789ab\n", ""])
def test_only_names_of_bundles_reach_the_disk(layout, name):
    with pytest.raises(MemrtError, match="installed bundle"):
        layout.bundle(name)
