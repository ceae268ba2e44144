"""What keeps a robot from starting is one line on stderr and exit status 2, whichever process found it out."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

MAIN = "from memrt.runtime.cli import main; main()"
ARM = "name: lab\ndriver: sim\n"
FRANKA = "name: lab\ndriver: franka\ncameras: []\nsettings: {realtime: ignore}\n"


def refusal(*arguments: object, before: str = "") -> str:
    done = subprocess.run(
        [sys.executable, "-c", before + MAIN, *map(str, arguments)],
        env={**os.environ, "COLUMNS": "1000"},  # a line for each note
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    *notes, line = done.stderr.splitlines()
    about = [note.partition(":")[0] for note in notes]
    if arguments[0] == "run" and notes:  # what a physical robot would be refused for is said to the simulated one
        about.remove("unsigned")
        about.remove("not yet proven on device")
        about = [words for words in about if not words.endswith("has no VNNI")]  # true of some computers
    assert not about, done.stderr
    assert line.startswith("memrt: ")
    assert ": expected " in line
    assert " Fix: " in line
    return line


@pytest.fixture
def yaml(tmp_path):
    def write(text: str) -> Path:
        path = tmp_path / "lab.yaml"
        path.write_text(text)
        return path

    return write


@pytest.mark.parametrize("command", [["node"], ["run", "--robot"]])
def test_an_unknown_driver_lists_the_known_ones(command, yaml):
    line = refusal(*command, yaml("name: lab\ndriver: frankaa\ncameras: []\n"))
    assert "unknown driver `frankaa`" in line
    assert "one of franka, sim" in line
    assert "did you mean `franka`" in line


def test_a_driver_whose_package_is_missing_names_the_extra(yaml):
    line = refusal("node", yaml(FRANKA), before="import sys; sys.modules['franky'] = None; ")
    assert "expected the package franky" in line
    assert "pip install 'memrt[franka]'" in line


def test_a_robot_that_is_not_at_its_address(yaml):
    pytest.importorskip("franky")
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.2", 1337))  # taken, and not listened to
        assert "FR3 at 127.0.0.2: expected libfranka's server on port 1337" in refusal(
            "node", yaml(FRANKA), "--host", "127.0.0.2"
        )


def test_a_port_that_is_taken():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        endpoint = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        line = refusal("node", "sim", "--endpoint", endpoint)
    assert f"the node's endpoint {endpoint}: expected a free address" in line
    assert "in use" in line


def test_an_endpoint_that_is_none():
    assert "ipc:///absolute/path or tcp://host:port" in refusal("node", "sim", "--endpoint", "127.0.0.1:5550")


def test_a_node_that_does_not_run(yaml):
    text = ARM + "cameras: [front, wrist]\nlink: {endpoint: 'ipc:///nowhere/robot', connect_ms: 600}\n"
    line = refusal("run", "--robot", yaml(text))
    assert "no answer from the robot" in line
    assert "check that the robot's node runs" in line


def test_a_camera_that_is_unplugged(yaml):
    pytest.importorskip("cv2")
    line = refusal("node", yaml(ARM + "cameras: {front: {kind: v4l2, path: /dev/v4l/by-id/usb-none}}\n"))
    assert "camera `front`: expected a V4L2 device at /dev/v4l/by-id/usb-none" in line
    assert "memrt cameras list" in line


def test_a_realsense_that_is_unplugged(yaml):
    pytest.importorskip("pyrealsense2")
    line = refusal("node", yaml(ARM + "cameras: {front: {kind: realsense, serial: '000000000001'}}\n"))
    assert "000000000001" in line


def test_a_zed_camera_says_what_to_do_instead(yaml):
    line = refusal("node", yaml(ARM + "cameras: {front: {kind: zed, serial: '12345678'}}\n"))
    assert "Stereolabs" in line
    assert "kind: v4l2" in line


def test_files_that_the_yaml_refers_to_and_that_are_not_there(yaml):
    line = refusal("node", yaml(ARM + "cameras: {front: {kind: replay, path: pictures}}\n"))
    assert f"{yaml('').parent / 'pictures'}" in line


def test_what_the_child_refuses_is_said_by_the_run_whole(yaml):
    pictures = "cameras: {front: {kind: replay, path: x}, wrist: {kind: replay, path: x}}\n"
    line = refusal("run", "--robot", yaml(ARM + pictures))
    assert line.startswith("memrt: camera `front`: expected ")
    assert "serve_node" not in line


def test_hardware_that_the_simulator_does_not_have(yaml):
    text = "name: lab\ndriver: sim\ncameras: [front]\ngripper: {kind: robotiq, path: /dev/serial/by-id/none}\n"
    line = refusal("node", yaml(text))
    assert "no other gripper than `franka_hand`" in line


def test_the_robots_address_is_not_for_a_node_that_runs_already(yaml):
    text = ARM + "cameras: [front, wrist]\nlink: {endpoint: 'ipc:///nowhere/robot'}\n"
    assert "give --host to that node" in refusal("run", "--robot", yaml(text), "--host", "10.0.0.1")
