"""What an operator sees and presses."""

import io
import os
import sys
import termios
from collections import Counter
from dataclasses import dataclass

import numpy as np
from PIL import ImageFont
from rich.console import Console

from memrt.runtime.cli import run_display
from memrt.runtime.cli.keys import Keys
from memrt.runtime.cli.operator_keys import OperatorKeys
from memrt.runtime.errors import MemrtError
from memrt.runtime.live_status import latency_table, memory_texts, render_status
from memrt.runtime.loop.realtime import LoopStatus
from memrt.runtime.loop.record import RunRecord
from memrt.runtime.memory import MemoryState
from memrt.runtime.memory.keyframes import KeyframeSettings, KeyframeVotes
from memrt.runtime.types import RobotMode, Subgoal
from memrt.runtime.video import PICTURE, compose


@dataclass(frozen=True)
class Memory:
    action_memory: str = "I have picked up the red cube twice."
    spatial_memory: str = ""
    history: tuple[str, ...] = ("one", "two", "three", "four")


def status(hold: str = "", subgoal: str = "press the button <60, 100> to stop") -> LoopStatus:
    record = RunRecord("realtime", "do it", 0, counts=Counter({"late chunks": 2, "chunks": 9}), duration_ns=2 * 10**9)
    for milliseconds in (10, 20, 30):
        record.latency("low level", milliseconds * 1_000_000)
    mode = RobotMode.STOPPED if hold else RobotMode.RUNNING
    return LoopStatus("do it", Subgoal(subgoal, 1, 0), Memory(), mode, hold, 2.0, record)


def text_of(renderable) -> str:
    console = Console(file=io.StringIO(), width=100)
    console.print(renderable)
    return console.file.getvalue()


def test_the_panel_shows_goal_subgoal_memory_rates_and_troubles():
    shown = text_of(render_status(status("a camera is lost"), {"control lateness p99 [ms]": 0.05}, keys=True))
    for words in (
        "do it",
        "press the button <60, 100> to stop",
        "I have picked up the red cube twice.",
        "two; three; four",
        "stopped  a camera is lost",
        "1.50/s",
        "p99 0.05 ms",
        "late chunks 2",
        "space stops",
    ):
        assert words in shown
    assert "chunks 9" not in shown


def test_square_brackets_of_a_policy_are_text_and_not_markup():
    shown = text_of(render_status(status(subgoal="[bold]pick[/bold] [red]"), {}, keys=False))
    assert "[bold]pick[/bold] [red]" in shown
    assert "latency [ms]" in text_of(latency_table(status().record))


def test_the_latency_table_has_the_percentiles_and_the_rate():
    row = next(line for line in text_of(latency_table(status().record)).splitlines() if line.startswith("low level"))
    assert row.split() == ["low", "level", "3", "1.50", "20.0", "28.0", "29.8", "30.0"]


def test_a_policy_without_memory_shows_none():
    assert memory_texts(None) == []


def test_without_a_terminal_each_change_is_one_line(monkeypatch):
    console = Console(file=io.StringIO(), width=100)
    monkeypatch.setattr(run_display, "Console", lambda stderr: console)
    with run_display.Display(quiet=False) as display:
        for seen in (status(), status(), status("stopped by the operator"), status(subgoal="next")):
            display.show(seen, {})
    lines = [line.split(maxsplit=2)[2] for line in console.file.getvalue().splitlines()]
    assert lines == ["press the button <60, 100> to stop", "stopped by the operator", "next"]


def test_keys_come_one_by_one_and_the_terminal_is_restored(monkeypatch):
    master, slave = os.openpty()
    with os.fdopen(slave, "r") as terminal:
        monkeypatch.setattr(sys, "stdin", terminal)
        before = termios.tcgetattr(terminal)
        with Keys() as keys:
            assert keys.available
            assert keys.pressed() == ""
            os.write(master, b"r q")
            assert [keys.pressed() for _ in range(4)] == ["r", " ", "q", ""]
            assert termios.tcgetattr(terminal) != before
        assert termios.tcgetattr(terminal) == before
    os.close(master)


def test_without_a_terminal_there_are_no_keys(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("qqq"))
    with Keys() as keys:
        assert (keys.available, keys.pressed()) == (False, "")


def test_the_video_marks_a_grounded_subgoal_where_it_points():
    image = np.zeros((256, 256, 3), np.uint8)
    font = ImageFont.load_default(17)
    plain = compose(image, [("goal", "x <60, 100>")], font)
    by_row = compose(image, [("subgoal", "x <60, 100>")], font)
    by_column = compose(image, [("subgoal", "x <60, 100>")], font, "column_row")
    scale = PICTURE / 256
    assert not plain[:PICTURE].any()
    assert by_row[int(60 * scale), int(100 * scale)].tolist() == [255, 255, 0]
    assert by_column[int(100 * scale), int(60 * scale)].tolist() == [255, 255, 0]
    assert not by_row[int(100 * scale), int(60 * scale)].any()
    assert by_row[PICTURE:].any()


class Loop:
    def __init__(self):
        self.heard = []

    def stop(self, reason="space"):
        self.heard.append(f"stop: {reason}")

    def resume(self):
        raise MemrtError("resume", expected="a robot", found="none", fix="look")

    def set_goal(self, goal):
        self.heard.append(f"goal: {goal}")

    def judge(self, *, success):
        self.heard.append(f"success: {success}")


def test_a_goal_is_typed_while_the_arm_is_stopped():
    loop, display = Loop(), run_display.Display(quiet=True)
    operator = OperatorKeys(loop, display)
    for key in ["", *"gpick it uq", "\x7f", "p", "\n", " "]:
        operator.press(key)
    assert loop.heard == ["stop: waiting for a new goal", "goal: pick it up", "stop: space"]
    for key in "ga":
        operator.press(key)
    assert "new goal" in text_of(render_status(status(), {}, True, display.entry))
    operator.press("\x1b")
    assert (display.entry, loop.heard[-1]) == (None, "stop: waiting for a new goal")
    operator.press("r")  # refused: said, not raised


def test_yes_and_no_are_the_operators_word_but_letters_of_a_goal():
    loop = Loop()
    operator = OperatorKeys(loop, run_display.Display(quiet=True))
    for key in [*"yngny", "\x1b"]:
        operator.press(key)
    assert loop.heard == ["success: True", "success: False", "stop: waiting for a new goal"]


def test_a_keyframe_memory_says_how_much_it_holds():
    votes = KeyframeVotes().vote(KeyframeSettings(), 60, [1, 2, 8])
    assert memory_texts(MemoryState(votes=votes)) == [("keyframes", "2 moments in 3 frames")]
