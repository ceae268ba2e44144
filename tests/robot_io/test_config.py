"""Robot YAMLs: the packaged one is valid, and every mistake is named with its way out."""

import msgspec
import numpy as np
import pytest

from memrt.robot_io.config import load_robot
from memrt.runtime._core import SeamLimits
from memrt.runtime.errors import MemrtError
from memrt.runtime.packaged import packaged_names

NODE = "name: x\ndriver: node\nlink: {endpoint: 'tcp://127.0.0.1:5550'}\ncameras:\n  "
ARM = "name: x\ndriver: sim\ncameras: [front]\n"
ONE_JOINT = "arm: {q_min: [-0.3], q_max: [0.3], dq_max: [1], ddq_max: [1], dddq_max: [100]}"


def test_the_packaged_simulator_has_the_promised_deadlines():
    robot = load_robot("sim")
    assert (robot.driver, robot.cameras) == ("sim", ("front", "wrist"))
    assert (robot.link.brake_after_ms, robot.link.fault_after_ms) == (50, 200)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: x\ndriver: sim\ncameras: [front]\nlink: {brake_after: 50}", "did you mean `link.brake_after_ms`"),
        ("name: x\ndriver: simm\ncameras: [front]", "did you mean `sim`"),
        ("name: x\ndriver: arm\ncameras: [front]", "expected one of"),
        ("name: x\ndriver: sim\ncameras: [front]\nlink: {brake_after_ms: 300}", "brake before the session ends"),
        ("name: x\ndriver: sim", "key `cameras`"),
        ("- a list", "a mapping"),
        (NODE + "front: {kind: realsense, serial: '1', widht: 640}", "did you mean `cameras.front.width`"),
        (
            NODE + "front: {kind: realsense}",
            "a device, or the `path` of a recording, found neither",
        ),
        (NODE + "front: {kind: realsense, serial: '1', path: x.db3}", "found both"),
        (NODE + "front: {kind: v4l2}", "add `path`"),
        (NODE + "front: {kind: v4l2, path: /dev/video0, serial: '1'}", "no serial number for this kind"),
        (NODE + "front: {kind: v4l2, path: /dev/video0, repeat: true}", "remove `repeat`"),
        (NODE + "front: {kind: zed, serial: '1'}", "pyzed"),
        (NODE + "front: {kind: replay, path: x, half: left}", "expected a camera of `kind: v4l2`"),
        (NODE + "front: {kind: realsense, serial: 1}", "cameras"),
        (ARM + "arm: {q_min: [-1], q_max: [1], dq_max: [1], ddq_max: [1]}", "add `dddq_max`, a value per joint"),
        (ARM + "arm: {q_min: [-1, -1], q_max: [1]}", "expected 2 values, as `q_min` has, found 1"),
        (ARM + "arm: {q_min: [-1], q_max: [1], dq_max: [0], ddq_max: [1], dddq_max: [1]}", "key `arm.dq_max"),
        (ARM + "arm: {model: fr3, q_min: [-1]}", "remove them, or `model`"),
        (ARM + "arm: {model: fr4}", "key `arm.model`"),
        (ARM + "arm: {model: fr3, joints: [a, b]}", "expected 7 different names"),
        (ARM + ONE_JOINT.replace("100]}", "100], margin: 0.5}"), "twice the margin"),
        (ARM + ONE_JOINT.replace("100]}", "1]}"), "smaller than the distance it needs to turn"),
        (ARM + ONE_JOINT, "add `home`"),
        (ARM + ONE_JOINT + "\nhome: [0, 0]", "expected 1 joint angles [rad], found 2"),
        (ARM + ONE_JOINT + "\nhome: [0.4]", "expected joint 1 between -0.28 and 0.28, found 0.4"),
        (ARM + "gripper: {kind: robotiq}", "add `path: /dev/serial/by-id/...`"),
        (ARM + "gripper: {kind: franka_hand, path: x}", "key `gripper.path`"),
        ("name: x\ndriver: node\ncameras: [front]", "key `link.endpoint`"),
        (ARM + "cameras_at: run", "expected `run` only with settings for every camera"),
        (ARM + "cameras_at: robot", "key `cameras_at`"),
        ("name: x\ndriver: sim\ncameras: [front, wrist]\nalign_to: base", "expected one of front, wrist"),
    ],
)
def test_a_mistake_is_one_line_that_says_what_to_do(tmp_path, text, words):
    path = tmp_path / "robot.yaml"
    path.write_text(text)
    with pytest.raises(MemrtError) as refusal:
        load_robot(path)
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", packaged_names("robots"))
def test_every_packaged_robot_is_valid(name):
    robot = load_robot(name)
    assert robot.name == name
    assert robot.arm.limits().dq_max.shape == (7,)


def test_droids_robot_is_slower_than_an_fr3():
    robot = load_robot("droid")
    assert (robot.arm.limits().dq_max < SeamLimits.fr3().dq_max).all()
    assert {camera.half for camera in robot.cameras.values()} == {"left"}


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(MemrtError, match="did you mean `sim`"):
        load_robot("simm")


def test_cameras_of_a_node_have_settings_by_the_name_policies_use(tmp_path):
    path = tmp_path / "robot.yaml"
    path.write_text(
        NODE
        + "front: {kind: realsense, serial: '0123'}\n  wrist: {kind: v4l2, path: /dev/video0, fps: 60, latency_ms: 12}"
    )
    cameras = load_robot(path).cameras
    assert (cameras["front"].serial, cameras["front"].width, cameras["front"].fps) == ("0123", 640, 30)
    assert (cameras["wrist"].path, cameras["wrist"].fps, cameras["wrist"].latency_ms) == ("/dev/video0", 60, 12.0)


def test_the_joints_that_a_smaller_arm_lacks_stay_at_zero(tmp_path):
    path = tmp_path / "robot.yaml"
    path.write_text(ARM + ONE_JOINT + "\nhome: [0.1]\n")
    arm = load_robot(path).arm
    limits = arm.limits()
    assert (limits.q_min[0], limits.q_max[0]) == pytest.approx((-0.28, 0.28))
    assert (limits.dq_max[0], limits.ddq_max[0]) == (1, 1)
    assert np.abs([limits.q_min[1:], limits.q_max[1:]]).max() <= 1e-4
    assert arm.proprioception(np.array([0.1]), 0.5).tolist() == [0.1, 0, 0, 0, 0, 0, 0, 0.5]


def test_the_fr3_is_the_arm_of_a_robot_that_says_nothing_else(tmp_path):
    path = tmp_path / "robot.yaml"
    path.write_text(ARM)
    robot = load_robot(path)
    assert (robot.arm.limits().dq_max == SeamLimits.fr3().dq_max).all()
    assert robot.home_pose == pytest.approx((0, -np.pi / 4, 0, -3 * np.pi / 4, 0, np.pi / 2, np.pi / 4))


def test_a_drivers_own_settings_are_checked_by_the_driver(tmp_path):
    class Settings(msgspec.Struct, forbid_unknown_fields=True):
        rate_hz: float = 100.0

    path = tmp_path / "robot.yaml"
    path.write_text(ARM + "settings: {rate_hz: 50}")
    assert load_robot(path).driver_settings(Settings).rate_hz == 50
    path.write_text(ARM + "settings: {rate: 50}")
    with pytest.raises(MemrtError, match="did you mean `rate_hz`"):
        load_robot(path).driver_settings(Settings)
