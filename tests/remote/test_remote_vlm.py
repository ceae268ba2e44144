"""Who answers, and when: on a clock that only the test moves."""

import json

import numpy as np
import pytest
from scripted_link import MS, OnBoard, ScriptedLink

from memrt.runtime.config import load_policy
from memrt.runtime.policy.cancellation import Cancelled, Unanswered
from memrt.runtime.policy.frame_features import ShownImage
from memrt.runtime.policy.high_level import HighLevelPolicy
from memrt.runtime.policy.remote.chat import Completion
from memrt.runtime.policy.remote.transport import Missed
from memrt.runtime.policy.remote.vlm import COLD_CALLS, RemoteVlm
from memrt.runtime.remote_config import RemoteConfig
from memrt.runtime.types import Frame, Observation

IMAGE = np.zeros((8, 8, 3), np.uint8)
YES = Completion("remote", 7)
GONE = Missed("no connection", "ConnectionRefusedError")


class Scene:
    """A remote VLM with a deadline of one second and a pause after two misses in a row."""

    def __init__(self, *script, on_board: bool = True, warm: bool = True) -> None:
        self.link = ScriptedLink(list(script))
        self.clock = self.link.clock
        self.on_board = OnBoard(clock=self.clock) if on_board else None
        config = RemoteConfig(
            endpoint="http://127.0.0.1:1/v1", on_board="here" if on_board else "hold", misses_before_pause=2
        )
        self.vlm = RemoteVlm(config, self.link, self.on_board, clock=self.clock)
        if warm:
            self.vlm._cold_calls = 0

    def ask(self, cancelled=None):
        return self.vlm.generate("be brief", "goal <image>now?", [IMAGE], 16, cancelled=cancelled)

    def timed(self):
        began_ns = self.clock.now_ns()
        return self.ask(), (self.clock.now_ns() - began_ns) // MS


def test_an_answer_in_time_is_the_remotes():
    scene = Scene((200, YES))
    answer, took_ms = scene.timed()
    assert (answer.text, answer.answered_by, answer.missed, answer.new_tokens) == ("remote", "remote", "", 7)
    assert took_ms == 200
    assert answer.counts == {"answered by remote": 1}
    assert scene.on_board.asked == 0


def test_at_the_deadline_the_one_on_board_is_asked_the_same():
    scene = Scene((1400, YES), (100, YES))
    answer, took_ms = scene.timed()
    assert (answer.text, answer.answered_by) == ("on board", "on board")
    assert answer.missed == "late: no answer within 1 s"
    assert took_ms == 1000 + 50
    assert answer.counts == {"remote: late": 1, "answered on board": 1}
    assert (answer.prefill_ns, answer.new_tokens) == (2, 3)
    scene.clock.pass_ms(800)  # its answer comes in, and is of no use any more
    assert scene.ask().counts == {"answered by remote": 1, "remote: late answers dropped": 1}


def test_a_failure_is_not_waited_for():
    answer, took_ms = Scene((3, GONE)).timed()
    assert (answer.answered_by, took_ms) == ("on board", 53)
    assert answer.counts == {"remote: no connection": 1, "answered on board": 1}


def test_after_misses_in_a_row_the_remote_is_left_alone_and_tried_in_the_background():
    scene = Scene((1, GONE), None, (300, GONE), (400, YES), (10, YES))
    scene.ask()
    assert scene.ask().counts == {"remote: late": 1, "remote: pauses": 1, "answered on board": 1}
    answer, took_ms = scene.timed()
    assert (answer.counts, took_ms) == ({"remote: left alone": 1, "answered on board": 1}, 50)
    assert len(scene.link.bodies) == 2
    scene.clock.pass_ms(1000)  # the first pause is over
    assert scene.timed()[1] == 50  # asked, but not waited for
    assert len(scene.link.bodies) == 3
    scene.clock.pass_ms(400)  # it failed
    assert scene.ask().answered_by == "on board"
    scene.clock.pass_ms(1000)
    assert scene.ask().answered_by == "on board"
    assert len(scene.link.bodies) == 3  # the second pause has two seconds
    scene.clock.pass_ms(1000)
    assert scene.ask().answered_by == "on board"
    assert len(scene.link.bodies) == 4
    scene.clock.pass_ms(400)  # it answered
    assert scene.ask().answered_by == "remote"


def test_a_trial_that_is_under_way_is_the_only_one():
    scene = Scene((1, GONE), (1, GONE), (900, YES), (10, YES))
    scene.ask(), scene.ask()
    scene.clock.pass_ms(1000)
    for _ in range(5):
        assert scene.ask().answered_by == "on board"
    assert len(scene.link.bodies) == 3
    scene.clock.pass_ms(900)
    assert scene.ask().answered_by == "remote"


def test_an_answer_after_its_deadline_is_no_reason_to_ask_again():
    scene = Scene((1, GONE), (1, GONE), (1200, YES))
    scene.ask(), scene.ask()
    scene.clock.pass_ms(1000)
    scene.ask()
    scene.clock.pass_ms(1300)
    assert scene.ask().counts["remote: left alone"] == 1
    assert len(scene.link.bodies) == 3


def test_with_nobody_on_board_the_call_goes_unanswered():
    scene = Scene((1, GONE), None, (200, YES), on_board=False)
    with pytest.raises(Unanswered, match="ConnectionRefusedError") as caught:
        scene.ask()
    assert caught.value.counts == {"remote: no connection": 1}
    with pytest.raises(Unanswered, match="no answer within 1 s"):
        scene.ask()
    with pytest.raises(Unanswered, match="left alone"):
        scene.ask()
    scene.clock.pass_ms(1000)
    assert scene.timed()[1] == 200  # nobody else answers, so the trial is waited for
    assert scene.vlm.held_bytes == {"pictures sent": 0}


@pytest.mark.parametrize("at_ms", [0, 300])
def test_a_call_that_is_not_wanted_any_more_ends_within_a_look(at_ms):
    scene = Scene(None, (5, YES))
    began_ns = scene.clock.now_ns()
    with pytest.raises(Cancelled):
        scene.ask(cancelled=lambda: scene.clock.now_ns() - began_ns >= at_ms * MS)
    assert (scene.clock.now_ns() - began_ns) // MS <= at_ms + 20
    assert scene.on_board.forgotten == ["prefix"]  # so that a replay finds the same rows wherever it ended
    assert scene.ask().answered_by == "remote"  # giving up says nothing about the server


def test_the_first_answers_warm_the_one_on_board_up():
    scene = Scene(*[(10, YES)] * 4, warm=False)
    assert [scene.ask().answered_by for _ in range(4)] == ["remote"] * 4
    assert scene.on_board.asked == COLD_CALLS
    assert scene.on_board.forgotten == ["prefix"] * COLD_CALLS


def test_reading_ahead_is_for_the_one_on_board_while_the_remote_is_left_alone():
    scene = Scene((1, GONE), (1, GONE))
    shown = ShownImage(5, lambda: IMAGE)
    assert scene.vlm.read_ahead("", "<image><image>", [shown]) == 0
    assert scene.vlm.held_bytes["pictures sent"] > 0  # ready to be sent
    scene.ask(), scene.ask()
    assert scene.vlm.read_ahead("", "<image><image>", [shown]) == 7
    assert scene.on_board.ahead == 1
    scene.vlm.forget()
    assert scene.vlm.held_bytes == {"K/V": 10, "pictures sent": 0}
    scene.vlm.close()
    assert scene.link.closed
    assert scene.on_board.closed


def test_a_keyframe_policys_pictures_are_sent_in_order_and_encoded_once():
    """Keyframes, then recent frames; the one on board could not have been told apart by memory."""
    policy = load_policy("memer")
    said = Completion('{"current_subtask": "look", "keyframe_positions": [1]}', None)
    scene = Scene(*[(1, said)] * 3)
    high_level = HighLevelPolicy.of(policy, scene.vlm)
    state, step_ns = high_level.initial(), 10_000_000_000  # so far apart that each call's frame is an event of its own
    height, width = policy.high_level.frame_size
    for call in range(3):
        image = np.full((height, width, 3), 80 * call, np.uint8)
        frames = {name: Frame(name, call, call * step_ns, image) for name in policy.high_level_cameras}
        result = high_level.call("goal", Observation(call * step_ns, np.zeros(8), frames), state)
        state = result.state
        assert (result.subgoal, result.answered_by) == ("look", "remote")
    bodies = [json.loads(body)["messages"][-1]["content"] for body in scene.link.bodies]
    urls = [[part["image_url"]["url"] for part in body if part["type"] == "image_url"] for body in bodies]
    assert [len(shown) for shown in urls] == [1, 2, 3]
    assert urls[2][:1] == urls[1][:1] == urls[0]  # as it was first sent, though it is kept as JPEG
    assert urls[2][1] == urls[1][1]


def test_the_question_on_its_way():
    """The wire format, word for word; the picture is a lossless PNG."""
    scene = Scene((1, YES))
    scene.ask()
    url = "data:image/png;base64,"
    asked = json.loads(scene.link.bodies[0])
    part = asked["messages"][1]["content"][1]
    assert part["image_url"]["url"].startswith(url)
    part["image_url"]["url"] = url
    assert asked == {
        "model": "model",
        "messages": [
            {"role": "system", "content": "be brief"},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "goal "},
                    {"type": "image_url", "image_url": {"url": url}},
                    {"type": "text", "text": "now?"},
                ],
            },
        ],
        "max_tokens": 16,
        "temperature": 0,
        "stream": False,
    }
