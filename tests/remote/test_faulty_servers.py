"""A real connection to servers that fail in every way: each is a miss of its kind, and none holds the caller up."""

import threading

import numpy as np
import pytest
from openai_double import WAIT_S, OpenAiDouble, completion, drips, hangs, reset, serving
from scripted_link import OnBoard

from memrt.runtime.clock import MonotonicClock
from memrt.runtime.config import load_policy
from memrt.runtime.errors import MemrtError
from memrt.runtime.policy.remote import link
from memrt.runtime.policy.remote.link import Link
from memrt.runtime.policy.remote.transport import MAX_REPLY_BYTES
from memrt.runtime.policy.remote.vlm import RemoteVlm
from memrt.runtime.remote_config import RemoteConfig

POLICY = load_policy("am_grounded")
IMAGE = np.zeros((8, 8, 3), np.uint8)
NEVER_S = 0.1  # to wait for what never comes

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


@pytest.fixture(scope="module")
def server():
    with serving() as double:
        yield double


@pytest.fixture(autouse=True)
def healed(server, monkeypatch):
    for limit in ("CONNECT_S", "GREETING_S"):  # a machine that stalls is not what is tested
        monkeypatch.setattr(link, limit, WAIT_S)
    yield
    server.fail = server.fail_models = None
    server.models = ("am_grounded",)


def opened(server: OpenAiDouble, *, on_board: bool = True, **settings: object) -> RemoteVlm:
    config = RemoteConfig(
        **{"endpoint": server.endpoint, "on_board": "here" if on_board else "hold", "deadline_s": WAIT_S, **settings}
    )
    vlm = RemoteVlm.open(POLICY, config, OnBoard() if on_board else None)
    vlm._cold_calls = 0
    return vlm


def ask(vlm: RemoteVlm):
    return vlm.generate("be brief", "goal <image>now?", [IMAGE], 16)


FAULTS = [
    ("hangs", hangs, "late"),
    ("drips a body", drips(OK + b"Content-Length: 100000\r\n\r\n"), "late"),
    ("drips a header", drips(OK + b"X-Long: "), "late"),
    ("drips a status line", drips(b"HTTP/1.1 2"), "late"),
    ("drips chunks", drips(OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\n"), "late"),
    ("speaks no HTTP", lambda h: h.raw(b"SSH-2.0-OpenSSH_9.2\r\n" * 4), "unreadable"),
    ("closes at once", lambda h: h.raw(b""), "broken off"),
    ("ends in the body", lambda h: h.raw(OK + b"Content-Length: 100\r\n\r\n{"), "broken off"),
    ("ends in a chunk", lambda h: h.raw(OK + b"Transfer-Encoding: chunked\r\n\r\n50\r\n{"), "broken off"),
    ("no chunk size", lambda h: h.raw(OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{"), "broken off"),
    ("resets", lambda h: reset(h.connection), "broken off"),
    ("sends no JSON", lambda h: h.reply(b"<html>hello</html>"), "unreadable"),
    ("sends other JSON", lambda h: h.reply(b'{"choices": "none"}'), "unreadable"),
    ("sends no choice", lambda h: h.reply(b'{"choices": []}'), "unreadable"),
    ("sends no text", lambda h: h.reply(b'{"choices": [{"message": {"content": null}}]}'), "unreadable"),
    ("sends no UTF-8", lambda h: h.reply(completion("x").replace(b"x", b"\xff")), "unreadable"),
    ("sends deep JSON", lambda h: h.reply(b'{"choices":' + b"[" * 100_000), "unreadable"),
    ("sends too much", lambda h: h.reply(completion("x" * MAX_REPLY_BYTES)), "unreadable"),
    ("sends for ever", lambda h: h.raw(OK + b"Connection: close\r\n\r\n" + b" " * (2 * MAX_REPLY_BYTES)), "unreadable"),
    ("zips", lambda h: h.reply(completion("x"), Content_Encoding="gzip"), "unreadable"),
    ("is overloaded", lambda h: h.reply(b"try again", 503), "refused"),
    ("fails", lambda h: h.reply(b'{"error": "out of memory"}', 500), "refused"),
    ("forgot the key", lambda h: h.reply(b"", 401), "refused"),
    ("redirects", lambda h: h.reply(b"", 307, Location="http://elsewhere/v1/chat/completions"), "refused"),
]


@pytest.mark.parametrize(("fault", "kind"), [pytest.param(f, kind, id=name) for name, f, kind in FAULTS])
def test_every_fault_is_a_miss_and_the_one_on_board_answers(server, fault, kind):
    vlm = opened(server, deadline_s=NEVER_S if kind == "late" else WAIT_S)
    try:
        server.fail = fault
        answer = ask(vlm)
        assert (answer.text, answer.answered_by) == ("on board", "on board")
        assert answer.counts == {f"remote: {kind}": 1, "answered on board": 1}
        assert answer.missed.startswith(kind)
        assert "\n" not in answer.missed
        if kind != "late":  # and what it left behind does not spoil the next answer
            server.fail = None
            assert ask(vlm).answered_by == "remote"
    finally:
        vlm.close()


def test_an_answer_and_what_the_server_is_asked(server, monkeypatch):
    monkeypatch.setenv("LAB_KEY", "sk-123")
    vlm = opened(server, api_key_env="LAB_KEY", extra_body={"skip_special_tokens": False})
    answer = ask(vlm)
    vlm.close()
    assert (answer.text, answer.answered_by, answer.new_tokens) == ("pick up the red cube", "remote", 7)
    assert server.keys[-1] == "Bearer sk-123"
    asked = server.asked[-1]
    assert (asked["model"], asked["skip_special_tokens"], asked["temperature"]) == ("am_grounded", False, 0)


def test_a_server_that_disappears_and_comes_back_answers_again():
    with serving() as double:
        vlm = opened(double, misses_before_pause=100)
        assert ask(vlm).answered_by == "remote"
        double.stop()
        gone = ask(vlm)
        assert gone.answered_by == "on board"
        assert set(gone.counts) <= {"remote: no connection", "remote: broken off", "answered on board"}
        assert ask(vlm).missed.startswith("no connection")
        double.start()
        assert ask(vlm).answered_by == "remote"
        vlm.close()


def test_an_idle_connection_that_the_server_closed_is_no_miss(server):
    vlm = opened(server)
    assert ask(vlm).answered_by == "remote"
    for connection in server._connections:
        reset(connection)
    assert ask(vlm).counts == {"answered by remote": 1}
    vlm.close()


def test_a_late_answer_is_never_taken_for_the_next_ones(server):
    vlm = opened(server, deadline_s=NEVER_S, misses_before_pause=100)
    told = threading.Event()
    server.fail = lambda h: (told.wait(WAIT_S), h.reply(completion("old")))
    assert ask(vlm).answered_by == "on board"
    server.fail = None
    vlm._deadline_ns = round(WAIT_S * 1e9)
    told.set()
    answer = ask(vlm)
    assert (answer.text, answer.answered_by) == ("pick up the red cube", "remote")
    vlm.close()


def test_closing_does_not_wait_for_a_server_that_hangs(server):
    vlm = opened(server, deadline_s=NEVER_S)
    server.fail = hangs
    ask(vlm)
    thread = vlm._link._thread
    vlm.close()
    thread.join(WAIT_S)
    assert not thread.is_alive()


def test_a_server_that_is_down_at_the_start_is_no_error_where_somebody_answers_in_its_place():
    with serving() as double:
        endpoint = double.endpoint
    with serving(port=0) as other:
        other.stop()
        vlm = opened(other)
        assert vlm.down.startswith("no connection")
        assert ask(vlm).answered_by == "on board"
        other.start()
        assert ask(vlm).answered_by == "remote"  # it found the model by itself
        vlm.close()
    with pytest.raises(MemrtError, match=f"high level at {endpoint}: expected a server that answers"):
        RemoteVlm.open(POLICY, RemoteConfig(endpoint=endpoint, on_board="hold"), None)


@pytest.mark.parametrize(
    ("fault", "hint"),
    [
        (lambda h: h.reply(b"who are you", 401), "expected to be let in with no key, found refused: HTTP 401"),
        (lambda h: h.reply(b"", 403), "remote.api_key_env"),
        (lambda h: h.reply(b"", 404), "as a rule it ends in /v1"),
        (lambda h: h.reply(b"", 308, Location="https://host/v1/models"), "a redirect to 'https://host/v1/models'"),
        (lambda h: h.reply(b"<html>my printer</html>"), "no list of models"),
        (lambda h: h.raw(b"SSH-2.0\r\n"), "unreadable"),
    ],
)
def test_wrong_settings_are_one_line_at_the_start(server, fault, hint):
    server.fail_models = fault
    with pytest.raises(MemrtError, match=hint) as caught:
        opened(server)
    assert str(caught.value).startswith(f"high level at {server.endpoint}: expected ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("wanted", "served", "chosen"),
    [
        ("", ("Qwen3-VL-4B", "am_grounded"), "am_grounded"),
        ("", ("Qwen3-VL-4B",), "Qwen3-VL-4B"),
        ("Qwen3-VL-4B", ("Qwen3-VL-4B", "am_grounded"), "Qwen3-VL-4B"),
        ("", ("one", "two"), None),
        ("three", ("one", "two"), None),
        ("", (), None),
    ],
)
def test_which_model_is_asked(server, wanted, served, chosen):
    server.models = served
    if chosen is None:
        with pytest.raises(MemrtError, match=f"served: {', '.join(served) or 'none'}"):
            opened(server, model=wanted)
        return
    vlm = opened(server, model=wanted)
    ask(vlm)
    vlm.close()
    assert server.asked[-1]["model"] == chosen


def test_a_key_that_is_not_there_is_told_before_anything_is_asked(server, monkeypatch):
    monkeypatch.delenv("LAB_KEY", raising=False)
    with pytest.raises(MemrtError, match="its key in the environment variable LAB_KEY, found nothing"):
        Link(RemoteConfig(endpoint=server.endpoint, on_board="hold", api_key_env="LAB_KEY"), "p", MonotonicClock())
