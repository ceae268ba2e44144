"""An openpi policy server as low level: chunks in time, or the loop is told that there is none; never a stale reply."""

import http
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np
import pytest
from served import POLICY, STATE, picture, served
from websockets.sync.server import serve as serve_websocket

from memrt.robot_io.config import PolicyServerConfig
from memrt.robot_io.serve.arrays import pack
from memrt.robot_io.serve.remote_low_level import RemoteLowLevel
from memrt.runtime.errors import MemrtError
from memrt.runtime.loop.gates import refuse_chunk
from memrt.runtime.loop.protocols import LateChunkError
from memrt.runtime.types import Frame, Observation, Subgoal

pytestmark = pytest.mark.real_time

HERE = Path(__file__).parent
PEERS = Path(sys.prefix) / "peers" / "bin" / "python"
LOW = POLICY.low_level
HORIZON = LOW.horizon


def config(port, **changes):
    values = {"url": f"ws://127.0.0.1:{port}", "keys": "robomme", "timeout_ms": 300.0, "connect_ms": 5000.0}
    return PolicyServerConfig(**(values | changes))


def observed(t_ns=1000, state=STATE):
    frames = {name: Frame(name, 0, t_ns, picture(value)) for name, value in (("front", 10), ("wrist", 20))}
    return Observation(t_ns, state, frames)


def act(remote, subgoal="lift it", **more):
    return remote.act(observed(**more), Subgoal(subgoal, 3, 0), "tidy up", remote.noise(0, 0))


@contextmanager
def remote(port, **changes):
    client = RemoteLowLevel(config(port, **changes), LOW)
    try:
        yield client
    finally:
        client.close()


def test_a_chunk_of_the_server_is_timed_from_the_observation():
    with served("robomme") as server, remote(server.port) as client:
        assert client.metadata["action_space"] == "joint_position"
        result = act(client)
        assert result.chunk.t0_ns == 1000 + 50_000_000
        assert (result.chunk.dt_ns, result.chunk.subgoal_revision) == (50_000_000, 3)
        assert refuse_chunk(result.chunk, HORIZON) == ""
        assert np.array_equal(result.chunk.actions[:, 7], np.full(HORIZON, STATE[7]))
        assert result.told["subgoal"] == "lift it"  # ours, and the server's high level was not asked
        assert server.high_level.calls == []
        seen = server.low_level.observations[0]
        assert np.array_equal(seen.proprioception, STATE)
        assert (seen.frames["wrist"].image == picture(20)).all()


def test_grippers_are_converted_and_kept_between_closed_and_open():
    with served("openpi") as server, remote(server.port, keys="openpi") as client:
        assert np.allclose(act(client).chunk.actions[:, 7], STATE[7])
        overshot = np.append(STATE[:7], 1.02)
        assert (act(client, state=overshot).chunk.actions[:, 7] == 1.0).all()


def test_no_server_is_one_clear_line():
    with pytest.raises(MemrtError, match=r"policy server ws://127.0.0.1:9: expected an openpi policy server.*refused"):
        RemoteLowLevel(config(9), LOW)
    with served("vla-eval") as server, pytest.raises(MemrtError, match=r"found .*TimeoutError"):
        RemoteLowLevel(config(server.port, connect_ms=300.0), LOW)  # it never greets


def test_a_policy_whose_chunks_continue_each_other_is_refused():
    chunking = msgspec.structs.replace(LOW.chunking, kind="guided")
    with pytest.raises(MemrtError, match=r"chunking\.kind: none"):
        RemoteLowLevel(config(9), msgspec.structs.replace(LOW, chunking=chunking))


def test_a_slow_server_is_waited_for_no_longer_than_agreed_and_its_late_reply_is_never_taken():
    with served("robomme") as server, remote(server.port) as client:
        act(client)
        server.low_level.held = True
        began = time.monotonic()
        with pytest.raises(LateChunkError, match="expected a chunk within 300 ms, found TimeoutError"):
            act(client, "the late one")
        assert 0.25 < time.monotonic() - began < 2.0
        server.low_level.held = False
        server.low_level.proceed.set()
        assert act(client, "the next one").told["subgoal"] == "the next one"


def test_only_the_first_chunk_may_take_longer():
    with served("robomme") as server, remote(server.port, timeout_ms=100.0) as client:
        server.low_level.held = True
        threading.Timer(0.4, server.low_level.proceed.set).start()
        assert act(client).chunk.actions.shape == (HORIZON, 8)


def test_a_server_that_comes_back_is_found_again():
    with served("robomme") as server:
        port = server.port
        client = RemoteLowLevel(config(port), LOW)
        act(client)
    began = time.monotonic()
    for _ in range(2):
        with pytest.raises(LateChunkError):
            act(client)
    assert time.monotonic() - began < 4.0
    with served("robomme", port=port):
        assert act(client).chunk.actions.shape == (HORIZON, 8)
    client.close()


class Impostor:
    """Greets like an openpi server, then replies with what the test wants."""

    def __init__(self, reply):
        self.reply = reply

    def __call__(self, socket):
        socket.send(pack({}))
        for _ in socket:
            socket.send(self.reply if isinstance(self.reply, str | bytes) else pack(self.reply))


@contextmanager
def impostor(reply):
    def health(connection, request):
        return connection.respond(http.HTTPStatus.OK, "OK\n") if request.path == "/healthz" else None

    handler = Impostor(reply)
    with serve_websocket(handler, "127.0.0.1", 0, compression=None, process_request=health) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.socket.getsockname()[1], handler
        finally:
            server.shutdown()
            thread.join(60)


GOOD = {"actions": np.zeros((HORIZON, 8))}


@pytest.mark.parametrize(
    ("bad", "told", "then"),
    [
        ({"actions": np.zeros((HORIZON + 1, 8))}, r"expected `actions` \[16, 8 or more\]", "shape [17, 8]"),
        ({"actions": np.zeros((HORIZON, 7))}, r"found `actions` \[16, 7\]", "shape [0, 8]"),
        ({"actions": np.zeros(8)}, r"found `actions` \[8\]", "shape [0, 8]"),
        ({"action": 1}, r"found \['action'\]", "shape [0, 8]"),
        ("Traceback ...\nKeyError: 'state'", "found its error: Traceback ... KeyError: 'state'", "late"),
        (b"\x80\x04junk", "expected one msgpack map", "late"),
    ],
)
def test_what_is_no_chunk_ends_the_preparation_and_in_a_run_is_refused_or_late(bad, told, then):
    with impostor(bad) as (port, handler), remote(port) as client:
        with pytest.raises(MemrtError, match=told) as refused:
            act(client)
        assert not isinstance(refused.value, LateChunkError)
        handler.reply = GOOD
        assert refuse_chunk(act(client).chunk, HORIZON) == ""
        handler.reply = bad
        if then == "late":
            with pytest.raises(LateChunkError):
                act(client)
        else:
            assert then in refuse_chunk(act(client).chunk, HORIZON)


def test_actions_that_are_not_finite_reach_the_gate_that_refuses_them():
    with impostor({"actions": np.full((HORIZON, 32), np.nan)}) as (port, _), remote(port) as client:
        assert refuse_chunk(act(client).chunk, HORIZON) == "non-finite action"


@pytest.mark.skipif(not PEERS.is_file() or sys.version_info >= (3, 13), reason="run `make peers` (Python < 3.13)")
def test_a_server_that_packs_with_the_real_openpi_client_is_understood():
    process = subprocess.Popen(
        [str(PEERS), str(HERE / "peers" / "openpi_serves.py")], stdout=subprocess.PIPE, text=True
    )
    try:
        port = int(process.stdout.readline())
        with remote(port, keys="openpi", timeout_ms=5000.0) as client:
            assert client.metadata == {"robot": "a peer"}
            result = act(client)
            assert np.allclose(result.chunk.actions[:, :7], STATE[:7])
            assert np.allclose(result.chunk.actions[:, 7], STATE[7])
            assert result.told["prompt"] == "lift it"
            assert result.told["shape"] == [224, 224, 3]
    finally:
        process.kill()
        process.wait()
