"""What systemd hears, on a real datagram socket; the watchdog, which is fed only while everybody gets on."""

import os
import socket
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from manager import Manager, eventually

from memrt.runtime.clock import NS_PER_MS, NS_PER_S, MonotonicClock, VirtualClock
from memrt.runtime.loop.progress import Progress
from memrt.runtime.service.notify import Notifier
from memrt.runtime.service.watchdog import STUCK, WatchdogThread


@pytest.fixture
def manager(tmp_path):
    manager = Manager(tmp_path)
    yield manager
    manager.close()


def test_every_message_is_one_datagram_of_the_protocol(manager):
    notifier = Notifier(manager.address)
    notifier.ready()
    notifier.status("loading:\n hl/decoder")
    notifier.needs(1.5)
    notifier.alive()
    notifier.stuck()
    notifier.stopping()
    assert manager.said() == [
        "READY=1",
        "STATUS=loading: hl/decoder",
        "EXTEND_TIMEOUT_USEC=1500000",
        "WATCHDOG=1",
        "WATCHDOG=trigger",
        "STOPPING=1",
    ]


def test_the_abstract_namespace_is_understood():
    name = f"memrt-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(f"\0{name}")
        Notifier(f"@{name}").ready()
        assert listener.recv(100) == b"READY=1"


def test_the_environment_is_read_once_and_not_handed_on():
    """A child that kept the variables could feed the watchdog of a service that hangs."""
    environment = {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "10000000", "WATCHDOG_PID": str(os.getpid()), "HOME": "/"}
    assert Notifier.from_environment(environment).watchdog_s == 10.0
    assert environment == {"HOME": "/"}
    assert Notifier.from_environment(environment).watchdog_s is None
    assert Notifier.from_environment({"WATCHDOG_USEC": "10000000", "WATCHDOG_PID": "1"}).watchdog_s is None


def test_nothing_is_sent_without_a_manager_and_one_that_has_gone_is_no_failure(manager):
    Notifier().ready()
    notifier = Notifier(manager.address)
    manager.close()
    notifier.ready()
    Path(manager.address).unlink()
    notifier.ready()


@settings(max_examples=40)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["busy", "rests", "forget"]), st.integers(0, 50))))
def test_a_part_is_stuck_exactly_when_it_is_overdue(events):
    """Against a model that keeps every part's last word."""
    progress, model, now = Progress(), {}, 0
    for part, what, step in events:
        now += step
        if what == "forget":
            progress.forget(part)
            model.pop(part, None)
        elif what == "busy":
            progress.busy(part, now)
            model[part] = now
        else:
            progress.rests(part, now + 20)
            model[part] = now + 20
        stuck = progress.stuck(now, 30)
        assert {name.split()[0] for name in stuck.split(", ") if name} == {p for p, t in model.items() if now - t > 30}


class Watched:
    """A watchdog that the test lets look."""

    def __init__(self, address: str, watchdog_s: float | None = 10.0) -> None:
        self.progress, self.clock = Progress(), VirtualClock(NS_PER_S)
        self.lines, self.ends = [], []
        notifier = Notifier(address, watchdog_s)
        self.dog = WatchdogThread(self.progress, notifier, self.clock, 10.0, self.lines.append, self.ends.append)


def test_it_is_fed_while_all_get_on_and_says_who_does_not(manager):
    watched = Watched(manager.address)
    watched.progress.busy("low level", watched.clock.now_ns())
    watched.progress.rests("high level", watched.clock.now_ns() + 60 * NS_PER_S)
    assert watched.dog.look()
    watched.clock.advance(10 * NS_PER_S)
    assert watched.dog.look()
    watched.clock.advance(NS_PER_MS)
    assert not watched.dog.look()
    assert manager.said() == ["WATCHDOG=1", "WATCHDOG=1", "STATUS=stuck: low level for 10.0 s", "WATCHDOG=trigger"]
    assert watched.lines == ["stuck: low level for 10.0 s"]
    assert watched.ends == []


def test_without_a_manager_the_process_ends_itself(manager):
    watched = Watched("", None)
    watched.progress.busy("supervisor", watched.clock.now_ns())
    watched.clock.advance(11 * NS_PER_S)
    assert not watched.dog.look()
    assert watched.ends == [STUCK]


def test_it_looks_by_itself_several_times_per_timeout(manager):
    with WatchdogThread(Progress(), Notifier(manager.address, 0.2), MonotonicClock(), 10.0, print):
        assert eventually(lambda: len(manager.said()) >= 3)
    fed = len(manager.said())
    assert set(manager.said()) == {"WATCHDOG=1"}
    assert fed == len(manager.said())
