"""The keyframe policy call by call: what it shows, keeps, computes and lets go."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_vlm import STEP_LEVELS, TWO_VIEWS, Asked, ScriptedVlm, observation, picture, reply

from memrt.runtime.config import PolicyConfig, load_policy
from memrt.runtime.errors import MemrtError
from memrt.runtime.memory.store import JpegFrame
from memrt.runtime.policy.cancellation import Cancelled
from memrt.runtime.policy.high_level import HighLevelPolicy
from memrt.runtime.policy.views import stack_views

GOAL = "swing"
DT_NS = 50_000_000  # 20 Hz, memer's raw rate: a control step is a raw tick


def policy(**changes: object) -> PolicyConfig:
    base = load_policy(TWO_VIEWS)
    on_new_goal = changes.pop("on_new_goal", "keep")
    image_size = changes.pop("image_size", [360, 320])
    keyframes = msgspec.structs.replace(base.memory.keyframes, **({"merge_distance": 10} | changes))
    memory = msgspec.structs.replace(base.memory, keyframes=keyframes, on_new_goal=on_new_goal)
    return msgspec.structs.replace(
        base, memory=memory, high_level=msgspec.structs.replace(base.high_level, image_size=tuple(image_size))
    )


@dataclass
class Lent:
    film: Film
    step: int
    released: bool = False

    @property
    def index(self) -> int:
        return self.step

    @property
    def t_ns(self) -> int:
        return self.step * DT_NS

    @property
    def image(self) -> np.ndarray:
        assert not self.released
        return self.film.pictures.setdefault(self.step, picture(self.step))

    def release(self) -> None:
        assert not self.released
        self.released = True
        self.film.lent -= 1


@dataclass
class Film:
    """A history of one frame per control step, but for those that are gone; it counts what is lent."""

    gone: set[int] = field(default_factory=set)
    lent: int = 0
    most: int = 0
    pictures: dict[int, np.ndarray] = field(default_factory=dict)

    def at(self, camera: str, t_ns: int) -> Lent | None:
        step = t_ns // DT_NS
        if step in self.gone:
            return None
        self.lent += 1
        self.most = max(self.most, self.lent)
        return Lent(self, step)


class Run:
    """A policy over a film, asked at the control steps a test names; `answer` is what the VLM says next."""

    def __init__(self, **changes: object) -> None:
        self.config = policy(**changes)
        self.film, self.vlm = Film(), ScriptedVlm(self._say)
        self.policy = HighLevelPolicy.of(self.config, self.vlm)
        self.state = self.policy.initial()
        self.answer = reply("wait")

    def _say(self, asked: Asked) -> str:
        return self.answer

    def call(self, step: int, *positions: int, goal: str = GOAL, **options: object):
        self.answer = reply(f"at {step}", *positions)
        looked = observation(step, DT_NS, self.config.memory.keyframes.views, self.film)
        result = self.policy.call(goal, looked, self.state, **options)
        self.state = result.state
        assert self.film.lent == 0
        return result

    @property
    def greys(self) -> list[int]:
        return self.vlm.asked[-1].greys

    @property
    def store(self):
        return self.policy._images.store


def test_voted_frames_come_back_oldest_first_and_nothing_is_encoded_twice():
    run = Run()
    run.call(0, 1)
    run.call(60, 4, 4, 8)
    run.call(120, 1)
    run.call(180)
    assert run.greys == [0, 40, 60, 85, *range(145, 181, 5)]
    assert run.vlm.asked[-1].user.count("<image>") == 12
    assert len(run.vlm.encoded) == len(set(run.vlm.encoded)) == 1 + 8 + 8 + 8
    assert len(run.store) == 4


def test_recent_frames_on_the_grid_are_found_again():
    run = Run()
    for step in (0, 20, 40, 62, 80):  # the fourth call is late, and still shows the grid's frames
        run.call(step)
    assert [asked.greys[-1] for asked in run.vlm.asked] == [0, 20, 40, 60, 80]
    assert len(run.vlm.encoded) == 1 + 4 * 4


@pytest.mark.parametrize("keep", ["jpeg", "vision_tokens"])
def test_keyframes_outlive_the_vision_cache(keep):
    run = Run(keep=keep, max_bytes=1 << 20)
    for step in (0, 60, 120):
        run.call(step, 1)
    names = run.vlm.asked[-1].contents
    run.vlm.forget()
    run.vlm.encoded.clear()
    run.call(220)
    assert run.greys == pytest.approx([0, 25, 85, *range(185, 221, 5)], abs=1)
    assert run.vlm.asked[-1].contents[:2] == names[:2]  # the same frames to the K/V cache
    assert len(run.vlm.encoded) == 8 + (3 if keep == "jpeg" else 0)


def test_an_unusable_answer_holds_and_a_new_episode_forgets():
    run = Run()
    run.call(0, 1)
    run.vlm.rule = lambda asked: "I cannot say"
    held = run.call(60)
    assert (held.subgoal, held.held, run.greys[0]) == ("at 0", True, 0)
    run.vlm.rule = run._say
    run.state = run.policy.initial()
    run.film.pictures.clear()
    run.call(7_000)
    assert run.greys == [7_000 % STEP_LEVELS]  # the episode begins here, with one frame
    assert (len(run.store), run.store.nbytes) == (0, 0)


@pytest.mark.parametrize(("on_new_goal", "shown"), [("keep", [0, 25]), ("clear", [])])
def test_a_new_goal_keeps_or_clears_the_keyframes(on_new_goal, shown):
    run = Run(on_new_goal=on_new_goal)
    run.call(0, 1)
    run.call(60, 1)
    run.call(120, goal="stack")
    assert run.greys == [*shown, *range(85, 121, 5)]
    assert "stack" in run.vlm.asked[-1].user
    assert len(run.store) == len(shown)


def test_a_cancelled_call_changes_nothing():
    run = Run()
    run.call(0, 1)
    state, kept = run.state, len(run.store)
    with pytest.raises(Cancelled):
        run.call(60, 1, 8, cancelled=lambda: True)
    assert run.film.lent == 0
    assert (run.state, len(run.store)) == (state, kept)
    run.call(65)
    assert run.greys[0] == 0


def test_reading_ahead_shows_what_is_there_changes_nothing_and_lets_go():
    run = Run()
    run.call(40, 1)
    run.film.gone.add(60)
    state, kept = run.state, len(run.store)
    looked = observation(70, DT_NS, run.config.memory.keyframes.views, run.film)
    run.policy.read_ahead(GOAL, looked, state, 80 * DT_NS)
    run.call(80)
    assert run.vlm.ahead == [run.vlm.asked[-1].contents[: len(run.vlm.ahead[0])]]
    assert len(run.vlm.asked[-1].contents) - len(run.vlm.ahead[0]) == 2  # 75 and 80 were still to come
    assert run.film.lent == 0
    assert (state.votes.held(), kept) == (run.state.votes.held(), len(run.store))


def test_reading_ahead_does_without_keyframes_that_are_not_kept():
    """A memory that was taken up from a recording names frames that this policy never saw."""
    run, fresh = Run(), Run()
    run.call(40, 1)
    looked = observation(70, DT_NS, run.config.memory.keyframes.views, fresh.film)
    fresh.policy.read_ahead(GOAL, looked, run.state, 80 * DT_NS)
    assert len(fresh.vlm.ahead[0]) == 6  # the recent frames that are there
    fresh.policy.read_ahead("another goal", looked, run.state, 80 * DT_NS)
    fresh.policy.read_ahead(GOAL, looked, fresh.state, 80 * DT_NS)
    assert len(fresh.vlm.ahead) == 1  # nothing is known of a new goal's call, nor of the first of an episode


def test_one_view_of_the_right_size_is_looked_at_in_place_and_let_go():
    run = Run(views=("front",), image_size=[8, 8])
    run.call(0)
    seen, generate = [], run.vlm.generate

    def look(system, user, images, budget, *, cancelled=None):
        assert run.film.lent == len(images) == 8  # pinned while the VLM is asked
        seen.extend(
            image.load() is run.film.pictures[tick] for tick, image in zip(range(25, 61, 5), images, strict=True)
        )
        return generate(system, user, images, budget, cancelled=cancelled)

    run.vlm.generate = look
    run.call(60)
    assert all(seen)
    assert len(seen) == 8
    assert len(run.vlm.encoded) == 9


def test_stacked_views_are_let_go_as_soon_as_they_are_copied():
    run = Run()
    run.call(0)
    run.call(60)
    assert run.film.most == 2


def test_frames_that_are_gone_are_left_out_and_counted():
    run = Run()
    run.call(0)
    run.film.gone = {40, 45}
    result = run.call(60, 4)  # the fourth of those that are shown
    assert run.greys == [25, 30, 35, 50, 55, 60]
    assert result.request.recent == (25, 30, 35, 50, 55, 60)
    assert result.counts == {"recent frames missing": 2}
    run.call(120)
    assert run.greys[0] == 50


def test_without_a_history_the_current_frame_is_all_there_is():
    run = Run()
    run.policy.call(GOAL, observation(0, DT_NS, ("wrist", "front")), run.state)
    assert run.greys == [0]
    with pytest.raises(MemrtError, match="wrist"):
        run.policy.call(GOAL, observation(1, DT_NS, ("front",)), run.state)


def test_frames_given_up_for_bytes_are_counted():
    run = Run(max_bytes=JpegFrame.compress(picture(60, 320), 1, 90).nbytes * 2)
    run.call(0, 1)
    result = run.call(60, 1, 8)
    assert result.counts["keyframes given up"] == 3 - len(run.store) > 0
    run.call(120)
    assert run.greys[:-8] == [60]


calls = st.lists(
    st.tuples(st.integers(1, 60), st.lists(st.integers(-1, 9), max_size=4), st.sampled_from(["", "goal", "cancel"])),
    max_size=12,
)


@settings(max_examples=40, deadline=None)
@given(calls, st.integers(0, 40_000), st.sampled_from(["jpeg", "vision_tokens"]))
def test_whatever_happens_what_is_shown_is_what_was_voted_for(moments, max_bytes, keep):
    run = Run(views=("front",), image_size=[8, 8], keep=keep, max_bytes=max_bytes + 1, keyframes=3, max_open_frames=4)
    step, goal = 0, 0
    for passed, positions, event in moments:
        step += passed
        goal += event == "goal"
        before = run.state
        if event == "cancel":
            with pytest.raises(Cancelled):
                run.call(step, *positions, goal=str(goal), cancelled=lambda: True)
            assert run.state == before
            continue
        result = run.call(step, *positions, goal=str(goal))
        start = run.state.start_ns // DT_NS
        ticks = (*result.request.keyframes, *result.request.recent)
        assert run.greys == pytest.approx([(start + tick) % STEP_LEVELS for tick in ticks], abs=2)
        assert list(ticks) == sorted(set(ticks)) or set(result.request.keyframes).isdisjoint(result.request.recent)
        assert list(result.request.keyframes) == sorted(result.request.keyframes)
        assert len(run.store) == len(run.state.votes.held())
        assert run.store.nbytes <= max_bytes + 1
        assert len(run.policy._images._recent) <= 8


def test_views_are_stacked_in_their_order_each_with_its_share():
    wrist, front = np.full((256, 256, 3), 10, np.uint8), np.full((100, 300, 3), 200, np.uint8)
    stacked = stack_views([wrist, front], (360, 320))
    assert (stacked.shape, stacked.dtype) == ((360, 320, 3), np.uint8)
    assert (stacked[:180] == 10).all()
    assert (stacked[180:] == 200).all()
    assert stack_views([wrist], (256, 256)) is wrist
