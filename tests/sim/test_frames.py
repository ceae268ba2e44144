"""Pictures on disk: exact, joined in order, refused when damaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from memrt.runtime.errors import MemrtError
from memrt.sim.frames import Frames, join_frames, open_frames, write_frames

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 6, 4, 3), dtype=np.uint8)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    write_frames(tmp_path / "front.frames", IMAGES)
    return tmp_path


def test_pictures_are_read_as_an_array_is(written: Path) -> None:
    frames = Frames.open(written / "front.frames")
    assert frames.shape == IMAGES.shape
    np.testing.assert_array_equal(frames[-1], IMAGES[-1])
    np.testing.assert_array_equal(frames[np.array([3, 0, 3])], IMAGES[[3, 0, 3]])
    np.testing.assert_array_equal(np.asarray(frames[1:4]), IMAGES[1:4])
    np.testing.assert_array_equal(frames[1:][1:][0], IMAGES[2])
    np.testing.assert_array_equal(frames[::2], IMAGES[::2])
    assert len(frames[:99]) == 5
    assert len(frames[4:2]) == 0
    with pytest.raises(IndexError):
        frames[5]


def test_joined_files_follow_each_other_while_the_old_one_is_read(written: Path) -> None:
    path = written / "front.frames"
    write_frames(written / "none.frames", IMAGES[:0])
    before = Frames.open(path)
    join_frames(path, [path, written / "none.frames", path])
    np.testing.assert_array_equal(np.asarray(Frames.open(path)), np.concatenate([IMAGES, IMAGES]))
    np.testing.assert_array_equal(np.asarray(before), IMAGES)


def test_an_array_will_do_and_damage_is_refused(written: Path) -> None:
    np.save(written / "wrist.npy", IMAGES)
    np.testing.assert_array_equal(open_frames(written, "wrist"), open_frames(written, "front"))
    (written / "wrist.npy").write_bytes(b"\x93NUMPY cut")
    (written / "front.frames").write_bytes((written / "front.frames").read_bytes()[:-9])
    for name in ("wrist", "front", "top"):
        with pytest.raises(MemrtError, match=name):
            open_frames(written, name)
