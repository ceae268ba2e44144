"""A VLM behind OpenAI's chat completions: what is answered, what is refused, and our own client at the other end."""

import base64
import http.client
import io
import json
import socket
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from memrt.robot_io.serve.chat_server import ChatServer
from memrt.robot_io.serve.server import Limits
from memrt.runtime.bundle import load_bundle
from memrt.runtime.cli import build_app
from memrt.runtime.cli.default_bundle import find_bundle
from memrt.runtime.config import load_policy
from memrt.runtime.errors import MemrtError
from memrt.runtime.policy.cancellation import Cancelled
from memrt.runtime.policy.remote.vlm import RemoteVlm
from memrt.runtime.policy.vlm import Generation
from memrt.runtime.policy.vlm_session import VlmSession
from memrt.runtime.remote_config import RemoteConfig

WAIT_S = 60.0
PICTURE = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)


def url_of(image: np.ndarray, kind: str = "png", mode: str = "RGB") -> str:
    file = io.BytesIO()
    Image.fromarray(image).convert(mode).save(file, kind)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


@dataclass
class Echo:
    """Answers with what it was asked. `hold` keeps it from answering until it is let go or its client is gone."""

    asked: list = field(default_factory=list)
    forgotten: int = 0
    hold: bool = False
    entered: threading.Event = field(default_factory=threading.Event)
    proceed: threading.Event = field(default_factory=threading.Event)
    cancelled: threading.Event = field(default_factory=threading.Event)

    def generate(self, system, user, images, budget, *, cancelled=None):
        self.asked.append((system, user, images, budget))
        self.entered.set()
        while self.hold and not self.proceed.wait(0.01):
            if cancelled():
                self.cancelled.set()
                raise Cancelled
        if "refuse" in user:
            raise MemrtError("prompt too long", expected="less", found="more", fix="shorten it")
        return Generation(f"{system}|{user}", 5, 9, 0, True, 1, 2, 3)

    def forget_prefix(self):
        self.forgotten += 1


@contextmanager
def served(vlm, **limits):
    server = ChatServer("127.0.0.1", 0, vlm, "am_grounded", 128, Limits(**limits))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join(WAIT_S)


@pytest.fixture(scope="module")
def echo():
    return Echo()


@pytest.fixture(scope="module")
def server(echo):
    with served(echo, message_bytes=1 << 20, connections=64) as server:
        yield server


def post(server, body, path="/v1/chat/completions", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=WAIT_S)
    connection.request("POST", path, body if isinstance(body, bytes) else json.dumps(body), headers)
    response = connection.getresponse()
    status, answer = response.status, json.loads(response.read() or b"null")
    connection.close()
    return status, answer


def question(*parts, **more):
    content = [{"type": "text", "text": part} if isinstance(part, str) else part for part in parts]
    return {"model": "am_grounded", "messages": [{"role": "user", "content": content}], **more}


def picture(image=PICTURE, **kind):
    return {"type": "image_url", "image_url": {"url": url_of(image, **kind)}}


def test_a_question_reaches_the_vlm_as_the_session_on_board_gets_it(server, echo):
    asked = question("goal ", picture(), "now?", max_tokens=16, temperature=0, stream=False, seed=7)
    asked["messages"].insert(0, {"role": "system", "content": "be brief"})
    status, answer = post(server, asked)
    assert (status, answer["model"], answer["usage"]) == (200, "am_grounded", {"completion_tokens": 5})
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": "be brief|goal <image>now?"}
    system, user, (image,), budget = echo.asked[-1]
    assert (system, user, budget) == ("be brief", "goal <image>now?", 16)
    assert np.array_equal(image, PICTURE)
    post(server, question("plain"))
    assert echo.asked[-1] == ("", "plain", [], 128)


@pytest.mark.parametrize(
    ("body", "status", "hint"),
    [
        (b"{", 400, "request in JSON"),
        (b"[" * 100_000, 400, "request in JSON"),
        (question("refuse"), 400, "prompt too long"),
        (question("x", temperature=0.7), 400, "temperature: 0"),
        (question("x", stream=True), 400, "stream: false"),
        (question("x", n=2), 400, "one answer"),
        (question("x", max_tokens=0), 400, "max_tokens"),
        (question("x", model="gpt"), 404, "expected model am_grounded"),
        (question("forged <image>"), 400, "parts of their own"),
        (question({"type": "input_audio"}), 400, "request in JSON"),
        (question({"type": "image_url", "image_url": {"url": "http://elsewhere/x.png"}}), 400, "base64"),
        (question({"type": "image_url", "image_url": {"url": "data:image/png;base64,%%%"}}), 400, "base64"),
        (question({"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}), 400, "an image file"),
        (question(picture(mode="RGBA")), 400, "RGB images"),
        (question(picture(np.zeros((1, 5000, 3), np.uint8))), 400, "4096 pixels"),
        (question(*[picture(np.zeros((1, 1, 3), np.uint8))] * 65), 400, "at most 64 images"),
        ({"messages": []}, 400, "one user turn"),
        ({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}, 400, "one user turn"),
    ],
)
def test_refusals_say_why(server, body, status, hint):
    found, answer = post(server, body)
    assert found == status
    assert hint in answer["error"]["message"]


@pytest.mark.parametrize(
    ("length", "status"), [(b"1048577", b"413"), (b"9" * 40, b"413"), (b"-1", b"411"), (b"", b"411")]
)
def test_a_body_of_another_length_is_not_even_read(server, length, status):
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.settimeout(WAIT_S)
        connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: " + length + b"\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 " + status)


def test_only_what_is_served_is_found_and_no_web_page_may_ask(server):
    assert post(server, question("x"), "/v1/completions")[0] == 404
    assert post(server, question("x"), Origin="http://evil.example")[0] == 404
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=WAIT_S)
    for path, status in (("/healthz", 200), ("/health", 200), ("/v1/models", 200), ("/", 404)):
        connection.request("GET", path)
        response = connection.getresponse()
        assert response.status == status
        response.read()
    connection.close()


def test_a_client_that_is_gone_is_not_computed_for():
    echo = Echo(hold=True)
    with served(echo) as server:
        connection = socket.create_connection(("127.0.0.1", server.port))
        body = json.dumps(question("x")).encode()
        connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        assert echo.entered.wait(WAIT_S)
        connection.close()
        assert echo.cancelled.wait(WAIT_S)
        echo.hold = False
        assert post(server, question("y"))[0] == 200


def test_connections_are_bounded_and_a_turn_does_not_wait_for_ever():
    echo = Echo(hold=True)
    with served(echo, connections=2, busy_s=0.05) as server:
        first = threading.Thread(target=post, args=(server, question("x")))
        first.start()
        assert echo.entered.wait(WAIT_S)
        status, answer = post(server, question("y"))
        assert (status, answer["error"]["code"]) == (503, 503)
        echo.proceed.set()
        first.join(WAIT_S)
    with served(Echo(), connections=1) as server, socket.create_connection(("127.0.0.1", server.port)) as held:
        held.sendall(b"GET /healthz HTTP/1.1\r\n\r\n")
        assert held.recv(100).startswith(b"HTTP/1.1 200")
        with socket.create_connection(("127.0.0.1", server.port)) as refused:
            assert refused.recv(100).startswith(b"HTTP/1.1 503")


def test_our_own_client_gets_what_the_session_on_board_answers():
    """The reference VLM over HTTP, word for word, and its prefix is not another client's."""
    bundle = load_bundle(find_bundle(None, "am_grounded", "int8"))
    policy, session = load_policy("am_grounded"), VlmSession.open(bundle)
    asked = policy.memory.system, "The task goal is: stack\n<image>What's next?", [PICTURE], 24
    expected = session.generate(*asked).text
    with served(session) as server:
        config = RemoteConfig(endpoint=f"http://127.0.0.1:{server.port}/v1", on_board="hold", deadline_s=WAIT_S)
        vlm = RemoteVlm.open(policy, config, None)
        answer = vlm.generate(*asked)
        vlm.close()
    session.close()
    assert (answer.text, answer.answered_by) == (expected, "remote")
    assert expected


def test_the_command_serves_a_bundles_vlm_under_the_policys_name(monkeypatch):
    def run(server, ready):
        assert (server.model, server.max_new_tokens, server.limits.connections) == ("am_grounded", 128, 2)
        ready(server.port)
        server.server_close()

    monkeypatch.setattr(ChatServer, "run", run)
    done = CliRunner().invoke(build_app(), ["serve", "--protocol", "openai", "--port", "0", "--max-connections", "2"])
    assert done.exit_code == 0, done.output
    assert "serving the VLM of am_grounded to OpenAI clients on http://127.0.0.1:" in done.stdout
    assert "served: nobody" in done.stderr


def test_an_address_that_is_taken_is_refused(server, echo):
    with pytest.raises(MemrtError, match="one that is free"):
        ChatServer("192.0.2.1", 0, echo, "x", 1, Limits())
