"""The capture thread: frames reach the ring, a camera that goes is said once, counted, and comes back."""

import os
import uuid

import msgspec
import pytest
from scripted import CONFIG, Feed, Script, eventually, gone, picture

from memrt.robot_io.cameras import capture
from memrt.robot_io.cameras.capture import CapturedCamera
from memrt.robot_io.cameras.rig import CameraRig
from memrt.robot_io.cameras.source import CameraEnded
from memrt.runtime._core import FrameRing
from memrt.runtime.clock import NS_PER_MS
from memrt.runtime.errors import MemrtError

pytestmark = pytest.mark.real_time


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(capture, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(capture, "LONGEST_PAUSE_S", 0.02)
    monkeypatch.setattr(capture, "SILENT_NS", 50 * NS_PER_MS)


@pytest.fixture
def run():
    cameras = []

    def start(script: Script, config=CONFIG, wait: bool = True):
        said: list[str] = []
        ring = f"memrt-test-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        camera = CapturedCamera("front", config, ring, said.append, script.open)
        cameras.append(camera)
        camera.start()
        if wait:
            camera.wait_first()
        return camera, said

    yield start
    for camera in cameras:
        camera.close()


def test_frames_reach_other_readers_with_their_times(run):
    camera, _ = run(Script([picture(7, 1000), picture(8, 2000)]))
    assert eventually(lambda: camera.counts.frames == 2)
    newest = camera.latest()
    assert (newest.camera, newest.index, newest.t_ns) == ("front", 2, 2000)
    assert (newest.image == 8).all()
    with FrameRing.open(camera.ring) as ring, ring.borrow(not_after_ns=1500) as earlier:
        assert (earlier.index, earlier.t_ns) == (1, 1000)


def test_the_labs_latency_is_taken_off(run):
    config = msgspec.structs.replace(CONFIG, latency_ms=2.0)
    camera, _ = run(Script([picture(1, 5 * NS_PER_MS)]), config)
    assert camera.latest().t_ns == 3 * NS_PER_MS


def test_times_rise_even_when_the_cameras_clock_does_not(run):
    camera, _ = run(Script([picture(1, 1000), picture(2, 400), picture(3, 1000)]))
    assert eventually(lambda: camera.counts.frames == 3)
    assert camera.latest().t_ns == 1002


def test_gaps_in_the_cameras_count_are_lost_frames(run):
    camera, _ = run(Script([picture(3), picture(4), picture(8), picture(9)]))
    assert eventually(lambda: camera.counts.frames == 4)
    assert camera.counts.lost == 3


def test_an_unplugged_camera_is_said_once_and_comes_back(run):
    script = Script([picture(1), gone()], [gone()], [gone()], [picture(1), picture(2)])
    camera, said = run(script)
    assert eventually(lambda: camera.counts.frames == 3)
    assert said == [f"{gone()}. Trying again until it is back", "camera `front` is back"]
    counts = camera.counts
    assert (counts.reconnects, counts.failed_attempts, counts.lost, counts.trouble) == (1, 2, 0, "")
    assert camera.latest().index == 3
    assert script.closed == 3


def test_what_a_vendors_library_raises_is_trouble_like_any_other(run):
    camera, said = run(Script([picture(1), RuntimeError("bad things")], [picture(1)]))
    assert eventually(lambda: camera.counts.reconnects == 1)
    assert "expected its driver to work, found RuntimeError: bad things" in said[0]


def test_a_silent_camera_is_opened_anew(run):
    camera, said = run(Script([picture(1)], [picture(1)]))
    assert eventually(lambda: camera.counts.frames == 2)
    assert "expected a picture, found none for" in said[0]


def test_while_it_is_away_the_trouble_is_known(run):
    camera, said = run(Script([picture(1), gone()]))
    assert eventually(lambda: camera.counts.failed_attempts > 3)
    assert camera.counts.trouble == str(gone())
    assert len(said) == 1


def test_a_camera_that_cannot_be_opened_is_a_refusal_and_no_retry(run):
    script = Script()
    camera, said = run(script, wait=False)
    with pytest.raises(MemrtError, match="plug it in"):
        camera.wait_first()
    assert (script.opened, said) == (1, [])


def test_no_first_picture_is_a_refusal(run):
    script = Script([picture(1)])
    script.go.clear()
    camera, _ = run(script, wait=False)
    with pytest.raises(MemrtError, match="a first picture within"):
        camera.wait_first(0.01)


@pytest.mark.parametrize("repeat", [True, False])
def test_a_recording_ends_or_begins_again(run, repeat):
    config = msgspec.structs.replace(CONFIG, repeat=repeat)
    camera, said = run(Script([picture(1), CameraEnded()], [picture(1), picture(2)]), config)
    if repeat:
        assert eventually(lambda: camera.counts.frames == 3)
    else:
        assert eventually(lambda: camera.counts.ended)
    counts = camera.counts
    assert (counts.frames, counts.ended, counts.reconnects, said) == (3 if repeat else 1, not repeat, 0, [])


def test_frames_that_readers_leave_no_room_for_are_counted(run):
    feed = Feed()
    feed.put(picture(1))
    camera, _ = run(feed)
    with FrameRing.open(camera.ring) as ring:
        held = [ring.borrow()]
        for number in range(2, capture.RING_SLOTS + 1):
            feed.put(picture(number))
            assert eventually(lambda number=number: camera.counts.frames == number)
            held.append(ring.borrow())
        assert camera.counts.unread == 0
        feed.put(picture(capture.RING_SLOTS + 1))
        assert eventually(lambda: camera.counts.unread == 1)
        for frame in held:
            frame.release()


def test_a_rig_opens_all_or_none():
    def open_camera(name, config):
        return Script([picture(1)]).open(name, config) if name == "front" else Script().open(name, config)

    prefix = f"memrt-test-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    with pytest.raises(MemrtError, match="plug it in"):
        CameraRig({"front": CONFIG, "wrist": CONFIG}, prefix, print, open_camera)
    with pytest.raises(RuntimeError):
        FrameRing.open(f"{prefix}-front")
    with CameraRig({"front": CONFIG}, prefix, print, open_camera) as rig:
        assert rig.rings == {"front": f"{prefix}-front"}
        assert rig.counts["front"].frames == 1
