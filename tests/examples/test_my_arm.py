"""A robot of one's own: the example is installed as a user would, found by its entry point, served and driven."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from memrt.robot_io.config import load_robot
from memrt.robot_io.drivers import DriverOptions, driver_names, find_driver
from memrt.robot_io.link.client import LinkRobot
from memrt.robot_io.process import NodeProcess
from memrt.runtime.cli.default_bundle import find_bundle
from memrt.runtime.errors import MemrtError
from memrt.runtime.types import ActionChunk

EXAMPLE = Path(__file__).parents[2] / "examples" / "my_arm"
MEMRT = [sys.executable, "-c", "from memrt.runtime.cli import main; main()"]
HOME = [0.0, -1.2, 1.4, 0.0, 1.0, 0.0]


def eventually(condition, seconds: float = 60.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """What pip makes of the example, without the network."""
    site = tmp_path_factory.mktemp("site")
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "my_arm.py"):  # setuptools would leave a build folder beside them
        (source / name).write_bytes((EXAMPLE / name).read_bytes())
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--target", str(site)]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(source)], check=True)
    return site


@pytest.fixture
def installed(site, monkeypatch):
    monkeypatch.syspath_prepend(site)  # for this process
    monkeypatch.setenv("PYTHONPATH", str(site))  # and for the node


@pytest.fixture
def patient(tmp_path) -> Path:
    """The example's YAML with generous deadlines of silence: a busy test machine must not look like a dead client."""
    path = tmp_path / "my_arm.yaml"
    text = (EXAMPLE / "my_arm.yaml").read_text().replace("pictures/", f"{EXAMPLE}/pictures/")
    path.write_text(f"{text}\nlink: {{ brake_after_ms: 20000, fault_after_ms: 40000 }}\n")
    return path


def test_the_driver_is_found_once_it_is_installed(site, monkeypatch):
    with pytest.raises(MemrtError, match=r"unknown driver `my_arm`.*install the package that registers it"):
        load_robot(EXAMPLE / "my_arm.yaml")
    monkeypatch.syspath_prepend(site)
    assert "my_arm" in driver_names()
    robot = load_robot(EXAMPLE / "my_arm.yaml")
    assert (robot.arm.count, robot.home_pose) == (6, tuple(HOME))
    assert Path(robot.cameras["front"].path) == EXAMPLE / "pictures" / "front"


@pytest.mark.real_time
def test_no_command_exceeds_the_limits_of_the_yaml(installed):
    robot = load_robot(EXAMPLE / "my_arm.yaml")
    with find_driver("my_arm", "the test")(robot, DriverOptions(speed=0.5)) as driver:
        driver.follow()
        target = np.array([*HOME, 0.0, 1.0])
        target[0] = 0.8
        driver.push(np.tile(target, (20, 1)), time.monotonic_ns(), 100_000_000, 1)
        speeds = []

        def arrived() -> bool:
            speeds.append(np.abs(driver.control.command()[1]))
            return abs(driver.proprioception()[1][0] - 0.8) < 0.01

        assert eventually(arrived)
        assert 0.3 < np.max(speeds) <= 0.5 * max(robot.arm.dq_max)
        assert np.max(np.array(speeds)[:, 0]) <= 0.5 * robot.arm.dq_max[0]
        assert np.array(speeds)[:, 6].max() == pytest.approx(0.0, abs=1e-3)  # a joint that the arm lacks


@pytest.mark.real_time
def test_the_node_serves_it_and_home_is_where_the_yaml_says(installed, patient):
    node = NodeProcess(str(patient))
    try:
        robot = LinkRobot(node.endpoint, alive=node.alive, connect_ms=60_000)
        try:
            before = robot.observe()
            assert {name: frame.image.shape for name, frame in before.frames.items()} == {
                "front": (256, 256, 3),
                "wrist": (256, 256, 3),
            }
            assert before.proprioception.tolist() == [*HOME, 0.0, 1.0]
            robot.arm()
            target = np.array([*HOME, 0.0, 0.2])
            target[2] = -0.2  # the elbow's range ends at -0.1, and 0.02 before that for commands
            robot.send(ActionChunk(np.tile(target, (40, 1)), time.monotonic_ns(), 100_000_000, 1))
            assert eventually(lambda: robot.observe().proprioception[2] == pytest.approx(-0.08, abs=1e-3))
            assert robot.observe().proprioception[7] == pytest.approx(0.2, abs=1e-3)
            robot.stop()
            robot.home()
            assert eventually(lambda: np.allclose(robot.observe().proprioception, [*HOME, 0.0, 1.0], atol=1e-3))
        finally:
            robot.close()
    finally:
        node.close()


@pytest.mark.real_time
def test_what_happens_to_a_camera_is_told_to_the_one_who_started_the_node(installed, patient, tmp_path):
    shutil.copytree(EXAMPLE / "pictures", tmp_path / "pictures")
    patient.write_text(patient.read_text().replace(str(EXAMPLE), str(tmp_path)))
    told: list[str] = []
    node = NodeProcess(str(patient), tell=told.append)
    try:
        LinkRobot(node.endpoint, alive=node.alive, connect_ms=60_000).close()
        (tmp_path / "pictures" / "front").rename(tmp_path / "pictures" / "away")
        assert eventually(lambda: told)
        assert told[0].startswith("camera `front`: expected")
        (tmp_path / "pictures" / "away").rename(tmp_path / "pictures" / "front")
        assert eventually(lambda: told[-1] == "camera `front` is back")
    finally:
        node.close()


def test_a_policy_drives_it_once_its_engines_are_proven(installed, patient, tmp_path):
    """The reference bundle, through the command line. Whether this computer keeps up is not the question here."""
    bundle, cache = find_bundle(None, "am_grounded", "int8"), str(tmp_path / "cache")
    run = [*MEMRT, "run", "--robot", str(patient), "--goal", "pick up the red cube", "--cache", cache, "--json"]
    for missing, option in (("it is unsigned", "--allow-unsigned"), ("not yet proven on device", None)):
        refused = subprocess.run(run, capture_output=True, text=True, check=False)
        assert refused.returncode == 2
        assert missing in refused.stderr
        if option is not None:
            assert refused.stderr.count("\n") == 1
            run.append(option)
    subprocess.run([*MEMRT, "build", str(bundle), "--cache", cache], check=True, capture_output=True)
    done = subprocess.run([*run, "--duration", "3"], capture_output=True, text=True, check=False, env=os.environ)
    values = json.loads(done.stdout)
    assert values["outcome"] in {"time_over", "held", "fault"}, done.stderr
    assert values["counts"]["chunks"] >= 1
    assert values["robot_values"]["control ticks"] > 0
