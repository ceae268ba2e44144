"""MemER's requests through a real exported VLM: eight keyframes and eight recent frames of two stacked views."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import tiny_qwen as tiny

from memrt.runtime.clock import MonotonicClock
from memrt.runtime.config import load_policy
from memrt.runtime.errors import MemrtError
from memrt.runtime.loop.high_level_calls import HighLevelCalls
from memrt.runtime.loop.observer import LoopObserver, NoObserver
from memrt.runtime.loop.record import RunRecord
from memrt.runtime.loop.step_frames import StepFrames
from memrt.runtime.memory.keyframe_reply import KeyframeReply, format_keyframe_reply
from memrt.runtime.policy.high_level import HighLevelPolicy, HighLevelResult
from memrt.runtime.policy.vlm_session import VlmSession
from memrt.runtime.recording.reader import Recording
from memrt.runtime.recording.recorder import McapRecorder
from memrt.runtime.recording.replay import replay
from memrt.runtime.types import Frame, Observation

MEMER = load_policy(Path(__file__).parents[1] / "keyframes" / "two_views.yaml")
# Small pictures of 8 visual tokens each: the shape of a request does not depend on them.
POLICY = msgspec.structs.replace(
    MEMER,
    high_level=msgspec.structs.replace(MEMER.high_level, image_size=(128, 64), context_tokens=512, max_new_tokens=8),
)
TOKENS = 8
ENOUGH = 11
GOAL = "pick up the red cube and place it on the target, then press the button to stop"
DT_NS = 50_000_000
STRIDE = 5  # control steps, and raw ticks, between recent frames


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Path:
    from memrt.export.vlm_graphs import export_vlm

    out, high_level = tmp_path_factory.mktemp("memer") / "hl", POLICY.high_level
    export_vlm(checkpoint, None, out, capacity=high_level.context_tokens, image_sizes=[high_level.frame_size])
    return out


class Episode:
    """Calls every 20 steps on pictures of which no two are the same. The VLM's weights are random, so its own answers
    name no frame: after each the test lets it have said that the second of the recent frames is worth remembering,
    until there are enough."""

    def __init__(self, folder: Path) -> None:
        self.session = VlmSession.from_folder(folder)
        self.policy = HighLevelPolicy.of(POLICY, self.session)
        self._generate = self.session.generate
        self.session.generate = self._answer  # type: ignore[method-assign]
        self.heard: list[str] = []
        self.left_to_read: list[int] = []  # tokens of each prompt that were not computed before
        self.frames = StepFrames(self.policy, DT_NS, 20)

    def _answer(self, *arguments, **options):
        said = self._generate(*arguments, **options)
        self.heard.append(said.text)
        self.left_to_read.append(said.prompt_tokens - said.reused_tokens)
        positions = (2,) if len(self.heard) < ENOUGH else ()
        return replace(said, text=format_keyframe_reply(KeyframeReply("pick up the red cube", positions)))

    def run(
        self, steps: Sequence[int], observer: LoopObserver | None = None, *, ahead: bool = False
    ) -> list[HighLevelResult]:
        """`ahead`: the VLM reads each call ahead when its last frame but one is there, as it does in real time."""
        record, clock = RunRecord("lockstep", GOAL, 0), MonotonicClock()
        calls = HighLevelCalls(self.policy, record, clock=clock, trace=None, observer=observer or NoObserver())
        state, results = self.policy.initial(), []
        for step in range(max(steps) + 1):
            t_ns = step * DT_NS
            call_ns = min(call for call in steps if call >= step) * DT_NS
            wanted = self.frames.wants(state, t_ns, call_ns)
            if not wanted and step not in steps:
                continue
            frames = {
                name: Frame(name, step, t_ns, tiny.image(7 * step + k)) for k, name in enumerate(("wrist", "front"))
            }
            seen = Observation(t_ns, np.zeros(8), frames, self.frames)
            if wanted:
                self.frames.add(seen, state, call_ns)
            if ahead and step + STRIDE in steps:
                due_ns = t_ns + STRIDE * DT_NS
                calls.read_ahead(self.policy, GOAL, seen, state, due_ns, t_ns=t_ns, cancelled=lambda: False)
            if step in steps:
                results.append(calls.ask(GOAL, seen, state, t_ns=t_ns))
                state = results[-1].state
        return results


def test_sixteen_images_are_shown_and_only_new_ones_are_computed(folder: Path) -> None:
    episode = Episode(folder)
    encoded = []
    compute = episode.session._encoder._compute
    episode.session._encoder._compute = lambda *a: encoded.append(a[0]) or compute(*a)  # type: ignore[method-assign]
    results = episode.run([*range(0, 601, 60), 620])
    last = results[-1]
    assert (len(last.request.keyframes), len(last.request.recent)) == (8, 8)
    assert last.request.user.count("<image>") == 16
    assert list(last.request.keyframes) == sorted(last.request.keyframes)
    assert last.request.keyframes == results[-2].request.keyframes
    assert last.reused_tokens > 8 * TOKENS  # they lie in the prefix that the call before had computed
    assert last.counts == {}
    assert len(encoded) == len(set(encoded)) == 1 + 10 * 8 + 4
    assert len(last.state.votes.held()) == len(episode.policy._images.store)


def test_the_answers_are_those_of_a_session_that_reuses_nothing(folder: Path) -> None:
    """Same prompts and pictures up to JPEG: what is found in caches is what would have been computed."""
    reusing, fresh = Episode(folder), Episode(folder)
    fresh.session.reuse = False
    results = reusing.run([0, 20, 40, 60])
    again = fresh.run([0, 20, 40, 60])
    assert [r.request for r in results] == [r.request for r in again]
    assert reusing.heard[0] == fresh.heard[0] != ""
    assert results[-1].reused_tokens > again[-1].reused_tokens == 0


def test_a_call_that_was_read_ahead_has_only_its_newest_frame_to_read(folder: Path) -> None:
    steps = [*range(0, 601, 60), 620]
    at_once, ahead = Episode(folder), Episode(folder)
    plain, read = at_once.run(steps), ahead.run(steps, ahead=True)
    assert [r.request for r in read] == [r.request for r in plain]
    assert ahead.heard == at_once.heard
    assert read[-1].request.keyframes != ()
    for before, now in zip(at_once.left_to_read[1:-1], ahead.left_to_read[1:-1], strict=True):
        assert TOKENS < now <= before - 7 * TOKENS  # the newest of eight, and the question


def test_a_context_that_is_too_small_is_refused(folder: Path) -> None:
    policy = HighLevelPolicy.from_folder(POLICY, folder)
    seen = Observation(0, np.zeros(8), {name: Frame(name, 0, 0, tiny.image(1)) for name in ("wrist", "front")})
    with pytest.raises(MemrtError, match="prompt too long"):
        policy.call("word " * 3000, seen, policy.initial())


def test_an_episode_finds_no_features_of_the_one_before(folder: Path) -> None:
    """Those of a frame that came back as JPEG are not those of the frame as it was first seen."""
    episode = Episode(folder)
    episode.run([0, 20])
    assert episode.session._encoder.frames > 0
    episode.policy.initial()
    assert episode.session._encoder.frames == 0


@pytest.mark.parametrize("ahead", [False, True])
def test_a_recorded_episode_is_computed_again_bit_for_bit(folder: Path, tmp_path: Path, ahead: bool) -> None:
    """Votes, keyframes and past frames come out of the recording alone; pixels are recorded once."""
    steps = range(0, 301, 60)
    with McapRecorder(tmp_path / "run.mcap", {}) as recorder:
        results = Episode(folder).run(steps, recorder, ahead=ahead)
    assert len(results[-1].request.keyframes) > 0
    recording = Recording(tmp_path / "run.mcap")
    verdict = replay(recording, Episode(folder).policy, NoLowLevel())
    assert verdict.equal, verdict.first
    assert verdict.stages["high level"].equal == len(steps)
    frames = recording.summary().counts
    assert frames["/frames/front"] == frames["/frames/wrist"] < 8 * len(steps)


class NoLowLevel:
    """Nothing is recorded of one."""
