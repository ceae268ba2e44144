"""The control socket: who may use it, what it refuses, and that a stop waits for nobody."""

import socket
import threading
import time

import pytest

from memrt.runtime.errors import MemrtError
from memrt.runtime.service.control import MAX_CLIENTS, ControlServer, Request, ask, await_health


class Service:
    """Notes what is asked; `arm` waits until it may."""

    def __init__(self) -> None:
        self.asked: list[Request] = []
        self.may_arm = threading.Event()
        self.health = None

    def answer(self, request: Request) -> None:
        self.asked.append(request)
        if request.verb == "arm":
            self.may_arm.wait(20)
        if request.verb == "goal":
            raise MemrtError("goal", expected="words", found="none", fix="say some")

    def status(self):
        return {"phase": "disarmed", "health": self.health}


@pytest.fixture
def service(tmp_path):
    service = Service()
    service.path = tmp_path / "run" / "control"
    with ControlServer(service.path, service.answer, service.status):
        yield service
        service.may_arm.set()


def test_a_request_is_carried_out_and_answered_with_the_status(service):
    assert ask(Request("stop"), service.path) == {"phase": "disarmed", "health": None}
    assert service.asked == [Request("stop")]


def test_a_refusal_reaches_the_client_as_it_is(service):
    with pytest.raises(MemrtError, match="goal: expected words, found none"):
        ask(Request("goal", ""), service.path)


def test_a_stop_does_not_wait_for_whoever_arms(service):
    arming = threading.Thread(target=ask, args=(Request("arm"), service.path))
    arming.start()
    while not service.asked:
        time.sleep(0.01)
    assert ask(Request("stop"), service.path)
    assert arming.is_alive()
    service.may_arm.set()
    arming.join(20)
    assert not arming.is_alive()


def test_only_the_account_and_its_group_may_write_to_it(service):
    assert service.path.stat().st_mode & 0o777 == 0o660


@pytest.mark.parametrize(
    "message", [b"", b"arm", b'{"verb": "explode"}', b'{"verb": "arm", "force": true}', b"\xff" * 100]
)
def test_anything_else_changes_nothing_and_is_told_so(service, message):
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
        client.settimeout(20)
        client.connect(str(service.path))
        client.send(message)
        assert b'"what":"a request"' in client.recv(1 << 16)
    assert service.asked == []
    assert ask(Request("status"), service.path)


def test_clients_that_say_nothing_take_a_bounded_number_of_places(service):
    silent = []
    for _ in range(MAX_CLIENTS + 5):
        client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        client.connect(str(service.path))
        silent.append(client)
    served = [thread for thread in threading.enumerate() if thread.name == "control client"]
    assert len(served) <= MAX_CLIENTS
    for client in silent:
        client.close()
    assert ask_until_answered(service)


def ask_until_answered(service) -> bool:
    for _ in range(100):
        try:
            return bool(ask(Request("status"), service.path))
        except MemrtError:
            time.sleep(0.05)
    return False


def test_a_second_service_is_refused_and_a_dead_ones_socket_is_replaced(service, tmp_path):
    with pytest.raises(MemrtError, match="another service that listens there"):
        ControlServer(service.path, service.answer, service.status)
    left_behind = tmp_path / "control"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as dead:
        dead.bind(str(left_behind))
    with ControlServer(left_behind, service.answer, service.status):
        assert ask(Request("status"), left_behind)
    assert not left_behind.exists()


def test_a_service_that_is_not_there_is_named(tmp_path):
    with pytest.raises(MemrtError, match="memrt service logs"):
        ask(Request("status"), tmp_path / "control")


def test_health_is_waited_for(service):
    assert await_health(service.path, 0.0)["health"] is None
    found = []
    waiting = threading.Thread(target=lambda: found.append(await_health(service.path, 20.0)))
    waiting.start()
    service.health = {"healthy": True}
    waiting.join(20)
    assert found == [{"phase": "disarmed", "health": {"healthy": True}}]
