"""openpi's and RoboMME's protocols: a reply to each request, a memory of its own for each connection."""

import numpy as np
import pytest
from served import POLICY, STATE, openpi_request, picture, robomme_request, served
from websockets.exceptions import ConnectionClosed

from memrt.robot_io.serve.arrays import pack, unpack

EXECUTE, EVERY = POLICY.low_level.execute, POLICY.high_level.every_steps


class Client:
    """What openpi's client does."""

    def __init__(self, server):
        self.socket = server.connect()
        self.metadata = unpack(self.socket.recv(60))

    def ask(self, request):
        self.socket.send(pack(request))
        reply = self.socket.recv(60)
        return reply if isinstance(reply, str) else unpack(reply)


def test_an_openpi_client_gets_metadata_first_then_chunks_in_its_own_units():
    with served("openpi") as server:
        client = Client(server)
        assert client.metadata["policy"] == "am_grounded"
        assert client.metadata["action_space"] == "joint_position"
        reply = client.ask(openpi_request())
        assert reply["actions"].shape == (POLICY.low_level.horizon, 8)
        assert reply["actions"].dtype == np.float64
        assert np.allclose(server.low_level.observations[0].proprioception, STATE)
        assert np.allclose(reply["actions"][:, 7], 1.0 - STATE[7])  # closed is 1 for DROID
        assert set(reply["policy_timing"]) == {"infer_ms", "high_level_ms", "low_level_ms"}
        assert set(reply["server_timing"]) == {"infer_ms"}
        assert "prev_total_ms" in client.ask(openpi_request())["server_timing"]
        frames = server.low_level.observations[0].frames
        assert (frames["front"].image == picture(10)).all()
        assert (frames["wrist"].image == picture(20)).all()


def test_the_high_level_is_asked_every_so_many_control_steps_and_remembers():
    with served("openpi") as server:
        client = Client(server)
        replies = [client.ask(openpi_request()) for _ in range(2 * EVERY // EXECUTE + 1)]
        assert [memory for _, memory in server.high_level.calls] == [0, 1, 2]
        assert [reply["subgoal"] for reply in replies][:: EVERY // EXECUTE] == [
            f"press the button, part {part}" for part in (1, 2, 3)
        ]
        assert [reply["actions"][0, 1] for reply in replies] == list(range(len(replies)))  # noise by call
        assert [o.t_ns for o in server.low_level.observations] == [
            index * EXECUTE * 50_000_000 for index in range(len(replies))
        ]


@pytest.mark.parametrize("how", ["reset", "reconnect"])
def test_an_episode_begins_with_a_reset_or_another_connection(how):
    with served("robomme") as server:
        client = Client(server)
        for _ in range(EVERY // EXECUTE + 1):
            client.ask(robomme_request())
        if how == "reset":
            assert client.ask({"reset": True})["reset_finished"] is True
        elif how == "reconnect":
            client.socket.close()
            client = Client(server)
        reply = client.ask(robomme_request())
        assert server.high_level.calls[-1] == ("press the button", 0)
        assert reply["actions"][0, 1] == 0  # the first noise of an episode again
        assert server.high_level.begun == 2


def test_another_task_asks_the_high_level_at_once_which_knows_what_to_keep():
    with served("openpi") as server:
        client = Client(server)
        client.ask(openpi_request())
        assert client.ask(openpi_request("another task"))["subgoal"] == "another task, part 2"
        assert server.high_level.calls == [("press the button", 0), ("another task", 1)]


def test_two_clients_have_two_memories_and_leave_each_other_no_prefix():
    with served("openpi") as server:
        one, other = Client(server), Client(server)
        for client in (one, one, one, other, one, one):
            client.ask(openpi_request())
        assert [memory for _, memory in server.high_level.calls] == [0, 1, 0, 2]
        assert server.high_level.begun == 3  # both episodes, and the prefix when the first came back


def test_a_client_may_name_the_subgoal_itself():
    with served("robomme") as server:
        client = Client(server)
        reply = client.ask(robomme_request(simple_subgoal="lift it", grounded_subgoal="lift it <1, 2>"))
        assert reply["subgoal"] == "lift it <1, 2>"
        assert server.high_level.calls == []
        assert client.ask(robomme_request())["subgoal"] == "press the button, part 1"
    with served("robomme", high_level=False) as server:
        assert Client(server).ask(robomme_request())["subgoal"] == "press the button"


def test_add_buffer_tells_how_many_control_steps_have_passed():
    def buffer(count):
        return {
            "add_buffer": True,
            "images": np.zeros((count, 1, 8, 8, 3), np.uint8),
            "state": np.zeros((count, 8), np.float32),
            "exec_start_idx": count - 1,
        }

    with served("robomme") as server:
        client = Client(server)
        client.ask({"reset": True})
        for count in (31, 16, 5, 16):  # a demonstration and the first observation, then what was executed
            assert client.ask(buffer(count))["add_buffer_finished"] is True
            client.ask(robomme_request())
        assert [o.t_ns // 50_000_000 for o in server.low_level.observations] == [0, 16, 21, 37]
        assert [memory for _, memory in server.high_level.calls] == [0, 1, 2]
        assert "expected uint8 [t, views, height, width, 3]" in client.ask({"add_buffer": True, "images": 3})


@pytest.mark.parametrize(
    ("request_", "told"),
    [
        (openpi_request(prompt=""), "a text of 1 to 4096 characters"),
        ({"prompt": "x"}, "expected `observation/exterior_image_1_left` (front), found `prompt`. Fix: send it"),
        (openpi_request(**{"observation/joint_position": np.zeros(6)}), "7 or more finite numbers (the joint angles)"),
        (openpi_request(**{"observation/joint_position": np.full(7, np.nan)}), "finite numbers"),
        (openpi_request(**{"observation/joint_position": "seven"}), "finite numbers"),
        (openpi_request(**{"observation/gripper_position": np.zeros((1, 1))}), "finite numbers (the gripper)"),
        (openpi_request(**{"observation/wrist_image_left": np.zeros((8, 8, 3), np.float32)}), "a uint8 RGB image"),
        (openpi_request(**{"observation/wrist_image_left": np.zeros((0, 8, 3), np.uint8)}), "a uint8 RGB image"),
        ({}, "found an empty message"),
    ],
)
def test_a_request_that_lacks_something_is_told_what_and_changes_nothing(request_, told):
    with served("openpi") as server:
        client = Client(server)
        client.ask(openpi_request())
        error = client.ask(request_)
        assert isinstance(error, str)
        assert told in error
        assert server.low_level.observations[1:] == []
        client.ask(openpi_request())
        assert server.low_level.observations[1].t_ns == EXECUTE * 50_000_000


def test_a_chunk_that_is_not_finite_is_never_sent():
    with served("openpi") as server:
        client = Client(server)
        server.low_level.fault = "nan"
        assert "non-finite action" in client.ask(openpi_request())


def test_an_error_of_the_policy_is_told_and_ends_this_connection_only():
    with served("openpi") as server:
        client, other = Client(server), Client(server)
        server.low_level.fault = "out of memory"
        assert "internal error: expected an answer, found RuntimeError: out of memory" in client.ask(openpi_request())
        with pytest.raises(ConnectionClosed) as closed:
            client.socket.recv(60)
        assert closed.value.rcvd.code == 1011
        server.low_level.fault = ""
        assert other.ask(openpi_request())["actions"].shape == (POLICY.low_level.horizon, 8)
