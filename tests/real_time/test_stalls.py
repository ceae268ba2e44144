"""The marker itself: what is run again, what stands, and that a stall is seen."""

import signal
import time

import pytest
import stalls
from computer import TICK_S, Computer, foreign_s

FAILS = """
    import pytest
    runs = []
    @pytest.fixture(scope="module")
    def made():
        runs.append("made")
        yield
        runs.append("ended")
    @pytest.mark.real_time
    def test_it(made):
        runs.append("run")
        assert runs.count("run") >= {passes_at}
    def test_after(made):
        print(runs)
"""


class Scripted:
    """A computer whose troubles are written down."""

    def __init__(self, *troubles: str) -> None:
        self._troubles = list(troubles)

    def begin(self) -> None:
        pass

    def wait_for_calm(self) -> None:
        pass

    def trouble(self) -> str:
        return self._troubles.pop(0)

    def close(self) -> None:
        pass


@pytest.fixture
def run(pytester, monkeypatch):
    """Runs a file in which a marked test passes from its n-th run on, on a computer with these troubles."""

    def run(*troubles: str, passes_at: int) -> pytest.RunResult:
        monkeypatch.setattr(stalls, "Computer", lambda: Scripted(*troubles))
        pytester.makepyfile(FAILS.format(passes_at=passes_at))
        return pytester.runpytest_inprocess("-p", "stalls", "-p", "no:cacheprovider", "-rA")

    return run


def test_a_failure_on_a_computer_that_keeps_time_stands(run):
    result = run("", passes_at=2)
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.fnmatch_lines(["*The computer*", "kept time"])


def test_a_failure_on_one_that_does_not_is_run_again_with_new_fixtures(run):
    result = run("stalled", "was busy", "", passes_at=3)
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines("*test_it: run again, since the computer stalled, then was busy")
    result.stdout.fnmatch_lines("['made', 'run', 'ended', 'made', 'run', 'ended', 'made', 'run']")


def test_a_failure_on_the_second_attempt_stands_when_the_computer_keeps_time(run):
    run("stalled", "", passes_at=3).assert_outcomes(failed=1, passed=1)


def test_what_never_had_its_time_is_skipped_with_what_happened(run):
    result = run("stalled", "was busy", "stalled", passes_at=4)
    result.assert_outcomes(skipped=1, passed=1)
    result.stdout.fnmatch_lines(
        "*skipped, in 3 attempts the computer stalled, then was busy, then stalled: *AssertionError"
    )


def test_a_pass_stands_whatever_the_computer_does(run):
    run("stalled", passes_at=1).assert_outcomes(passed=2)


@pytest.fixture
def computer():
    made = Computer()
    yield made
    made.close()


def test_a_stall_is_seen_and_forgotten(computer, monkeypatch):
    monkeypatch.setattr("computer.STALL_MS", 400.0)
    monkeypatch.setattr("computer.BUSY_CORES", 1000.0)
    computer.begin()
    computer.process.send_signal(signal.SIGSTOP)
    time.sleep(0.5)
    computer.process.send_signal(signal.SIGCONT)
    assert computer.trouble().startswith("stood still for ")
    computer.begin()
    assert computer.trouble() == ""


def test_other_programs_time_is_what_neither_we_nor_our_children_nor_nice_programs_had(tmp_path):
    (tmp_path / "stat").write_text("cpu  1000 7000 200 90000 50 3 4 30 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n")
    processes = ((10, 1, 100, 20, 7), (11, 10, 40, 3, 0), (12, 11, 5, 0, 0), (13, 1, 9, 9, 9))
    for pid, parent, user, system, children in processes:
        (tmp_path / str(pid)).mkdir()
        stat = f"{pid} (a (b) c) S {parent} " + "0 " * 9 + f"{user} {system} {children} 0 20 0"
        (tmp_path / str(pid) / "stat").write_text(stat)
    ours = 100 + 20 + 7 + 40 + 3 + 5
    assert foreign_s(tmp_path, 10) == pytest.approx((1000 + 200 + 3 + 4 + 30 - ours) * TICK_S)
    assert foreign_s() > 0
