"""vla-eval's protocol: one action per control step, out of the playing chunk; of waiting observations the newest."""

import io
import time

import numpy as np
import pytest
from PIL import Image
from served import POLICY, STATE, picture, served, vla_eval_observation

from memrt.robot_io.serve.arrays import pack, unpack

EXECUTE, EVERY = POLICY.low_level.execute, POLICY.high_level.every_steps


class Client:
    def __init__(self, server):
        self.socket = server.connect()
        self.seq = 0

    def send(self, kind, payload):
        self.seq += 1
        message = {"type": kind, "payload": payload, "seq": self.seq, "timestamp": time.time()}
        self.socket.send(pack(message, text_keys=True))

    def recv(self):
        return unpack(self.socket.recv(60))

    def ask(self, kind, payload):
        self.send(kind, payload)
        return self.recv()


def test_hello_is_answered_with_what_the_benchmark_shall_send():
    with served("vla-eval") as server:
        client = Client(server)
        reply = client.ask("hello", {"harness_version": "0.8.0", "protocol_version": 1})
        assert (reply["type"], reply["seq"]) == ("hello", 1)
        assert reply["payload"]["observation_params"] == {"send_wrist_image": True, "send_state": True}
        assert reply["payload"]["protocol_version"] == 1
        assert client.ask("hello", {"protocol_version": 7})["type"] == "error"


def test_each_observation_gets_the_next_action_of_the_chunk_and_its_number_back():
    with served("vla-eval") as server:
        client = Client(server)
        for episode in range(2):
            client.send("episode_start", {"task": {"name": "PickXtimes"}})
            for step in range(2 * EVERY):
                reply = client.ask("observation", vla_eval_observation())
                assert (reply["type"], reply["seq"]) == ("action", client.seq)
                action = reply["payload"]["actions"]
                assert action.shape == (8,)
                assert action[2] == step % EXECUTE  # how many actions ahead
                assert action[1] == step // EXECUTE  # which call
            client.send("episode_end", {"metrics": {"success": True}})
            calls = server.high_level.calls[2 * episode :]
            assert calls == [("press the button", 0), ("press the button", 1)]


def test_waiting_observations_give_way_to_the_newest_and_still_count_as_steps():
    with served("vla-eval") as server:
        client = Client(server)
        server.low_level.held = True
        client.send("observation", vla_eval_observation())
        assert server.low_level.entered.wait(60)
        for index in range(1, 6):  # the policy is at work: these wait
            client.send("observation", vla_eval_observation(state=STATE + index))
        deadline = time.monotonic() + 60
        while server.server.counts["superseded"] < 4 and time.monotonic() < deadline:
            time.sleep(0.01)
        server.low_level.proceed.set()
        first, newest = client.recv(), client.recv()
        assert (first["seq"], newest["seq"]) == (1, 6)
        assert newest["payload"]["actions"][2] == 5  # five control steps after the first


def encoded(image, form="PNG", **changes):
    file = io.BytesIO()
    Image.fromarray(image).save(file, form)
    value = {"__image__": True, "format": form.lower(), "data": file.getvalue(), "shape": list(image.shape)}
    return value | changes


def test_images_come_as_png_jpeg_or_raw():
    image = np.arange(24 * 24 * 3, dtype=np.uint32).astype(np.uint8).reshape(24, 24, 3)
    raw = {"__image__": True, "format": "raw", "data": image.tobytes(), "dtype": "|u1", "shape": [24, 24, 3]}
    for value, tolerance in ((encoded(image), 0), (raw, 0), (encoded(picture(90), "JPEG"), 3)):
        with served("vla-eval") as server:
            observation = vla_eval_observation() | {"images": {"agentview": value, "wrist": encoded(image)}}
            assert Client(server).ask("observation", observation)["type"] == "action"
            seen = server.low_level.observations[0].frames["front"].image.astype(int)
            expected = picture(90) if value["format"] == "jpeg" else image
            assert abs(seen - expected).max() <= tolerance


@pytest.mark.parametrize(
    "bad",
    [
        encoded(picture(), data=b"\x89PNG\r\n"),
        encoded(picture(), data="text"),
        encoded(picture(), shape=[24, 25, 3]),
        encoded(picture(), shape=[24, 24]),
        encoded(picture(), shape=[100_000, 100_000, 3]),
        encoded(picture(), format="gif"),
        encoded(picture(), format="jpeg"),
        encoded(picture(), format=["png"]),
        {"__image__": True, "format": "raw", "data": b"", "dtype": "|O", "shape": [24, 24, 3]},
        {"__image__": True},
    ],
)
def test_an_image_that_is_not_what_it_says_is_refused(bad):
    with served("vla-eval") as server:
        client = Client(server)
        observation = vla_eval_observation() | {"images": {"agentview": bad, "wrist": picture()}}
        reply = client.ask("observation", observation)
        assert (reply["type"], reply["seq"]) == ("error", 1)
        assert "image: expected a png, jpeg or raw RGB image" in reply["payload"]["error"]
        assert client.ask("observation", vla_eval_observation())["payload"]["actions"][2] == 0


@pytest.mark.parametrize(
    "bad", [{}, {"type": "stop"}, {"type": "observation", "payload": 3}, {"type": "hello", "payload": {}, "seq": "1"}]
)
def test_a_message_of_no_known_kind_is_refused(bad):
    with served("vla-eval") as server:
        client = Client(server)
        client.socket.send(pack(bad))
        reply = client.recv()
        assert (reply["type"], reply["seq"]) == ("error", 0)
        assert client.ask("hello", {})["type"] == "hello"
