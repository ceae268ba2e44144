"""The node's mode machine, driven by random clients, silences and faults."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from memrt.robot_io.link.session import NodeSession, Reaction, Watchdog
from memrt.robot_io.link.wire import VERSION, Command, Hello
from memrt.runtime.clock import NS_PER_MS
from memrt.runtime.types import RobotMode

BRAKE_MS, FAULT_MS = 50, 200


class SessionMachine(RuleBasedStateMachine):
    """Keeps its own account of silence, stops and permission, and compares after every step."""

    def __init__(self) -> None:
        super().__init__()
        self.session = NodeSession(Watchdog())
        self.now_ns = 10**12
        self.sequence = 0
        self.next_id = 1
        self.client: int | None = None
        self.heard_ns = 0
        self.stops = 0
        self.driver_fault = ""
        self.ended = False
        self.follows = False  # whether the driver was last told to follow
        self.goes_home = False  # or to go home

    def apply(self, reaction: Reaction) -> None:
        if reaction is not Reaction.NOTHING:
            self.follows, self.goes_home = reaction is Reaction.FOLLOW, reaction is Reaction.GO_HOME

    def silent_ms(self) -> float:
        return (self.now_ns - self.heard_ns) / NS_PER_MS

    @initialize()
    def connect(self) -> None:
        self.hello(fresh=True, version=VERSION)

    @rule(fresh=st.booleans(), version=st.sampled_from([VERSION, VERSION + 1]))
    def hello(self, fresh: bool, version: int) -> None:
        identity = self.next_id if fresh or self.client is None else self.client
        self.next_id += fresh
        alive = self.client is not None and not self.ended and self.silent_ms() <= FAULT_MS
        error = self.session.hello(Hello(identity, 1, version, ""), self.now_ns, self.driver_fault)
        if version != VERSION or (alive and identity != self.client) or (self.ended and identity == self.client):
            assert error
        else:
            assert not error
            if identity != self.client:
                self.client, self.heard_ns, self.stops = identity, self.now_ns, 0
                self.follows = self.goes_home = self.ended = False  # the node brakes at every new session
                assert self.session.mode is (RobotMode.FAULT if self.driver_fault else RobotMode.DISARMED)

    @rule(ms=st.sampled_from([1, 10, 49, 60, 150, 250]))
    def time_passes(self, ms: int) -> None:
        self.now_ns += ms * NS_PER_MS
        self.check()

    def check(self) -> None:
        was_running = self.session.mode is RobotMode.RUNNING and not self.driver_fault
        self.apply(self.session.check(self.now_ns, self.driver_fault))
        if was_running and self.silent_ms() > FAULT_MS:
            self.ended = True

    @rule(foreign=st.booleans())
    def heartbeat(self, foreign: bool) -> None:
        self.apply(self.session.heard(10**9 if foreign else self.client, self.now_ns))
        if not self.ended and not foreign:
            self.heard_ns = self.now_ns

    @rule(kind=st.sampled_from(["arm", "stop", "resume", "home"]), stale=st.integers(0, 2), at_rest=st.booleans())
    def command(self, kind: str, stale: int, at_rest: bool) -> None:
        self.sequence += 1
        self.stops += kind == "stop"
        known = max(0, self.stops - (0 if kind == "stop" else stale))
        mode = self.session.mode
        error, reaction = self.session.command(
            Command(self.client, self.sequence, kind, known), self.now_ns, at_rest=at_rest
        )
        self.apply(reaction)
        if error:
            assert kind != "stop"
            assert reaction is Reaction.NOTHING
            assert self.session.mode is mode
        elif kind == "stop":
            assert reaction is Reaction.BRAKE
            assert self.session.mode is not RobotMode.RUNNING
        elif self.ended:
            raise AssertionError("an ended session can only stop")
        elif kind in ("arm", "resume"):
            assert known == self.stops  # a stop asked for later than this command would have won
            assert self.session.mode is RobotMode.RUNNING
            assert mode is RobotMode.RUNNING or (mode is not RobotMode.FAULT and at_rest)
        else:
            assert reaction is Reaction.GO_HOME
            assert mode in (RobotMode.DISARMED, RobotMode.STOPPED)

    @rule(at_rest=st.booleans())
    def configure(self, at_rest: bool) -> None:
        mode = self.session.mode
        refusal = self.session.refuse_configuration(at_rest=at_rest)
        assert (refusal == "") == (at_rest and mode in (RobotMode.DISARMED, RobotMode.STOPPED))
        assert self.session.mode is mode

    @rule()
    def driver_breaks(self) -> None:
        self.driver_fault = "reflex"
        self.check()
        assert self.session.mode is RobotMode.FAULT

    @rule()
    def driver_is_repaired(self) -> None:
        self.driver_fault = ""

    @invariant()
    def the_driver_follows_only_a_running_session_that_was_heard(self) -> None:
        if self.follows:
            assert self.session.mode is RobotMode.RUNNING
            assert not self.session.braked_for_silence
        if self.client is not None:
            assert self.session.accepts_chunks(self.client) == (
                self.session.mode is RobotMode.RUNNING and not self.session.braked_for_silence
            )
        assert not self.session.accepts_chunks(10**9)

    @invariant()
    def silence_has_stopped_the_arm(self) -> None:
        self.check()
        if self.client is not None and self.silent_ms() > BRAKE_MS:
            assert not self.follows
            assert not self.goes_home
        if self.client is not None and self.silent_ms() > FAULT_MS:
            assert self.session.mode is not RobotMode.RUNNING


SessionMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestSessionMachine = SessionMachine.TestCase


def test_a_short_silence_brakes_and_the_next_heartbeat_goes_on():
    session, now = NodeSession(Watchdog()), 0
    assert session.hello(Hello(1, 1, VERSION, ""), now, "") == ""
    assert session.command(Command(1, 2, "arm", 0), now, at_rest=True) == ("", Reaction.FOLLOW)
    assert session.check(now + 50 * NS_PER_MS, "") is Reaction.NOTHING
    assert session.check(now + 51 * NS_PER_MS, "") is Reaction.BRAKE
    assert session.check(now + 52 * NS_PER_MS, "") is Reaction.NOTHING
    assert session.heard(1, now + 199 * NS_PER_MS) is Reaction.FOLLOW
    assert (session.mode, session.silences) == (RobotMode.RUNNING, 1)


def test_a_long_silence_is_a_fault_that_only_a_new_session_leaves():
    session = NodeSession(Watchdog())
    session.hello(Hello(1, 1, VERSION, ""), 0, "")
    session.command(Command(1, 2, "arm", 0), 0, at_rest=True)
    assert session.check(201 * NS_PER_MS, "") is Reaction.BRAKE
    assert session.mode is RobotMode.FAULT
    assert "silent for 201 ms" in session.fault
    assert session.heard(1, 202 * NS_PER_MS) is Reaction.NOTHING
    error, _ = session.command(Command(1, 3, "resume", 0), 203 * NS_PER_MS, at_rest=True)
    assert "has ended" in error
    assert session.command(Command(1, 4, "stop", 1), 203 * NS_PER_MS, at_rest=True) == ("", Reaction.BRAKE)
    assert "has ended" in session.hello(Hello(1, 4, VERSION, ""), 204 * NS_PER_MS, "")
    assert session.hello(Hello(2, 1, VERSION, ""), 205 * NS_PER_MS, "") == ""
    assert session.mode is RobotMode.DISARMED


def test_a_robot_that_stands_still_waits_for_a_silent_client_until_another_comes():
    session = NodeSession(Watchdog())
    session.hello(Hello(1, 1, VERSION, ""), 0, "")
    assert session.command(Command(1, 2, "arm", 0), 900 * NS_PER_MS, at_rest=True) == ("", Reaction.FOLLOW)
    session.command(Command(1, 3, "stop", 1), 901 * NS_PER_MS, at_rest=True)
    assert "another client" in session.hello(Hello(2, 1, VERSION, ""), 100 * NS_PER_MS, "")
    assert session.hello(Hello(2, 1, VERSION, ""), 2_000 * NS_PER_MS, "") == ""
    error, _ = session.command(Command(1, 4, "resume", 1), 2_001 * NS_PER_MS, at_rest=True)
    assert "say hello first" in error


def test_the_brake_must_come_before_the_fault():
    with pytest.raises(ValueError, match="must come before"):
        Watchdog(200, 50)
