"""A folder as a camera, up to `memrt cameras` and a robot node of one's own."""

import json
import os
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scripted import all_pictures, eventually
from typer.testing import CliRunner

from memrt.robot_io.cameras.replay import TIMESTAMPS, ReplaySource
from memrt.robot_io.cameras.rig import CameraRig
from memrt.robot_io.cameras.settings import CameraConfig
from memrt.robot_io.config import load_robot
from memrt.robot_io.link.client import LinkRobot
from memrt.robot_io.link.node import RobotNode
from memrt.robot_io.link.session import Watchdog
from memrt.runtime.cli import build_app
from memrt.runtime.cli.robot_start import start_robot
from memrt.runtime.clock import NS_PER_S
from memrt.runtime.errors import MemrtError

pytestmark = pytest.mark.real_time

MS = 1_000_000


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "pictures"
    path.mkdir()
    for index in range(4):
        Image.fromarray(np.full((6, 8, 3), index, np.uint8)).save(path / f"{index:03}.png")
    return path


def config(folder, **changes) -> CameraConfig:
    return CameraConfig(**{"kind": "replay", "path": str(folder), "width": 8, "height": 6, "fps": 100, **changes})


def played(folder) -> list[tuple[int, int, int]]:
    found = []
    for picture in all_pictures(ReplaySource("front", config(folder))):
        assert picture.t_ns <= time.monotonic_ns()
        found.append((picture.number, picture.t_ns, int(picture.image[0, 0, 0])))
    return found


def test_images_come_in_order_at_the_configured_rate(folder):
    found = played(folder)
    assert [(number, value) for number, _, value in found] == [(1, 0), (2, 1), (3, 2), (4, 3)]
    assert np.diff([t for _, t, _ in found]).tolist() == [10 * MS] * 3


def test_images_come_at_their_own_times(folder):
    (folder / TIMESTAMPS).write_text("\n".join(str(10**18 + t * MS) for t in (0, 5, 30, 31)))
    assert np.diff([t for _, t, _ in played(folder)]).tolist() == [5 * MS, 25 * MS, 1 * MS]


def test_nothing_comes_before_its_time(folder):
    (folder / TIMESTAMPS).write_text(f"0 {10**12} {2 * 10**12} {3 * 10**12}")
    source = ReplaySource("front", config(folder))
    assert source.read(0.01) is not None
    assert source.read(0.01) is None


@pytest.mark.parametrize(
    ("stamps", "words"),
    [("0 1 2", "3 for 4 images"), ("0 1 1 2", "do not rise"), ("0 1 x 3", "invalid literal")],
)
def test_time_stamps_that_do_not_fit_are_refused(folder, stamps, words):
    (folder / TIMESTAMPS).write_text(stamps)
    with pytest.raises(MemrtError, match=words):
        ReplaySource("front", config(folder))


def test_other_mistakes_are_one_line_each(folder, tmp_path):
    with pytest.raises(MemrtError, match="found no folder"):
        ReplaySource("front", config(tmp_path / "none"))
    with pytest.raises(MemrtError, match="without any"):
        ReplaySource("front", config(tmp_path))
    with pytest.raises(MemrtError, match="expected pictures of 9x6, found 8x6"):
        ReplaySource("front", config(folder, width=9)).read(1.0)
    (folder / "000.png").write_bytes(b"no image")
    with pytest.raises(MemrtError, match="expected an image"):
        ReplaySource("front", config(folder)).read(1.0)


@pytest.fixture
def robot(folder, tmp_path):
    camera = f"{{kind: replay, path: {folder}, width: 8, height: 6, fps: 50, repeat: true}}"
    path = tmp_path / "robot.yaml"
    path.write_text(
        f"name: mine\ndriver: node\ncameras:\n  front: {camera}\n  wrist: {camera}\n"
        f"link: {{endpoint: 'ipc://{tmp_path}/robot'}}\n"
    )
    return path


def run(*arguments: object):
    return CliRunner().invoke(build_app(), ["cameras", *map(str, arguments)])


def test_check_reports_every_camera_in_one_object(robot):
    result = run("check", robot, "--seconds", "0.5", "--json")
    report = json.loads(result.stdout)
    assert set(report["cameras"]) == {"front", "wrist"}
    for camera in report["cameras"].values():
        assert camera["frames"] >= 2
        assert camera["age_ms"][1] >= camera["age_ms"][0] >= 0
        assert camera["lost"] == camera["reconnects"] == 0
    assert report["cameras"]["front"]["skew_ms"] == [0, 0]
    assert report["cameras"]["wrist"]["skew_ms"] is not None
    assert report["ok"] == (not any(camera["problems"] for camera in report["cameras"].values()))
    assert result.exit_code == (0 if report["ok"] else 1)


def test_check_fails_when_a_camera_is_slower_than_configured(robot, folder):
    (folder / TIMESTAMPS).write_text(" ".join(str(t * 60 * MS) for t in range(4)))  # 17 Hz instead of 50
    result = run("check", robot, "--seconds", "0.5", "--json")
    assert result.exit_code == 1
    assert "frames/s instead of 50" in json.loads(result.stdout)["cameras"]["wrist"]["problems"][0]


def test_show_saves_a_picture(robot, tmp_path):
    result = run("show", "wrist", "--robot", robot, "--seconds", "0.2", "--save", tmp_path / "wrist.png")
    assert "wrist" in result.output
    with Image.open(tmp_path / "wrist.png") as saved:
        assert saved.size == (8, 6)


def test_commands_refuse_what_they_cannot_open(robot, folder):
    assert "expected one of front, wrist" in str(run("show", "left", "--robot", robot).exception)
    assert "names only" in str(run("check", "sim").exception)
    (folder / "000.png").write_bytes(b"no image")
    assert "expected an image" in str(run("check", robot).exception)


def test_list_names_both_kinds():
    result = run("list", "--json")
    assert result.exit_code == 0
    assert set(json.loads(result.stdout)) == {"realsense", "v4l2"}


class Still:
    """An arm that holds still, with real cameras. Its joints tell the time, so that interpolation shows."""

    name, goal, fault, outcome = "still", "hold still", "", ("running", "")

    def __init__(self, rings):
        self.rings = rings

    def proprioception(self):
        now_ns = time.monotonic_ns()
        return now_ns, np.full(8, now_ns / NS_PER_S)

    def push(self, actions, t0_ns, dt_ns, revision):
        return "holds still"

    def follow(self):
        pass

    brake = go_home = follow

    def at_rest(self):
        return True

    def remaining_ns(self):
        return 0

    def report(self):
        return {}, {}


@pytest.fixture
def served(robot):
    """The robot's YAML, its cameras captured and announced by a node."""
    settings = load_robot(robot)
    with CameraRig(settings.cameras, f"memrt-test-{time.monotonic_ns()}", print) as rig:
        node = RobotNode(Still(rig.rings), settings.link.endpoint, Watchdog(20_000 * MS, 40_000 * MS))
        thread = threading.Thread(target=node.serve)
        thread.start()
        yield settings
        node.shutdown.set()
        thread.join()


@pytest.mark.parametrize("align_to", [None, "front"])
def test_a_node_of_ones_own_gives_a_client_these_cameras(served, align_to):
    """The rig's rings, announced by a node, arrive in the observations of a run's robot."""
    client = LinkRobot(served.link.endpoint, align_to=align_to)
    try:
        first = client.observe().frames
        assert set(first) == {"front", "wrist"}
        assert eventually(lambda: client.observe().frames["wrist"].index > first["wrist"].index)
        observation = client.observe()
        assert observation.frames["wrist"].image.shape == (6, 8, 3)
        times = {name: frame.t_ns for name, frame in observation.frames.items()}
        assert observation.t_ns == (times[align_to] if align_to else min(times.values()))

        def state_is_of_the_frames_time():  # not at once: the frame may be newer than the newest state
            seen = client.observe()
            return abs(seen.proprioception[0] - seen.t_ns / NS_PER_S) < 1e-3

        assert eventually(state_is_of_the_frames_time)
    finally:
        client.close()


def test_a_camera_that_the_node_does_not_have_cannot_be_now(served):
    with pytest.raises(MemrtError, match="`align_to`: expected one of the robot's cameras: front, wrist, found `left`"):
        LinkRobot(served.link.endpoint, align_to="left")


def test_a_run_opens_the_cameras_that_are_attached_to_its_own_computer(robot):
    robot.write_text(robot.read_text() + "cameras_at: run\n")
    settings = load_robot(robot)
    node = RobotNode(Still({}), settings.link.endpoint, Watchdog(20_000 * MS, 40_000 * MS))
    thread = threading.Thread(target=node.serve)
    thread.start()
    own = f"memrt-{os.getpid()}-*"
    others = set(Path("/dev/shm").glob(own))  # of tests that ran in this process before
    try:
        with ExitStack() as stack:
            connect = start_robot(settings, str(robot), task="", seed=0, speed=1.0, host=None, tell=print, stack=stack)
            client = connect()
            assert set(client.observe().frames) == {"front", "wrist"}
            rings = set(Path("/dev/shm").glob(own)) - others
            assert {"front", "wrist"} <= {ring.name.rpartition("-")[2] for ring in rings}
        assert not any(ring.exists() for ring in rings)
    finally:
        node.shutdown.set()
        thread.join()
