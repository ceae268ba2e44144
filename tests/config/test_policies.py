from pathlib import Path

import msgspec
import pytest
import yaml

from memrt.runtime.config import (
    PolicyConfig,
    load_policy,
    policy_from_dict,
    policy_names,
    policy_to_dict,
    resolve_weights,
)
from memrt.runtime.errors import MemrtError
from memrt.runtime.types import ActionSpace


def values(name: str = "am_grounded") -> dict:
    return policy_to_dict(load_policy(name))


def with_change(key: str, value: object) -> dict:
    data = values()
    del data["memory"]["change_of_mind"]  # which other kinds of memory do not have
    *parents, last = key.split(".")
    part = data
    for parent in parents:
        part = part[parent]
    part[last] = value
    return data


def refusal(data: dict) -> str:
    with pytest.raises(MemrtError) as caught:
        policy_from_dict(data, "policy.yaml")
    assert "policy.yaml" in str(caught.value)
    return str(caught.value)


# The policies trained here; the others name weights that a lab brings.
ADAPTED = (
    "am_grounded",
    "am_simple",
    "am_sm_grounded",
    "am_sm_simple",
    "language_memory",
    "memer",
    "memoryless",
    "subgoal_grounded",
    "subgoal_simple",
)
REFERENCE = (*ADAPTED, "flat", "oracle_grounded", "oracle_simple")


def test_packaged_policies_load_and_survive_the_manifest():
    assert policy_names() == sorted([*REFERENCE, "libero", "memer_droid", "remote", "robomme_am_grounded"])
    for name in policy_names():
        policy = load_policy(name)
        assert policy.name == name
        assert policy_from_dict(msgspec.json.decode(msgspec.json.encode(policy_to_dict(policy)))) == policy


def test_reference_settings():
    """The reference's rates and formats; whoever changes them must retrain."""
    policy = load_policy("am_grounded")
    assert (policy.high_level.image_size, policy.high_level.every_steps, policy.high_level.max_new_tokens) == (
        256,
        16,
        128,
    )
    low_level = policy.low_level
    assert (low_level.horizon, low_level.execute, low_level.denoise_steps, low_level.control_hz) == (16, 8, 10, 20.0)
    assert low_level.delta_mask == (True,) * 7 + (False,)
    assert low_level.prompt == "Task: {subgoal}, State: {state};\nAction: "
    assert policy.memory.initial_memory == "No actions had been completed yet."


def test_policies_differ_only_in_what_is_compared():
    """The comparison is fair: one low level, one VLM that is asked as often and shown frames of one size."""
    policies = [load_policy(name) for name in REFERENCE]
    assert len({policy.low_level for policy in policies}) == 1
    high_levels = [load_policy(name).high_level for name in ADAPTED]
    assert tuple(high_level.adapter for high_level in high_levels) == ADAPTED
    room = {"adapter": None, "context_tokens": 1280, "max_new_tokens": 384}  # a longer text needs more of it
    assert len({msgspec.structs.replace(high_level, **room) for high_level in high_levels}) == 1


def test_policies_written_before_chunking_was_a_setting_load_and_mean_none():
    """Manifests of older bundles lack the keys."""
    data = values()
    for key in ("chunking", "calls", "on_new_subgoal"):
        del data["low_level"][key]
    low_level = policy_from_dict(data).low_level
    assert (low_level.chunking.kind, low_level.calls, low_level.on_new_subgoal) == ("none", "chunked", "finish")
    assert policy_from_dict(data) == load_policy("am_grounded")


def test_bare_name_path_and_string_are_the_same(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(values()))
    assert load_policy(path) == load_policy(str(path)) == load_policy("am_grounded")


@pytest.mark.parametrize(
    ("name", "hint"), [("am_groundet", "did you mean `am_grounded`"), ("xyzzy", "ending in .yaml")]
)
def test_unknown_policy(name, hint):
    with pytest.raises(MemrtError, match=hint) as caught:
        load_policy(name)
    assert ", ".join(policy_names()) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        (None, "No such file"),
        ("", "found a NoneType"),
        ("- a\n", "found a list"),
        ("name: [", "valid YAML"),
        ("name: a\nmemory:\n  kind: none\n  kind: language\n", "`kind`|'kind' is given twice"),
        (b"\xff\xfe", "UTF-8"),
    ],
)
def test_unreadable_file(tmp_path, content, hint):
    path = tmp_path / "policy.yaml"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(MemrtError, match=hint) as caught:
        load_policy(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("low_level.horizont", "did you mean `low_level.horizon`?"),
        ("memory.sytem", "did you mean `memory.system`?"),
        ("low_levle", "did you mean `low_level`?"),
        ("high_level.qwertyuiop", "remove `qwertyuiop`"),
    ],
)
def test_unknown_key_names_its_path_and_the_nearest(key, hint):
    line = refusal(with_change(key, 1))
    assert f"unknown key `{key}`" in line
    assert hint in line
    assert ("low_level" if "." not in key else "weights" if "memory" not in key else "initial_memory") in line


@pytest.mark.parametrize(
    ("key", "value", "parts"),
    [
        ("low_level.horizon", "16", ("low_level.horizon", "int", "'16' (str)")),
        ("low_level.horizon", 16.5, ("low_level.horizon", "int", "16.5 (float)")),
        ("low_level.horizon", True, ("low_level.horizon", "int", "True (bool)")),
        ("low_level.horizon", 0, ("low_level.horizon", ">= 1", "0 (int)")),
        ("low_level.control_hz", -20.0, ("low_level.control_hz", "> 0", "-20.0")),
        ("low_level.cameras", "front", ("low_level.cameras", "array", "'front'")),
        ("low_level.delta_mask", [1] * 8, ("low_level.delta_mask[0]", "bool", "1 (int)")),
        ("low_level", None, ("low_level", "object", "None")),
        ("low_level.chunking.kind", "guide", ("low_level.chunking.kind", "guide")),
        ("low_level.chunking.beta", 0, ("low_level.chunking.beta", "> 0", "0 (int)")),
        ("low_level.chunking.latency_window", 0, ("low_level.chunking.latency_window", ">= 1", "0 (int)")),
        ("low_level.chunking.warm_up_calls", -1, ("low_level.chunking.warm_up_calls", ">= 0", "-1 (int)")),
        ("low_level.calls", "always", ("low_level.calls", "always")),
        ("low_level.on_new_subgoal", "drop", ("low_level.on_new_subgoal", "drop")),
        ("memory.kind", "keyframe", ("memory.kind", "keyframe")),
        ("name", "Has Spaces", ("name", "Has Spaces")),
    ],
)
def test_wrong_value_names_its_path_and_what_was_found(key, value, parts):
    line = refusal(with_change(key, value))
    assert all(part in line for part in parts), line


def test_an_unknown_key_of_a_block_inside_a_block_is_named_with_its_whole_path():
    line = refusal(with_change("low_level.chunking.betta", 1))
    assert "unknown key `low_level.chunking.betta`" in line
    assert "did you mean `low_level.chunking.beta`?" in line


def test_missing_key():
    data = values()
    del data["low_level"]["horizon"]
    assert "`low_level.horizon`" in refusal(data)
    assert "add `low_level.horizon`" in refusal(data)


@pytest.mark.parametrize(
    ("key", "value", "hint"),
    [
        ("low_level.execute", 17, "at most the horizon, 16"),
        ("low_level.cameras", ["front", "front"], "different camera names"),
        ("low_level.cameras", [], "different camera names"),
        ("low_level.delta_mask", [True] * 7, "8 entries"),
        ("low_level.delta_mask", [True] * 14, "14, as of two arms"),
        ("low_level.actions", {"space": "joint_velocity"}, "false throughout with `actions.space: joint_velocity`"),
        ("low_level.actions", {"space": "cartesian_pose"}, "7 entries (3, axis_angle, gripper)"),
        ("low_level.actions", {"scale": 3.0}, "none for joint positions and absolute poses"),
        ("low_level.actions", {"clip": 1.0}, "none for joint positions and absolute poses"),
        ("low_level.actions", {"space": "joint_velocity", "scale": [1.0, 2.0]}, "or 7 of them"),
        ("low_level.actions", {"space": "joint_velocity", "scale": 0.0}, "a factor other than 0"),
        ("low_level.actions", {"relative": True}, "false, except for a `cartesian_pose`"),
        ("low_level.actions", {"gripper": {"closed": 1.0}}, "another value than `closed`"),
        ("low_level.actions", {"space": "torque"}, "low_level.actions.space"),
        ("low_level.actions", {"speed": 1}, "unknown key `low_level.actions.speed`"),
        ("low_level.prompt", "Task: {state}", "`{subgoal}` or `{goal}`"),
        ("low_level.prompt", "Task: {subgoal} {task}", "{goal} {state} {subgoal}"),
        ("low_level.prompt", "Task: {subgoal", "balanced braces"),
        ("low_level.prompt", "Task: {subgoal!r}", "placeholders"),
        ("high_level.weights", "", "add `high_level.weights`"),
        ("high_level.source", "oracle", "remove `weights`"),
        ("memory.kind", "none", "exactly when `high_level.source` is not `vlm`"),
        ("memory.kind", "memoryless", "placeholders"),
        ("memory.user", "{goal} {action_memory}", "exactly one `<image>`"),
        ("memory.user", "{goal} {action_memory} <image><image>", "found 2 of them"),
        ("memory.user", "<image> {goal}", "{action_memory} {goal}"),
        ("memory.user", "<image> {goal} {action_memory} {history}", "alone on its line"),
        ("memory.spatial", True, "{spatial_memory}"),
        ("memory.history", True, None),
        ("memory.commit", "on_success", None),
        ("memory.commit", "at_once", "memory.commit"),
        ("memory.change_of_mind", "at_once", None),
        ("memory.change_of_mind", "never", "memory.change_of_mind"),
        ("memory.user_history", "no placeholder", None),
    ],
)
def test_rules_between_keys(key, value, hint):
    data = with_change(key, value)
    if hint is None:
        assert isinstance(policy_from_dict(data), PolicyConfig)
    else:
        assert hint in refusal(data)
        assert key.split(".")[0] in refusal(data)


def keyframes_with(key: str, value: object) -> dict:
    data = values("memer_droid")
    *parents, last = key.split(".")
    part = data
    for parent in parents:
        part = part[parent]
    part[last] = value
    return data


@pytest.mark.parametrize(
    ("key", "value", "hint"),
    [
        ("memory.keyframes.strid", 5, "did you mean `memory.keyframes.stride`?"),
        ("memory.keyframes.stride", 0, "memory.keyframes.stride"),
        ("memory.keyframes.merge_distance", -1, "memory.keyframes.merge_distance"),
        ("memory.keyframes.jpeg_quality", 101, "memory.keyframes.jpeg_quality"),
        ("memory.keyframes.keep", "png", "memory.keyframes.keep"),
        ("memory.keyframes.median", "mean", "memory.keyframes.median"),
        ("memory.keyframes.raw_rate_hz", 0.0, "memory.keyframes.raw_rate_hz"),
        ("memory.keyframes.lag", 1, "set `align: false`"),
        ("memory.keyframes.views", [], "different camera names"),
        ("memory.keyframes.views", ["wrist", "wrist"], "different camera names"),
        ("memory.keyframes.views", ["wrist"], "high_level.camera"),
        ("memory.keyframes.recent_text", "{number}", "exactly one `<image>`"),
        ("memory.keyframes.keyframe_text", "{n} <image>", "memory.keyframes.keyframe_text"),
        ("memory.keyframes.no_keyframes_text", "<image>", "no `<image>`"),
        ("memory.keyframes", None, "given exactly when `kind: keyframes`"),
        ("memory.kind", "memoryless", "memory.keyframes"),
        ("memory.user", "{goal} {recent}", "{goal} {keyframes} {recent}"),
        ("memory.user", "{goal} {keyframes} {recent} <image>", "bring theirs"),
        ("memory.history", True, "false with `kind: keyframes`"),
        ("memory.on_new_goal", "forget", "memory.on_new_goal"),
        ("high_level.image_size", [361, 320], "share evenly"),
        ("memory.commit", "on_success", "`every_reply` with `kind: keyframes`"),
        ("memory.change_of_mind", "said_twice", "`at_once` with `kind: keyframes`"),
    ],
)
def test_rules_of_keyframes(key, value, hint):
    assert hint in refusal(keyframes_with(key, value))


def test_memer_has_the_authors_settings():
    """SPECS 1.2; the reference policy is smaller."""
    keyframes = load_policy("memer_droid").memory.keyframes
    assert (keyframes.stride, keyframes.recent, keyframes.keyframes, keyframes.merge_distance) == (5, 8, 8, 25)
    assert (keyframes.median, keyframes.destructive_merge, keyframes.views) == ("lower", False, ("wrist", "front"))
    assert load_policy("memer_droid").high_level.frame_size == (360, 320)
    assert load_policy("memer_droid").high_level_cameras == ("wrist", "front")
    assert load_policy("memer").high_level_cameras == ("front",)
    assert load_policy("am_grounded").high_level_cameras == ("front",)


def test_history_shown_needs_its_line():
    data = with_change("memory.user_history", "no placeholder")
    data["memory"]["history"] = True
    assert "memory.user_history" in refusal(data)


@pytest.mark.parametrize(
    ("name", "path"),
    [("am_grounded", "/root/am_grounded"), ("./mine", "mine"), ("/a/b", "/a/b"), ("runs/x", "runs/x")],
)
def test_weights_are_below_the_root_unless_a_path(name, path):
    assert resolve_weights(name, Path("/root")) == Path(path)


def test_frames_are_square_or_height_and_width():
    assert policy_from_dict(values()).high_level.frame_size == (256, 256)
    assert policy_from_dict(with_change("high_level.image_size", [320, 360])).high_level.frame_size == (320, 360)
    for wrong in (0, [320, 0], [320], "large"):
        assert "high_level.image_size" in refusal(with_change("high_level.image_size", wrong))


def test_the_answer_must_fit_behind_a_prompt():
    assert "high_level.context_tokens" in refusal(with_change("high_level.context_tokens", 128))


def test_two_chunks_of_steps_cannot_continue_each_other():
    data = policy_to_dict(load_policy("libero"))
    data["low_level"]["chunking"] = {"kind": "guided"}
    assert "`none` with `actions.relative`" in refusal(data)


def test_what_the_published_policies_actions_mean():
    """openpi's configurations and the environments they were trained in."""
    droid, libero = (load_policy(name).low_level for name in ("memer_droid", "libero"))
    assert (droid.horizon, droid.execute, droid.control_hz) == (15, 8, 15.0)
    assert droid.actions.action_space is ActionSpace.JOINT_VELOCITY
    assert droid.actions.scale == pytest.approx(0.2 * 15.0)
    assert (libero.horizon, libero.execute, libero.actions.dimensions) == (10, 5, 7)
    assert load_policy("robomme_am_grounded").low_level.actions.gripper.closed == -1.0
