"""Labels from a model that is served: the report's prompts, its rules enforced, nothing asked twice."""

import base64
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "remote"))
from openai_double import completion, serving

from memrt.runtime.errors import MemrtError
from memrt.train.labels.endpoint import Check, EndpointLabels, EndpointSettings, KeptAnswers

GOAL = "first press the button, then pick up the container hiding the red cube"
PRESS, PICK = "press the button <60, 100>", "pick up the container <128, 60> that hides the red cube"
EPISODE = [
    {"goal": GOAL, "step": 0, "history_grounded": [], "history_simple": []},
    {"goal": GOAL, "step": 16, "history_grounded": [PRESS], "history_simple": ["press the button"]},
    {"goal": GOAL, "step": 32, "history_grounded": [PRESS, "", PRESS], "history_simple": ["press the button"]},
]
CALLS = range(len(EPISODE))


def front(sample):
    return b"PNG of step %d" % sample["step"]


@pytest.fixture
def server():
    with serving(rule=lambda asked: "I pressed the button.") as double:
        yield double


@pytest.fixture
def made(server, tmp_path):
    """Makes generators that share one file of answers; what they would have slept is in `made.slept`."""

    def make(front=front, **settings):
        body = settings.pop("body", {})
        chosen = EndpointSettings(server.endpoint, "labeller", body=body, **settings)
        return EndpointLabels(chosen, tmp_path / "answers.jsonl", front, make.slept.append)

    make.slept = []
    return make


def test_action_memories_are_asked_for_in_the_reports_words(server, made):
    assert made().action("grounded", EPISODE, CALLS) == ["I pressed the button."] * 3
    first, second = server.asked  # the third call's history is the second's, duplicates removed
    assert {name: first[name] for name in first if name != "messages"} == {
        "model": "labeller",
        "temperature": 1.0,
        "reasoning_effort": "low",
        "max_completion_tokens": 600,
    }
    system, user = second["messages"]
    assert system["role"] == "system"
    assert system["content"].startswith(
        "You are generating compressed memory summaries for a robot manipulation policy that outputs grounded "
        '(pixel-pointed) subgoals like "pick up the red cube <120, 88>". Given the history of completed subtasks'
    )
    assert system["content"].endswith(
        "- Keep the summary under 90 words\n"
        "- Write entirely in English using only standard ASCII characters\n"
        "- Output ONLY the summary text, no preamble or explanation"
    )
    [text] = user["content"]
    assert text["text"] == (
        f'Task goal: "{GOAL}"\n'
        f"The history of completed subtasks: 1. {PRESS}\n"
        "Generate a compressed memory summary of the current state."
    )
    assert "The history of completed subtasks: (none yet)\n" in first["messages"][1]["content"][0]["text"]


def test_spatial_memories_are_a_chain_with_the_images(server, made):
    server.rule = lambda asked: f"Red cube at the left, look {len(server.asked)}."
    assert made().spatial("simple", EPISODE, CALLS)[-1] == "Red cube at the left, look 3."
    asked = [ask["messages"][1]["content"] for ask in server.asked]
    priors = [parts[0]["text"].split("\n\n")[1] for parts in asked]
    assert priors == [
        "Prior spatial memory: (none yet --- this is the initial observation)",
        "Prior spatial memory: <spatial_mem>Red cube at the left, look 1.</spatial_mem>",
        "Prior spatial memory: <spatial_mem>Red cube at the left, look 2.</spatial_mem>",
    ]
    images = [parts[1]["image_url"]["url"].removeprefix("data:image/png;base64,") for parts in asked]
    assert [base64.b64decode(image) for image in images] == [front(sample) for sample in EPISODE]
    assert server.asked[0]["messages"][0]["content"].endswith("- Output ONLY the spatial memory, no preamble.")


def test_bad_answers_are_asked_for_again(server, made):
    answers = iter(
        [
            "",
            "I pressed the \N{LEFT DOUBLE QUOTATION MARK}button\N{RIGHT DOUBLE QUOTATION MARK}.",
            "I pressed " + "and " * 90,
            "I pressed the button <61, 100>.",
            "<mem>I pressed the button.</mem>",
            " I pressed the\nbutton <60, 100>. ",
        ]
    )
    server.rule = lambda asked: next(answers)
    assert made().action("grounded", EPISODE, [1]) == ["I pressed the button <60, 100>."]
    assert len(server.asked) == 6
    assert made.slept == []


def test_what_was_answered_is_never_asked_again(server, made, tmp_path):
    made().action("simple", EPISODE, CALLS)
    with (tmp_path / "answers.jsonl").open("a") as file:
        file.write('{"key": "cut o')  # as by a killed process
    made().spatial("simple", EPISODE, [0])
    asked = len(server.asked)
    again = made()
    assert again.action("simple", EPISODE, CALLS) == ["I pressed the button."] * 3
    assert again.spatial("simple", EPISODE, [0]) == ["I pressed the button."]
    assert len(server.asked) == asked


def test_a_server_that_is_overloaded_is_given_time(server, made):
    busy = iter([503, 429])

    def fail(handler):
        status = next(busy, None)
        handler.reply(b"try again", status) if status else handler.reply(completion("I pressed the button."))

    server.fail = fail
    assert made().action("simple", EPISODE, [1]) == ["I pressed the button."]
    assert made.slept == [1.0, 2.0]


def test_what_cannot_succeed_is_refused_at_once(server, made):
    server.fail = lambda handler: handler.reply(b"no such model", 404)
    with pytest.raises(MemrtError, match="HTTP 404"):
        made().action("simple", EPISODE, [1])
    assert len(server.asked) == 1
    server.fail = None
    server.rule = lambda asked: "I " * 60
    with pytest.raises(MemrtError, match="60 words, not under 50, 3 times"):
        made(attempts=3).action("simple", EPISODE, [1])


def test_the_key_comes_from_the_environment(server, made, monkeypatch):
    monkeypatch.delenv("LABELLER_KEY", raising=False)
    with pytest.raises(MemrtError, match="LABELLER_KEY"):
        made(key_env="LABELLER_KEY")
    monkeypatch.setenv("LABELLER_KEY", "secret")
    body = {"reasoning_effort": None, "seed": 7}
    made(key_env="LABELLER_KEY", body=body).action("simple", EPISODE, [1])
    assert server.keys == ["Bearer secret"]
    assert "reasoning_effort" not in server.asked[0]
    assert server.asked[0]["seed"] == 7


def test_an_address_that_is_none_is_refused(tmp_path):
    with pytest.raises(MemrtError, match="--endpoint"):
        EndpointLabels(EndpointSettings("localhost:8000", "labeller"), tmp_path / "answers.jsonl", front)


def test_any_coordinates_may_be_seen_in_an_image():
    assert Check(70).fault("Red cube at <12, 34>.") == ""
    assert Check(70, ()).fault("Red cube at <12, 34>.") == "coordinates that were not seen: <12, 34>"


def test_the_first_answer_stays(tmp_path):
    kept = KeptAnswers(tmp_path / "below" / "answers.jsonl")
    assert kept.keep("a", "one") == "one"
    assert kept.keep("a", "two") == "one"
    assert KeptAnswers(tmp_path / "below" / "answers.jsonl").get("a") == "one"
