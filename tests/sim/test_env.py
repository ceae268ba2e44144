"""The simulated robot: deterministic, inside its limits, and honest about what it sees."""

import itertools

import numpy as np
import pytest

from memrt.runtime.cli.default_bundle import reference_bundles
from memrt.runtime.types import ActionChunk, RobotMode
from memrt.sim.env import CONTROL_DT_NS, TabletopEnv
from memrt.sim.expert_episodes import follow_expert
from memrt.sim.objects import COLOURS, Cube
from memrt.sim.record import HIGH_LEVEL_EVERY, LATE_CALLS, SAMPLE_EVERY, Disturbance, record_episode


@pytest.mark.parametrize("seed", [0, 5])
def test_the_expert_solves_the_task(seed):
    outcome = follow_expert(TabletopEnv("PickXtimes", seed))
    assert outcome.status == "success", outcome.reason


def test_the_named_cube_is_drawn_where_its_pixel_says():
    with TabletopEnv("PickXtimes", 1) as env:
        image = env.observe().frames["front"].image
        assert image.shape == (256, 256, 3)
        assert image.dtype == np.uint8
        for cube in env.task.layout.of(Cube):
            row, col = env.scene.pixel(env.scene.position(cube.name))
            seen = image[row, col].astype(float)
            assert int(np.argmax(seen)) == int(np.argmax(COLOURS[cube.colour]))


def test_chunks_are_ignored_unless_running():
    env = TabletopEnv("PickXtimes", 0)
    start = env.proprioception()
    chunk = ActionChunk(np.tile(np.append(start[:7] + 0.2, 0.0), (16, 1)), CONTROL_DT_NS, CONTROL_DT_NS, 0)
    assert env.mode is RobotMode.DISARMED
    env.send(chunk)
    env.advance(4)
    assert np.allclose(env.proprioception(), start, atol=2e-3)


def test_a_stop_holds_until_resume():
    env = TabletopEnv("PickXtimes", 0)
    env.arm()
    goal = np.append(env.proprioception()[:7] + 0.3, 1.0)

    def send() -> None:
        env.send(ActionChunk(np.tile(goal, (16, 1)), env.t_ns + CONTROL_DT_NS, CONTROL_DT_NS, 0))

    send()
    env.advance(4)
    env.stop()
    env.advance(20)  # braked and settled
    held = env.proprioception()
    send()
    env.advance(6)
    assert np.allclose(env.proprioception(), held, atol=2e-3)
    env.resume()
    send()
    env.advance(20)
    assert np.allclose(env.proprioception()[:7], goal[:7], atol=0.02)


def test_non_finite_chunks_are_refused():
    env = TabletopEnv("PickXtimes", 0)
    env.arm()
    with pytest.raises(ValueError, match="non-finite"):
        env.send(ActionChunk(np.full((16, 8), np.nan), CONTROL_DT_NS, CONTROL_DT_NS, 0))


def test_recorded_samples_tell_one_story():
    record = record_episode("PickXtimes", 4, image_size=32)
    assert record.success, record.reason
    assert all(sample.images["front"].shape == (32, 32, 3) for sample in record.low_level)
    assert all(np.isfinite(sample.actions).all() for sample in record.low_level)
    for sample in record.high_level:
        labels = sample.labels
        assert len(labels["history_simple"]) == labels["segment"]
        assert labels["previous_segment"] <= labels["segment"] + 1
        assert labels["subgoal_simple"] not in labels["history_simple"][-1:]
    assert record.high_level[-1].labels["subgoal_simple"] == "press the button to stop"


def test_the_beginning_of_an_episode_is_recorded_as_that_of_a_whole_one():
    begun, whole = (record_episode("PickXtimes", 4, image_size=32, steps=steps) for steps in (20, None))
    assert (begun.usable, begun.success) == (True, False), begun.reason
    assert [sample.labels for sample in begun.high_level] == [sample.labels for sample in whole.high_level[:5]]
    assert len(begun.low_level) == 5
    failing = record_episode("PickXtimes", 4, image_size=32, disturbance=Disturbance(grip_flip_probability=1.0))
    assert not failing.usable


def test_changes_are_noticed_late_at_times_and_by_two_calls_at_most():
    record = record_episode("SwingXtimes", 10_002, image_size=32)
    assert record.success, record.reason
    one_call = HIGH_LEVEL_EVERY // SAMPLE_EVERY
    labels = [sample.labels for sample in record.high_level]
    unknown = lengths(of["segment"] > of["previous_segment"] for of in labels[1:])
    assert min(unknown) <= one_call  # noticed at the next call
    assert one_call < max(unknown) <= (1 + LATE_CALLS) * one_call


def test_a_memory_is_of_the_step_that_the_arm_follows():
    """A frame of an arm on its way to the next place, shown with a memory of the last, would teach to see backwards."""
    record = record_episode("SwingXtimes", 10_002, image_size=32)
    labels = [sample.labels for sample in record.high_level]
    for before, now in zip(record.low_level, labels[1:], strict=False):
        steps = [*now["history_simple"], now["subgoal_simple"]]
        assert before.subgoal_simple == steps[now["previous_segment"]]


def test_a_trained_low_level_moves_the_arm_and_the_expert_says_what_it_would_have_done():
    one = record_episode("PickXtimes", 4, image_size=32, bundle=reference_bundles() / "am_grounded-int8")
    assert one.success, one.reason
    by_expert = record_episode("PickXtimes", 4, image_size=32)
    history = [record.high_level[-1].labels["history_simple"] for record in (one, by_expert)]
    assert history[0] == history[1]  # the same steps
    # From the same first state the expert advises the same; after it, the hand has gone elsewhere.
    assert np.array_equal(one.low_level[0].actions, by_expert.low_level[0].actions)
    assert not np.allclose(one.low_level[5].proprioception, by_expert.low_level[5].proprioception, atol=1e-3)


def lengths(flags):
    """How long each stretch of True is."""
    return [len(list(stretch)) for flag, stretch in itertools.groupby(flags) if flag]
