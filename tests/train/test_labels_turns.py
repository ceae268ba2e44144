import msgspec
import pytest

from memrt.runtime.config import load_policy
from memrt.runtime.errors import MemrtError
from memrt.runtime.memory import build_memory
from memrt.train.labels import INITIAL_MEMORY
from memrt.train.labels.turns import training_turn, with_spatial_memories

GOAL = "pick up the red cube and place it on the target, then press the button to stop"
SUBGOALS = [
    "pick up the red cube <120, 88> for the first time",
    "place the red cube onto the target <140, 75>",
    "press the button <60, 100> to stop",
]


def sample(segment: int, previous_segment: int) -> dict:
    return {
        "goal": GOAL,
        "subgoal_grounded": SUBGOALS[segment],
        "history_grounded": SUBGOALS[:segment],
        "previous_segment": previous_segment,
    }


@pytest.mark.parametrize("history", [False, True])
def test_perfect_replies_lead_from_each_sample_to_the_next(history):
    """Rolled out with its own targets, the runtime asks exactly what the next sample was trained on."""
    config = msgspec.structs.replace(load_policy("am_grounded").memory, history=history)
    memory = build_memory(config)
    state, previous = memory.initial(), -1
    for segment in (0, 0, 1, 1, 2, 2):
        request, reply = training_turn(config, sample(segment, previous))
        assert request == memory.request(state, GOAL)
        update = memory.update(state, reply, GOAL)
        assert (update.subgoal, update.held) == (SUBGOALS[segment], False)
        assert (update.state.action_memory == state.action_memory) == (segment == max(previous, 0))
        state, previous = update.state, segment
    assert state.action_memory == "I picked up the red cube once and placed it on the target <140, 75> once."


def test_dropped_cube_takes_the_memory_back():
    request, reply = training_turn(load_policy("am_grounded").memory, sample(segment=0, previous_segment=1))
    assert "<mem>I picked up the red cube once. I am holding it.</mem>" in request.user
    assert reply == f"{SUBGOALS[0]}\n<mem>{INITIAL_MEMORY}</mem>"


def test_memoryless_answers_with_the_subgoal_alone():
    config = load_policy("memoryless").memory
    request, reply = training_turn(config, sample(segment=1, previous_segment=1))
    assert request == build_memory(config).request(build_memory(config).initial(), GOAL)
    assert reply == SUBGOALS[1]


def test_a_memory_of_pictures_is_not_trained_here():
    with pytest.raises(MemrtError, match="kind: keyframes"):
        training_turn(load_policy("memer").memory, sample(0, 0))


def test_spatial_memory_is_that_of_the_call_before():
    """Recorded at every fourth step, called at every sixteenth."""
    goal = "first press the button, then pick up the container hiding the red cube"
    scenes = ["red cube <130, 60>", *["container <128, 60>"] * 6]
    samples = [
        {
            "task": "ButtonUnmask",
            "episode": 7,
            "step": 4 * n,
            "goal": goal,
            "scene": f"{scene}; gripper <74, 130> open",
            "subgoal_grounded": "press the button <60, 100>",
            "history_grounded": [],
            "previous_segment": 0,
        }
        for n, scene in enumerate(scenes)
    ]
    config = load_policy("am_sm_grounded").memory
    shown, told = zip(*(training_turn(config, sample) for sample in with_spatial_memories(samples)), strict=True)
    memories = [reply.split("<spatial_mem>")[1].removesuffix("</spatial_mem>") for reply in told]
    assert memories == ["Red cube <130, 60>."] * 2 + ["Red cube under the container <128, 60>."] * 5
    for n, request in enumerate(shown):
        before = memories[n - 4] if n >= 4 else config.initial_spatial_memory
        assert f"<spatial_mem>{before}</spatial_mem>\n<image>" in request.user
    assert (
        told[0] == f"press the button <60, 100>\n<mem>{INITIAL_MEMORY}</mem>\n<spatial_mem>{memories[0]}</spatial_mem>"
    )


def test_episodes_recorded_elsewhere_have_no_spatial_memory():
    for text, scene in ((GOAL, ""), ("fold the towel", "red cube <130, 60>; gripper <74, 130> open")):
        samples = [{**sample(0, -1), "episode": 1, "step": 0, "goal": text, "scene": scene}]
        assert with_spatial_memories(samples) == samples
    with pytest.raises(MemrtError, match="with_spatial_memories"):
        training_turn(load_policy("am_sm_grounded").memory, sample(0, -1))
