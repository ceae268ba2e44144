"""Robot YAMLs: the packaged one is valid, and every mistake is named with its way out."""

import pytest

from memrt.robot_io.config import load_robot
from memrt.runtime.errors import MemrtError

NODE = "name: x\nkind: node\nlink: {endpoint: 'tcp://127.0.0.1:5550'}\ncameras:\n  "


def test_the_packaged_simulator_has_the_promised_deadlines():
    robot = load_robot("sim")
    assert (robot.kind, robot.cameras) == ("sim", ("front", "wrist"))
    assert (robot.link.brake_after_ms, robot.link.fault_after_ms) == (50, 200)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: x\nkind: sim\ncameras: [front]\nlink: {brake_after: 50}", "did you mean `link.brake_after_ms`"),
        ("name: x\nkind: arm\ncameras: [front]", "key `kind`"),
        ("name: x\nkind: sim\ncameras: [front]\nlink: {brake_after_ms: 300}", "brake before the session ends"),
        ("name: x\nkind: sim", "key `cameras`"),
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
        (NODE + "front: {kind: zed, serial: '1'}", "cameras"),
        (NODE + "front: {kind: realsense, serial: 1}", "cameras"),
        ("name: x\nkind: sim\ncameras: {front: {kind: realsense, serial: '1'}}", "the simulator draws its own"),
        ("name: x\nkind: node\ncameras: [front]", "key `link.endpoint`"),
        ("name: x\nkind: sim\ncameras: [front, wrist]\nalign_to: base", "expected one of front, wrist"),
    ],
)
def test_a_mistake_is_one_line_that_says_what_to_do(tmp_path, text, words):
    path = tmp_path / "robot.yaml"
    path.write_text(text)
    with pytest.raises(MemrtError) as refusal:
        load_robot(path)
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)


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
