"""The training stages run, resume exactly, and leave checkpoints that the exporter reads."""

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_qwen as tiny
import torch
from safetensors.torch import load_file

from memrt.export.vlm_graphs import load_vlm
from memrt.runtime.memory.parser import parse_reply
from memrt.train import high_level_adapters, high_level_metrics, high_level_recipe, high_level_train
from memrt.train.high_level_calls import SHARES, asked_about, call_groups
from memrt.train.high_level_data import Calls, Scenes
from memrt.train.high_level_frames import FrameIndex
from memrt.train.high_level_turns import STEP_GOES_ON, STEP_IS_OVER, TurnWriter, read_calls, told_source

SCENE = "red cube <120, 88>; target <140, 75>; button <60, 100>; gripper <90, 101> holding the red cube"
GOAL = "pick up the red cube and place it on the target, repeating this action two times, then press the button to stop"
PICKS = ["pick up the red cube <120, 88> for the first time", "pick up the red cube <140, 75> for the second time"]
PLACE = "place the red cube onto the target <140, 75>"


def _simple(text: str) -> str:
    return text.replace(" <120, 88>", "").replace(" <140, 75>", "")


def _record(episode: int, step: int, subgoals: list[str], previous: int) -> dict[str, object]:
    *history, current = subgoals
    return {
        "task": "PickXtimes",
        "episode": episode,
        "step": 8 * step,
        "goal": GOAL,
        "subgoal_grounded": current,
        "subgoal_simple": _simple(current),
        "history_grounded": history,
        "history_simple": [_simple(text) for text in history],
        "segment": len(history),
        "previous_segment": previous,
        "scene": SCENE,
    }


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    images = np.stack([tiny.image(seed) for seed in range(12)])
    for name, count in (("grounding", 8), ("high_level", 12)):
        (root / name).mkdir()
        np.save(root / name / "front.npy", images[:count])
    (root / "grounding" / "scenes.jsonl").write_text(8 * (json.dumps({"scene": SCENE}) + "\n"))
    records = [
        _record(episode, step, [PICKS[0], PLACE, PICKS[1]][: step // 2 + 1], step // 2 - 1)
        for episode in (0, 24)  # the second is held out
        for step in range(6)
    ]
    (root / "high_level" / "samples.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return root


def _train(stage: str, data: Path, out: Path, steps: int, weights: Path | None = None) -> Path:
    arguments = [stage, "--out", str(out), "--steps", str(steps), "--batch", "2", "--policies", "am_grounded"]
    arguments += ["--scenes", str(data / "grounding"), "--calls", str(data / "high_level")]
    high_level_train.main(arguments + (["--weights", str(weights)] if weights else []))
    return out / stage / "model"


def test_the_recipe_leaves_base_adapters_and_metrics(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = [replace(stage, steps=1, batch=2) for stage in high_level_recipe.STAGES]
    monkeypatch.setattr(high_level_recipe, "STAGES", stages)
    monkeypatch.setattr(high_level_recipe, "REFERENCE_STEPS", 2)
    monkeypatch.setattr(high_level_adapters, "BATCH", 2)
    monkeypatch.setattr(high_level_train, "POLICIES", ["am_grounded"])
    monkeypatch.setattr(high_level_metrics, "_MAX_NEW_TOKENS", 2)
    weights = high_level_recipe.train_high_level([data], tmp_path, policies=["am_grounded"])
    assert weights == tmp_path / "decoder" / "model"
    metrics = json.loads((tmp_path / "am_grounded" / "metrics.json").read_text())
    assert metrics["PickXtimes"]["transitions"]["count"] == 2
    assert 0.0 <= metrics["PickXtimes"]["transitions"]["action_memory_exact"] <= 1.0
    adapter = tmp_path / "am_grounded" / "adapter"
    assert {path.name for path in adapter.iterdir()} == {"adapter_model.safetensors", "adapter_config.json"}
    assert str(tmp_path) not in (adapter / "adapter_config.json").read_text()
    plain, merged = load_vlm(weights, None).state_dict(), load_vlm(weights, adapter).state_dict()
    moved = {name for name, tensor in plain.items() if not torch.equal(tensor, merged[name])}
    projections = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    assert moved
    assert all("language_model.layers" in name and name.split(".")[-2] in projections for name in moved)


def test_an_interrupted_run_ends_where_an_uninterrupted_one_does(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = _train("language", data, tmp_path / "straight", 2)

    descend = high_level_train.Loop._descend

    def fail_at_one(loop: high_level_train.Loop, loss: torch.Tensor) -> None:
        if loop.step == 1:
            loop.save()
            raise InterruptedError
        descend(loop, loss)

    monkeypatch.setattr(high_level_train.Loop, "_descend", fail_at_one)
    with pytest.raises(InterruptedError):
        _train("language", data, tmp_path / "resumed", 2)
    monkeypatch.setattr(high_level_train.Loop, "_descend", descend)
    resumed = _train("language", data, tmp_path / "resumed", 2)
    one, other = (load_file(str(folder / "model.safetensors")) for folder in (straight, resumed))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_run_folder_of_another_stage_is_refused(data: Path, tmp_path: Path) -> None:
    _train("language", data, tmp_path, 1)
    (tmp_path / "vision").mkdir()
    (tmp_path / "language" / "state").rename(tmp_path / "vision" / "state")
    with pytest.raises(ValueError, match="holds stage language"):
        _train("vision", data, tmp_path, 1)


@pytest.mark.parametrize(
    ("step", "changes", "watched"),
    [
        (0, {"previous_segment": 0}, (120, 88)),  # still picking: where the cube was
        (1, {}, (120, 88)),  # has the pick ended?
        (2, {}, (140, 75)),  # has the place?
        (1, {"previous_segment": -1}, (140, 75)),  # nothing was under way
        (0, {"previous_segment": 0, "subgoal_grounded": "put down the container"}, None),
        (
            0,
            {"previous_segment": 0, "subgoal_grounded": "remain static for the first visit", "scene": SCENE},
            (120, 88),
        ),
    ],
)
def test_what_is_watched_is_what_the_step_before_the_call_is_about(
    step: int, changes: dict[str, object], watched: tuple[int, int] | None
) -> None:
    record = {**_record(0, step, [PICKS[0], PLACE, PICKS[1]][: step + 1], step - 1), **changes}
    for policy, expected in (("am_simple", watched), ("memoryless", None)):
        assert _writer(policy, record).recorded(0).watched == expected


def _writer(policy: str, record: dict[str, object]) -> TurnWriter:
    return TurnWriter.of_policy(policy, Calls(FrameIndex(()), [record]))


def test_am_chat_shows_the_memory_before_and_asks_for_the_memory_after() -> None:
    example = _writer("am_grounded", _record(0, 2, [PICKS[0], PLACE, PICKS[1]], 1)).recorded(0)
    assert example.images == (0,)
    assert example.shifted(5).images == (5,)
    assert "<mem>I picked up the red cube once. I am holding it.</mem>" in example.user
    reply = parse_reply(example.reply)
    assert reply.subgoal == PICKS[1]
    assert reply.action_memory == "I picked up the red cube once and placed it on the target <140, 75> once."


def test_jitter_moves_a_carried_coordinate_in_both_memories_alike() -> None:
    writer = _writer("am_grounded", _record(0, 3, [PICKS[0], PLACE, PICKS[1], PLACE], 3))
    seen = set()
    for seed in range(40):
        example = writer.draw(0, random.Random(seed))
        before = parse_reply("x\n" + example.user[example.user.index("<mem>") :]).action_memory
        after = parse_reply(example.reply).action_memory
        assert before == after  # nothing happened, so the memory is copied as it was shown
        row, col = (int(value) for value in str(before).split("<")[1].split(">")[0].split(", "))
        assert abs(row - 140) <= 2
        assert abs(col - 75) <= 2
        seen.add((row, col))
    assert len(seen) > 5


def test_memoryless_chat_shows_nothing_of_the_past() -> None:
    writer = _writer("memoryless", _record(0, 2, [PICKS[0], PLACE, PICKS[1]], 1))
    assert writer.recorded(0).reply == PICKS[1]
    for seed in range(20):
        example = writer.draw(0, random.Random(seed))
        assert example.reply.startswith("pick up the red cube <140, 75> for the ")
        assert "mem>" not in example.user + example.reply


def test_words_can_stand_for_the_picture_of_a_memory_without_coordinates() -> None:
    record = _record(0, 2, [PICKS[0], PLACE, PICKS[1]], 1)
    assert not _writer("am_grounded", record).can_be_told(0)
    assert not _writer("memoryless", record).can_be_told(0)
    writer = _writer("am_simple", record)
    assert writer.can_be_told(0)
    for seed in range(20):
        seen, told = writer.draw(0, random.Random(seed)), writer.draw_told(0, random.Random(seed))
        assert told.images == ()
        assert told.reply == seen.reply
        assert "<image>" not in told.user
        assert (STEP_IS_OVER in told.user) == bool(seen.over) == (STEP_GOES_ON not in told.user)


def test_words_stand_for_the_picture_where_nothing_new_is_seen() -> None:
    noted = "Highlighted: green cube on the left."
    records = [
        {**_record(0, step, [PICKS[0], PLACE, PICKS[1]], 1), "task": task, "spatial_simple": [before, noted]}
        for step, (task, before) in enumerate(
            [("PickHighlight", noted), ("PickHighlight", "No observations yet."), ("PickXtimes", noted)]
        )
    ]
    calls = Calls(FrameIndex(()), records)
    alone, spatial = (TurnWriter.of_policy(name, calls) for name in ("am_simple", "am_sm_simple"))
    assert [index for index in range(3) if alone.can_be_told(index)] == [2]
    assert [index for index in range(3) if spatial.can_be_told(index)] == [0]
    assert told_source([TurnWriter.of_policy("memoryless", calls)], calls, range(3)) is None
    draw = told_source([alone], calls, range(3))
    assert draw is not None
    assert STEP_IS_OVER in draw(random.Random(0)).user


def test_a_visit_whose_end_was_missed_is_seen_by_the_side_that_the_cube_is_on() -> None:
    goal = "press the button to stop the cube just as it reaches the target for the third time"
    visits = [
        "move to the top of the button to prepare",
        *(f"remain static for the {n} visit" for n in ("first", "second")),
    ]
    sides = ["Cube left of the target.", "Cube on the target, coming from the left.", "Cube right of the target."]
    records = [
        {
            **_record(0, 2 * step, visits[: segment + 1], segment),
            **{"task": "StopCube", "goal": goal, "previous_segment": segment, "scene": ""},
            **{"spatial_simple": [sides[side]] * 2, "spatial_grounded": [sides[side]] * 2},
        }
        for step, (segment, side) in enumerate([(0, 0), (1, 0), (1, 1), (2, 2), (2, 1)])
    ]
    calls = Calls(FrameIndex(()), records)
    missed = TurnWriter.of_policy("am_sm_simple", calls)._missed
    assert [missed(index) for index in (0, 1, 2, 4)] == [{}] * 4  # 4: on the target again
    assert missed(3) == {"previous_segment": 1, **dict.fromkeys(("spatial_simple", "spatial_grounded"), sides[1:])}
    assert TurnWriter.of_policy("am_simple", calls)._missed(3) == {}


def test_data_is_read_while_more_is_recorded(data: Path, tmp_path: Path) -> None:
    records = [{**_record(24, step, [PICKS[0]], 0), "step": 4 * step} for step in range(4)]
    for seed, done in ((24, '{"usable": true}'), (25, '{"usable": false}'), (26, None)):
        folder = tmp_path / "PickXtimes" / f"{seed:06d}"
        folder.mkdir(parents=True)
        (folder / "high_samples.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
        np.save(folder / "high_front.npy", np.stack([tiny.image(seed) for seed in range(4)]))
        if done:
            (folder / "DONE").write_text(done)
    calls = Calls.load(tmp_path, data / "high_level")
    assert [record["step"] for record in calls.records[:2]] == [0, 8]  # the frame between two calls, none besides
    assert calls.frames.images([1]).numpy().tolist() == tiny.image(2)[None].tolist()
    assert calls.split()[1][:2] == [0, 1]
    assert len(Scenes.load(data / "grounding", every=4).descriptions) == 2


def test_a_keyframe_policy_is_shown_moments_of_its_own_episode(tmp_path: Path) -> None:
    segments = [0] * 4 + [1] * 7 + [2] * 5
    subgoals = [PICKS[0], PLACE, PICKS[1]]
    folder = tmp_path / "PickXtimes" / "000007"
    folder.mkdir(parents=True)
    records = [_record(7, step, subgoals[: segment + 1], segment) for step, segment in enumerate(segments)]
    (folder / "high_samples.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (folder / "DONE").write_text("{}")
    writer = TurnWriter.of_policy("memer", read_calls(["memer"], [tmp_path]))
    example = writer.recorded(15)
    assert example.images == (10, 12, 13, 14, 15)  # the place, then the recent frames
    assert example.reply == json.dumps({"current_subtask": PICKS[1], "keyframe_positions": []})
    assert writer.recorded(12).reply.endswith('"keyframe_positions": [2]}')
    told = [writer.draw(15, random.Random(seed)) for seed in range(40)]
    assert {example.images for example in told} == {(10, 12, 13, 14, 15)}  # pictures are not told otherwise
    goals = {example.user.split("\n")[0] for example in told}
    assert len(goals) > 2
    assert all(
        ("press" in example.reply) == ("target, then" in example.user) for example in told if "<60" in example.reply
    )


def _episode(
    segments: list[int], episode: int = 7, names: Sequence[str] = ("pick", "place", "press")
) -> list[dict[str, object]]:
    """A record per half call of an episode; at every call the arm is told of the step that is due."""
    followed = [-1, *(segments[number // 2 * 2] for number in range(len(segments)))]
    return [
        {
            "task": "PickXtimes",
            "episode": episode,
            "step": 8 * number,
            "scene": f"scene {number}",
            "segment": now,
            "previous_segment": before,
            "subgoal_simple": names[now],
            "history_simple": list(names[:now]),
        }
        for number, (now, before) in enumerate(zip(segments, followed, strict=False))
    ]


def test_every_step_is_over_as_often_as_it_is_not() -> None:
    records = [*_episode([0, 0, 0, 1, 1, 1, 1, 1, 1, 2, 2, 2]), *_episode([0], 8)]
    groups = call_groups(records, range(len(records)))
    expected = {
        "over": [[4], [10]],  # not where it has just ended, at 3 and 9
        "ends soon": [[1, 2], [7, 8]],
        "goes on": [[5, 6], [11]],
        "begins": [[0, 12]],  # nothing was under way
    }
    kinds = 3  # pick, place and press, which is never over
    assert sorted(groups) == sorted((SHARES[asked] / kinds, group) for asked in expected for group in expected[asked])
    assert sum(SHARES.values()) == pytest.approx(1)


def test_a_moment_is_told_at_once() -> None:
    names = ["move to the top of the button", "remain static", "press the button to stop the cube on the target"]
    records = _episode([0, 0, 0, 1, 1, 1, 1, 2], names=names)
    assert [asked_about(records, index) for index in (3, 7)] == ["over", "over"]
    assert [asked_about(_episode([0, 0, 0, 1]), index) for index in (2, 3)] == ["ends soon", ""]
