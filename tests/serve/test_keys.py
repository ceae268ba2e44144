"""The mapping between a protocol's keys and a policy's cameras, proprioception and actions, in both directions."""

from pathlib import Path

import msgspec
import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from served import STATE, openpi_request, picture

from memrt.robot_io.serve.keys import KeyMap, load_keys
from memrt.runtime.actions_config import GripperRange
from memrt.runtime.errors import MemrtError
from memrt.runtime.types import ActionSpace, Frame, Observation, Subgoal

CAMERAS = ("front", "wrist")
SUBGOAL = Subgoal("lift it <1, 2>", 3, 0)


def observed():
    frames = {name: Frame(name, 0, 5, picture(value)) for name, value in zip(CAMERAS, (10, 20), strict=True)}
    return Observation(5, STATE, frames)


@pytest.mark.parametrize("name", ["openpi", "robomme", "vla-eval"])
def test_what_a_client_sends_a_server_with_the_same_keys_understands(name):
    key_map = KeyMap(load_keys(name), CAMERAS)
    request = key_map.request(observed(), "tidy up", SUBGOAL)
    understood = key_map.observation(request, 5, 0)
    assert np.allclose(understood.proprioception, STATE)
    assert key_map.goal(request) == ("tidy up" if name == "robomme" else SUBGOAL.text)
    assert key_map.subgoal(request, "grounded") == (SUBGOAL.text if name == "robomme" else "")
    for camera in CAMERAS:
        assert understood.frames[camera].t_ns == 5
        assert understood.frames[camera].image[0, 0, 0] == observed().frames[camera].image[0, 0, 0]


def test_pictures_are_sent_in_the_size_that_the_mapping_says():
    request = KeyMap(load_keys("openpi"), CAMERAS).request(observed(), "", SUBGOAL)
    assert request["observation/exterior_image_1_left"].shape == (224, 224, 3)
    assert set(request) == set(openpi_request())


@given(st.floats(-2, 2), st.floats(-2, 2), st.floats(0, 1))
def test_a_gripper_keeps_its_opening_in_every_unit(closed, open_, opening):
    if abs(closed - open_) < 1e-3:
        return
    gripper = GripperRange(closed=closed, open=open_)
    assert abs(gripper.opening(gripper.theirs(np.array([opening])))[0] - opening) < 1e-9


def test_our_own_gripper_units_change_no_bit():
    values = np.random.default_rng(0).random(1000)
    assert np.array_equal(GripperRange().theirs(values), values)
    assert np.array_equal(GripperRange().opening(values), values)


def test_longer_actions_and_other_gripper_units_become_ours():
    key_map = KeyMap(load_keys("openpi"), CAMERAS)
    actions = np.arange(20.0).reshape(2, 10) / 100
    ours = key_map.ours(actions, STATE)
    assert ours.shape == (2, 8)
    assert np.allclose(ours[:, 7], 1.0 - actions[:, 7])
    assert np.allclose(key_map.theirs(ours, STATE), actions[:, :8])


def test_droids_velocities_become_radians_per_second_and_back():
    key_map = KeyMap(load_keys("openpi-droid"), CAMERAS)
    actions = np.tile([0.1, -0.2, 0.5, 1.5, -1.5, 0.0, 1.0, 0.25], (15, 1))
    ours = key_map.ours(actions, STATE)
    assert key_map.space is ActionSpace.JOINT_VELOCITY
    assert np.allclose(ours[0], [0.3, -0.6, 1.5, 3.0, -3.0, 0.0, 3.0, 0.75])  # 1 is 0.2 rad in 1/15 s
    assert np.allclose(key_map.theirs(ours, STATE), actions.clip(-1.0, 1.0))


def test_robommes_gripper_is_not_cut_in_half():
    """ManiSkill's command is -1 to 1, its measured finger 0 to 4 cm."""
    for name in ("robomme", "vla-eval"):
        key_map = KeyMap(load_keys(name), CAMERAS)
        commands = np.zeros((3, 8))
        commands[:, 7] = -1.0, 0.0, 1.0
        ours = key_map.ours(commands, STATE)
        assert ours[:, 7].tolist() == [0.0, 0.5, 1.0]
        assert key_map.theirs(ours, STATE)[:, 7].tolist() == [-1.0, 0.0, 1.0]
        assert np.allclose(key_map.request(observed(), "", SUBGOAL)[key_map.keys.joints][7], 0.04 * STATE[7])


def test_a_camera_without_a_key_is_refused():
    with pytest.raises(MemrtError, match=r"a key for each camera of the policy: front, left.*none for left.*--keys"):
        KeyMap(load_keys("openpi"), ("front", "left"))


def test_an_unknown_name_is_told_the_known_ones():
    with pytest.raises(MemrtError, match=r"one of openpi, openpi-droid, robomme, vla-eval.*did you mean `robomme`"):
        load_keys("robome")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"camera": {}}, "unknown key `camera`"),
        ({"protocol": "pickle"}, "protocol"),
        ({"prompt": "{state}"}, "at most {goal} and {subgoal}"),
        ({"actions": {"gripper": {"closed": 1, "open": 1}}}, "another value than `closed`"),
        ({"actions": {"space": "torque"}}, "actions.space"),
        ({"actions": {"scale": 3.0}}, "none for joint positions and absolute poses"),
        ({"gripper": {"key": "g", "index": -1}}, "gripper.index"),
        ({"steps_per_request": 0}, "steps_per_request"),
        ({"joints": 3}, "joints"),
    ],
)
def test_a_wrong_mapping_is_refused_with_the_path_of_its_key(tmp_path: Path, change, told):
    keys = msgspec.to_builtins(load_keys("robomme"))
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(keys | change))
    with pytest.raises(MemrtError) as refused:
        load_keys(file)
    assert told in str(refused.value)
    assert "Fix:" in str(refused.value)
    file.write_text(yaml.safe_dump(keys))
    assert load_keys(file) == load_keys("robomme")
