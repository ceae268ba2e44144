"""Robot YAMLs: the packaged one is valid, and every mistake is named with its way out."""

import pytest

from memrt.robot_io.config import load_robot
from memrt.runtime.errors import MemrtError


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
