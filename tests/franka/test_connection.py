"""What a user sees when the robot cannot be commanded: one clear line, within seconds."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading

import franky
import pytest
from permissive_robot import own_address

from memrt.robot_io.config import RobotConfig
from memrt.robot_io.drivers import DriverOptions, find_driver
from memrt.robot_io.franka import connection
from memrt.robot_io.franka.connection import connect_arm
from memrt.robot_io.franka.settings import FrankaConfig
from memrt.runtime.errors import MemrtError

IGNORE = FrankaConfig(realtime="ignore")


@contextlib.contextmanager
def server(number, answer):
    """A server on libfranka's port that gives `answer` to the first message; its address."""
    host = own_address(number)
    with socket.create_server((host, connection.ARM_PORT)) as listening:

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    client, _ = listening.accept()
                    with client:
                        if client.recv(64):
                            client.sendall(answer)
                            client.recv(64)

        threading.Thread(target=serve, daemon=True).start()
        yield host
        listening.shutdown(socket.SHUT_RDWR)


def refused(host, config=IGNORE) -> str:
    with pytest.raises(MemrtError) as error:
        connect_arm(host, config)
    return str(error.value)


def test_nobody_listens():
    line = refused(own_address(8))
    assert "expected libfranka's server on port 1337, found connection refused" in line
    assert "activate FCI" in line


def test_an_address_that_nobody_has(monkeypatch):
    def unanswered(address, timeout):  # what a network does with it is its own business
        assert timeout == connection.PROBE_S
        raise TimeoutError("timed out")

    monkeypatch.setattr(socket, "create_connection", unanswered)
    assert "expected libfranka's server on port 1337, found no answer" in refused("192.0.2.1")


def test_a_name_that_nobody_has():
    assert "expected an address that can be found" in refused("no-such-robot.invalid")


def test_a_server_that_says_nothing(monkeypatch):
    monkeypatch.setattr(connection, "HANDSHAKE_S", 0.3)
    with server(9, b"") as host:
        assert "expected libfranka's handshake, found silence for 0.3 s" in refused(host)


def test_another_version():
    # libfranka's Connect response: header {command, command id, size}, then status 1 (incompatible) and its version.
    with server(10, struct.pack("<IIIBH5x", 0, 0, 20, 1, 5)) as host:
        line = refused(host)
    assert "found version 5. Fix: pip install" in line
    assert line.endswith("by-robot-server-version/5/")


def test_a_kernel_without_real_time(tmp_path, monkeypatch):
    monkeypatch.setattr(connection, "REALTIME_KERNEL", tmp_path / "realtime")
    assert "expected a kernel with PREEMPT_RT" in refused(own_address(8), FrankaConfig())
    (tmp_path / "realtime").write_text("1\n")
    assert "port 1337" in refused(own_address(8), FrankaConfig()), "a kernel with it gets as far as the robot"


def test_a_robot_without_address():
    robot = RobotConfig(name="fr3", driver="franka", cameras=())
    with pytest.raises(MemrtError, match="add --host"), find_driver("franka", "test")(robot, DriverOptions()):
        pass


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"stifness": [600] * 7}, "stiffness"),
        ({"effort": [25, 25, 25, 25, 11, 8, 6]}, "effort"),
        ({"load": {"mass": 5}}, "mass"),
        ({"realtime": "no"}, "realtime"),
    ],
)
def test_wrong_settings(settings, told):
    robot = RobotConfig(name="fr3", driver="franka", cameras=(), settings=settings)
    with pytest.raises(MemrtError, match=told), find_driver("franka", "test")(robot, DriverOptions(host="127.0.0.1")):
        pass


def test_libfrankas_words_become_one_line():
    assert connection.one_line(franky.NetworkException("libfranka: UDP receive:\n Timeout")) == "UDP receive: Timeout"
