"""What a client may cost: every bound holds, and whatever one client does, the others are served."""

import http.client
import socket
import threading
import time

import pytest
from served import openpi_request, picture, served
from websockets.exceptions import ConnectionClosed, InvalidStatus

from memrt.robot_io.serve.arrays import pack, unpack
from memrt.robot_io.serve.server import REFUSED_IN_A_ROW, WAITING

pytestmark = pytest.mark.real_time


def ask(client, request=None):
    client.send(pack(request or openpi_request()))
    reply = client.recv(60)
    return reply if isinstance(reply, str) else unpack(reply)


def still_serves(server):
    client = server.connect()
    client.recv(60)
    return "actions" in ask(client)


def eventually(happens):
    deadline = time.monotonic() + 60
    while True:
        try:
            assert happens()
            return
        except (AssertionError, InvalidStatus):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def get(port, path):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", path)
    response = connection.getresponse()
    return response.status, response.read()


def test_health_is_told_to_whoever_asks():
    with served("openpi") as server:
        assert get(server.port, "/healthz") == (200, b"OK\n")
        assert get(server.port, "/health") == (200, b'{"status": "ok"}\n')
        assert get(server.port, "/healthz?verbose=1")[0] == 200
        assert get(server.port, "/")[0] == 426  # a WebSocket, please


def test_a_web_page_cannot_connect():
    with served("openpi") as server, pytest.raises(InvalidStatus, match="403"):
        server.connect(origin="http://somewhere.example")


def test_one_client_too_many_is_told_so_and_may_come_when_another_has_gone():
    with served("openpi", connections=2) as server:
        first, _ = server.connect(), server.connect()
        with pytest.raises(InvalidStatus, match="503"):
            server.connect()
        assert server.server.counts["connections refused"] == 1
        first.close()
        eventually(lambda: still_serves(server))


def test_a_client_that_was_left_open_gives_way_to_a_new_one():
    """RoboMME's evaluation opens a connection for each episode and closes none."""
    with served("openpi", connections=2, yield_s=0.1) as server:
        for _ in range(5):
            client = server.connect()
            client.recv(60)
            assert "actions" in ask(client)
            time.sleep(0.15)
        assert server.server.counts["gave way"] == 3
        assert "actions" in ask(client)


@pytest.mark.parametrize("junk", [b"", b"\xc1", b"\x80\x80", pack(openpi_request())[:-3], b"\x91" * 5000, "a text"])
def test_what_cannot_be_read_is_refused_in_its_turn_and_the_connection_goes_on(junk):
    with served("openpi") as server:
        client = server.connect()
        client.recv(60)
        client.send(junk)
        assert "message: expected" in client.recv(60)
        assert "actions" in ask(client)


def test_a_client_that_only_sends_junk_is_disconnected():
    with served("openpi") as server:
        client = server.connect()
        client.recv(60)
        for _ in range(REFUSED_IN_A_ROW):
            client.send(b"junk")
            assert isinstance(client.recv(60), str)
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(60)
        assert closed.value.rcvd.code == 1008
        assert still_serves(server)


def test_a_message_beyond_the_limit_ends_the_connection_unread():
    with served("openpi", message_bytes=100_000) as server:
        client = server.connect()
        client.recv(60)
        client.send(pack(openpi_request(more=picture(size=200))))
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(60)
        assert closed.value.rcvd.code == 1009
        assert still_serves(server)
        assert server.server.counts["oversized"] == 1


def test_a_silent_client_is_disconnected():
    with served("openpi", idle_s=0.2) as server:
        client = server.connect()
        client.recv(60)
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(60)
        assert closed.value.rcvd.reason == "idle for too long"


def test_a_request_that_does_not_get_its_turn_is_told_that_the_server_is_busy():
    with served("openpi", busy_s=0.2) as server:
        one, other = server.connect(), server.connect()
        one.recv(60), other.recv(60)
        server.low_level.held = True
        one.send(pack(openpi_request()))
        assert server.low_level.entered.wait(60)
        assert "found busy with 1 other clients" in ask(other)
        server.low_level.proceed.set()
        assert "actions" in unpack(one.recv(60))
        assert "actions" in ask(other)


def test_a_client_that_leaves_during_its_inference_harms_nobody():
    with served("openpi") as server:
        client, other = server.connect(), server.connect()
        client.recv(60), other.recv(60)
        server.low_level.held = True
        client.send(pack(openpi_request()))
        assert server.low_level.entered.wait(60)
        client.close()
        server.low_level.proceed.set()
        assert "actions" in ask(other)
        assert still_serves(server)


def test_a_client_that_sends_ahead_is_answered_in_order_and_read_no_further_than_a_few_messages():
    with served("openpi") as server:
        client = server.connect()
        client.recv(60)
        server.low_level.held = True
        count = 3 * WAITING
        sender = threading.Thread(
            target=lambda: [client.send(pack(openpi_request(f"task {index}"))) for index in range(count)]
        )
        sender.start()
        assert server.low_level.entered.wait(60)
        server.low_level.proceed.set()
        subgoals = [unpack(client.recv(60))["subgoal"] for _ in range(count)]
        sender.join(60)
        assert subgoals == [f"task {index}, part {index + 1}" for index in range(count)]


def test_a_client_that_does_not_read_its_replies_is_dropped():
    with served("openpi", send_s=0.3) as server:
        server.low_level.proceed.set()
        client = server.connect()
        client.recv(60)
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        long_ago = time.monotonic()

        def shout():
            try:
                while time.monotonic() - long_ago < 60:
                    client.send(pack(openpi_request()))
            except ConnectionClosed:
                pass

        shouting = threading.Thread(target=shout)
        shouting.start()
        deadline = time.monotonic() + 60
        while not server.server.counts["clients that did not read"] and time.monotonic() < deadline:
            time.sleep(0.05)
        assert server.server.counts["clients that did not read"] == 1
        client.socket.close()
        shouting.join(60)
        assert still_serves(server)


def test_half_a_handshake_does_not_occupy_a_place():
    with served("openpi", connections=1) as server:
        loose = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(5)]
        loose[0].sendall(b"GET / HTTP/1.1\r\n")
        loose[1].sendall(b"\x00\xff\x00\xff\r\n\r\n")
        eventually(lambda: still_serves(server))
        for connection in loose:
            connection.close()
