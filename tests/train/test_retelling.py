"""A call told again is the call that an episode with those counts, or those colours, would have recorded."""

import random
from itertools import pairwise

import pytest

from memrt.runtime.memory.coordinates import without_coordinates
from memrt.train.high_level_calls import TOLD_AT_ONCE
from memrt.train.labels import label_pair
from memrt.train.labels.turns import with_spatial_memories
from memrt.train.retelling import bin_fill, draw_telling, stop_cube, swing_x_times
from memrt.train.retelling.bin_fill import Share
from memrt.train.task_scripts import task_of

TARGETS = "right-side target <150, 60>; left-side target <140, 200>; button <60, 100>"


def episode(goal: str, subgoals: list[str], scenes: list[str]) -> list[dict]:
    """A record per step, at the call after the step before was completed."""
    simple = [without_coordinates(subgoal) for subgoal in subgoals]
    return [
        {
            "task": task_of(goal),
            "episode": 1,
            "step": 16 * number,
            "goal": goal,
            "subgoal_simple": simple[number],
            "subgoal_grounded": subgoals[number],
            "segment": number,
            "previous_segment": number - 1,
            "history_simple": simple[:number],
            "history_grounded": subgoals[:number],
            "scene": scenes[number],
        }
        for number in range(len(subgoals))
    ]


def swing(rounds: int) -> list[dict]:
    carries = [
        f"move to the top of the {side} for the {ordinal} time"
        for ordinal in ("first", "second", "third")[:rounds]
        for side in ("right-side target <150, 60>", "left-side target <140, 200>")
    ]
    table, held = f"red cube <120, 120>; {TARGETS}; gripper <9, 9>", f"{TARGETS}; gripper <9, 9>"
    scenes = [f"{table} open", *[f"{held} holding the red cube"] * (len(carries) + 1), f"{table} open"]
    end = ["put the red cube on the table", "press the button <60, 100>"]
    return episode(swing_x_times.swing_goal("red", rounds), ["pick up the red cube <120, 120>", *carries, *end], scenes)


def stop(visit: int) -> list[dict]:
    ordinals = ("first", "second", "third", "fourth", "fifth")
    waits = [f"remain static for the {ordinal} visit" for ordinal in ordinals[:visit]]
    subgoals = [
        "move to the top of the button <60, 100> to prepare",
        *waits,
        "press the button <60, 100> to stop the cube on the target",
    ]
    goal = f"press the button to stop the cube just as it reaches the target for the {ordinals[visit - 1]} time"
    at = [80 if n % 2 else 160 for n in range(visit)]
    near = 100 if at[-1] == 80 else 140
    scenes = [
        f"blue cube <150, {column}>; target <150, 120>; button <60, 100>; gripper <60, 100> open"
        for column in (at[0], *at, near)
    ]
    return episode(goal, subgoals, scenes)


def fill(asked: dict[str, int]) -> list[dict]:
    subgoals = [
        text
        for colour, count in asked.items()
        for ordinal in ("first", "second", "third")[:count]
        for text in (f"pick up the {ordinal} {colour} cube <150, {len(colour)}>", "put it into the bin <90, 90>")
    ]
    cubes = "red cube <150, 3>; green cube <150, 5>; blue cube <150, 4>; bin <90, 90>; button <60, 100>; gripper <9, 9>"
    scenes = [f"{cubes} {'holding the cube' if n % 2 else 'open'}" for n in range(len(subgoals))]
    goal = bin_fill.bin_goal([Share(colour, 0, count) for colour, count in asked.items()])
    return episode(goal, [*subgoals, "press the button <60, 100>"], [*scenes, f"{cubes} open"])


def labels(record: dict) -> dict:
    """What a policy is asked about; the frame itself differs between episodes."""
    return {name: value for name, value in record.items() if name not in ("step", "scene")}


def test_swings_told_with_other_counts() -> None:
    episodes = {rounds: swing(rounds) for rounds in (1, 2, 3)}
    record = episodes[2][3]  # on the way to the right-side target for the second time
    pairs = swing_x_times.tellings(record, due_step_open=True, past_seen=False)
    assert pairs == [(2, 1), (2, 2), (4, 2), (2, 3), (4, 3), (6, 3)]
    for visits, rounds in pairs:
        told = swing_x_times.retell(record, swing_x_times.Telling(visits, rounds))
        assert labels(told) == labels(episodes[rounds][visits + 1])
    assert swing_x_times.tellings(record, due_step_open=False, past_seen=False) == [(2, 2), (2, 3), (4, 3)]
    assert swing_x_times.tellings(record, due_step_open=True, past_seen=True) == [(2, 1), (2, 2), (2, 3)]
    assert swing_x_times.tellings(episodes[2][1], due_step_open=True, past_seen=False) == [(0, 1), (0, 2), (0, 3)]
    pressed = swing_x_times.retell(episodes[2][6], swing_x_times.Telling(6, 3))
    assert labels(pressed) == labels(episodes[3][8])


def test_visits_told_with_other_counts() -> None:
    episodes = {visit: stop(visit) for visit in range(2, 6)}
    for record in (episodes[4][2], episodes[2][2]):  # one visit over: another one is waited for, or the last
        pairs = stop_cube.tellings(record, past_seen=False)
        assert pairs == [(1, 2), (1, 3), (1, 4), (3, 4), (1, 5), (3, 5)]
        for over, visit in pairs:
            told = stop_cube.retell(record, stop_cube.Telling(over, visit))
            assert labels(told) == labels(episodes[visit][over + 1])
    pressing = episodes[2][3]
    assert stop_cube.tellings(pressing, past_seen=False) == [(1, 2), (3, 4)]
    told = stop_cube.retell(pressing, stop_cube.Telling(3, 4))
    assert labels(told) == labels(episodes[4][5])
    near = {**episodes[4][2], "scene": pressing["scene"]}  # no press is due, so the visit is not the last
    assert stop_cube.tellings(near, past_seen=False) == [(1, 3), (1, 4), (1, 5), (3, 5)]
    last = {**episodes[5][5], "scene": near["scene"]}
    assert stop_cube.tellings(last, past_seen=True) == []
    assert draw_telling(last, random.Random(0), remembers=True, past_seen=True) == last


def test_cubes_in_the_bin_told_with_other_counts() -> None:
    record = fill({"red": 1, "blue": 2})[4]  # one of each is in, the second blue one is due
    told = bin_fill.retell(record, [Share("green", 2, 2), Share("blue", 0, 1), Share("red", 0, 1)])
    assert labels(told) == labels(fill({"green": 2, "blue": 1, "red": 1})[4])
    pressing = bin_fill.retell(record, [Share("red", 1, 1), Share("blue", 2, 2)])
    assert labels(pressing) == labels(fill({"red": 1, "blue": 2})[6])


def test_what_the_spatial_memory_sees_in_the_bin_is_told_with_the_counts() -> None:
    bare = "; red cube <1, 2>; red cube <3, 4>; blue cube <5, 6>; bin <90, 90>; button <60, 100>; gripper <9, 9> open"
    scenes = [f"red cube <{n}, 9>{bare}" for n in (5, 5)] + [bare[2:]] * 2
    goal = "put two red cubes into the bin, then press the button to stop"
    [pick, put] = ["pick up the first red cube <5, 9>", "put it into the bin <90, 90>"]
    *_, seen, counted = with_spatial_memories(
        [
            *episode(goal, [pick, put], scenes[:2]),
            {**episode(goal, [pick, put], scenes[:2])[1], "step": 32, "previous_segment": 1, "scene": scenes[2]},
            {
                **episode(goal, [pick, put, pick.replace("first", "second")], scenes[:3])[2],
                "step": 48,
                "scene": scenes[3],
            },
        ]
    )
    assert seen["spatial_simple"] == ["The bin is empty.", "In the bin: one red cube."]
    told = bin_fill.retell(seen, [Share("blue", 2, 2), Share("red", 0, 1)])  # the put has not been noticed yet
    assert told["spatial_simple"] == ["In the bin: two blue cubes.", "In the bin: two blue cubes and one red cube."]
    told = bin_fill.retell(counted, [Share("red", 3, 4)])
    assert told["spatial_grounded"] == ["In the bin <90, 90>: three red cubes."] * 2


def test_colours_are_exchanged_only_while_no_cube_is_in_sight() -> None:
    goal = "first press the button, then pick up the container hiding the red cube"
    covered = "container <1, 2>; container <3, 4>; button <60, 100>; gripper <9, 9> open"
    subgoals = ["press the button <60, 100>", "pick up the container <1, 2> that hides the red cube"]
    seen, hidden = episode(goal, subgoals, [f"red cube <1, 2>; {covered}", covered])
    hidden["spatial_simple"] = ["Red cube at the top.", "Red cube under the container at the top."]
    assert draw_telling(seen, random.Random(0), remembers=True) == seen
    told = {seed: draw_telling(hidden, random.Random(seed), remembers=True) for seed in range(9)}
    assert {record["goal"].split()[-2] for record in told.values()} == {"red", "green", "blue"}
    for record in told.values():
        colour = record["goal"].split()[-2]
        assert record["subgoal_simple"].split()[-2] == colour
        assert record["spatial_simple"][1] == f"{colour.capitalize()} cube under the container at the top."
    assert draw_telling(hidden, random.Random(1), remembers=True, past_seen=True) == hidden


@pytest.mark.parametrize("records", [swing(3), stop(5), fill({"red": 2, "green": 1}), fill({"blue": 1})])
def test_every_drawn_telling_is_an_episode_that_the_labels_understand(records: list[dict]) -> None:
    still = [{**record, "previous_segment": record["segment"]} for record in records]
    for number, record in enumerate([*records, *still]):
        steps = set()
        for seed in range(30):
            told = draw_telling(record, random.Random(seed), remembers=bool(seed % 3), past_seen=not seed % 2)
            before, after = label_pair(
                told["goal"], told["history_grounded"], told["subgoal_grounded"], told["previous_segment"], "grounded"
            )
            kept = told["previous_segment"] == told["segment"] or told["subgoal_simple"].endswith(TOLD_AT_ONCE)
            assert (before == after) == kept or number == 0
            assert len(told["history_simple"]) == len(told["history_grounded"]) == told["segment"]
            assert all(one != other for one, other in pairwise([*told["history_simple"], told["subgoal_simple"]]))
            steps.add(told["goal"])
        assert len(steps) > 1
