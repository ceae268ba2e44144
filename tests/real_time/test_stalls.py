"""The marker itself: what is run again, what stands, and that a stall is seen."""

import signal
import time

import pytest
import stalls

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
    """A computer whose stalls are written down."""

    def __init__(self, *stalls_ms: float) -> None:
        self._stalls_ms = list(stalls_ms)

    def begin(self) -> None:
        pass

    def wait_for_calm(self) -> None:
        pass

    def longest_ms(self) -> float:
        return self._stalls_ms.pop(0)

    def close(self) -> None:
        pass


@pytest.fixture
def run(pytester, monkeypatch):
    """Runs a file in which a marked test passes from its n-th run on, on a computer with these stalls."""

    def run(*stalls_ms: float, passes_at: int) -> pytest.RunResult:
        monkeypatch.setattr(stalls, "Watcher", lambda: Scripted(*stalls_ms))
        pytester.makepyfile(FAILS.format(passes_at=passes_at))
        return pytester.runpytest_inprocess("-p", "stalls", "-p", "no:cacheprovider", "-rA")

    return run


def test_a_failure_on_a_computer_that_keeps_time_stands(run):
    result = run(stalls.STALL_MS, passes_at=2)
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.fnmatch_lines("*The computer kept time*")


def test_a_failure_in_a_stall_is_run_again_with_new_fixtures(run):
    result = run(150.0, 200.0, 0.0, passes_at=3)
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines("*test_it: run again after a stall of 150 ms and 200 ms")
    result.stdout.fnmatch_lines("['made', 'run', 'ended', 'made', 'run', 'ended', 'made', 'run']")


def test_a_failure_on_the_second_attempt_stands_when_the_computer_keeps_time(run):
    run(150.0, 1.0, passes_at=3).assert_outcomes(failed=1, passed=1)


def test_what_only_ran_in_stalls_is_skipped_with_their_lengths(run):
    result = run(150.0, 50.0, 70.0, passes_at=4)
    result.assert_outcomes(skipped=1, passed=1)
    result.stdout.fnmatch_lines(
        "*in each of 3 attempts, for 150 ms, 50 ms, 70 ms: *test_what_only*.py*: AssertionError"
    )


def test_a_pass_stands_whatever_the_computer_does(run):
    run(1000.0, passes_at=1).assert_outcomes(passed=2)


def test_the_watcher_sees_a_stall():
    watcher = stalls.Watcher()
    try:
        watcher.begin()
        watcher.process.send_signal(signal.SIGSTOP)
        time.sleep(0.5)
        watcher.process.send_signal(signal.SIGCONT)
        stopped_ms = watcher.longest_ms()
        assert stopped_ms > 400
        watcher.begin()
        assert watcher.longest_ms() < stopped_ms, "what was before is forgotten"
    finally:
        watcher.close()
