"""`@pytest.mark.real_time`: for tests of what must happen on time, which no test can prove on a computer that stalls.

A busy host takes its guests' cores away for tens of milliseconds, several times a minute. A test is to be written so
that this changes nothing: with a clock of its own, by counts and order, by waiting for what must come. What remains is
real time itself (a watchdog's 50 ms, libfranka's 1 kHz): such a test is marked, and a process watches whether the
computer kept time while it ran. Of a marked test that fails
 * on a computer that kept time the failure stands;
 * while the computer stalled nothing is known: it is run again when the computer has kept time for a second, with all
   fixtures made anew, up to `ATTEMPTS` times, and then skipped with the stalls and the failure as its reason.
What was run again or skipped is listed at the end of the run. A test that passes is never looked at.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time

ATTEMPTS = 3
CALM_S, CALM_WITHIN_S = 1.0, 20.0  # between two attempts
# One core's sleeper: an idle computer wakes it 0.1 ms late, four programs that compute on each core up to 10 ms. The
# tightest deadline of a marked test is libfranka's: 20 cycles of 1 ms.
STALL_MS = 10.0
SLEEP_NS = 2_000_000


class Watcher:
    """The process that watches. It sleeps between two marked tests."""

    def __init__(self) -> None:
        command = [sys.executable, "-I", "-S", __file__]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def begin(self) -> None:
        """Forget what was."""
        self._tell("begin")

    def longest_ms(self) -> float:
        """The longest time since `begin` that a core was late for; ends the watch."""
        return self._tell("end")

    def wait_for_calm(self) -> None:
        """Until the computer has kept time for a second, but not for ever."""
        give_up_s = time.monotonic() + CALM_WITHIN_S
        while time.monotonic() < give_up_s:
            self.begin()
            time.sleep(CALM_S)
            if self.longest_ms() <= STALL_MS:
                return

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()

    def _tell(self, what: str) -> float:
        self.process.stdin.write(f"{what}\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())


def watch() -> None:
    """What the process does: on each core a thread that sleeps 2 ms at a time and notes how much later it woke."""
    cores = sorted(os.sched_getaffinity(0))
    due_ns, late_ns = dict.fromkeys(cores, 0), dict.fromkeys(cores, 0)
    watching = threading.Event()

    def sleep(core: int) -> None:
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, {core})  # of this thread
        while watching.wait():
            time.sleep(SLEEP_NS / 1e9)
            woke_ns = time.monotonic_ns()
            late_ns[core] = max(late_ns[core], woke_ns - due_ns[core])
            due_ns[core] = woke_ns + SLEEP_NS

    for core in cores:
        threading.Thread(target=sleep, args=(core,), daemon=True).start()
    for line in sys.stdin:
        now_ns = time.monotonic_ns()
        longest_ns = max(0, *late_ns.values(), *(now_ns - t_ns for t_ns in due_ns.values()))
        if line == "begin\n":
            for core in cores:
                due_ns[core], late_ns[core] = now_ns + SLEEP_NS, 0
            watching.set()
        else:
            watching.clear()
        print(longest_ns / 1e6, flush=True)


if __name__ == "__main__":
    watch()
    os._exit(0)  # its threads sleep

import pytest  # noqa: E402
from _pytest.runner import runtestprotocol  # noqa: E402

AGAIN = pytest.StashKey[list[str]]()
WATCHER = pytest.StashKey[Watcher]()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "real_time: is run again when it fails while the computer stalls")
    config.stash[AGAIN] = []


def pytest_unconfigure(config: pytest.Config) -> None:
    if WATCHER in config.stash:
        config.stash[WATCHER].close()


def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    if item.get_closest_marker("real_time") is None:
        return None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for report in _attempts(item, nextitem):
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def _attempts(item: pytest.Item, nextitem: pytest.Item | None) -> list[pytest.TestReport]:
    if WATCHER not in item.config.stash:
        item.config.stash[WATCHER] = Watcher()
    watcher, stalls = item.config.stash[WATCHER], []
    while len(stalls) < ATTEMPTS:
        if stalls:
            watcher.wait_for_calm()
        watcher.begin()
        reports = runtestprotocol(item, nextitem=nextitem, log=False)
        longest_ms = watcher.longest_ms()
        failed = [report for report in reports if report.failed]
        if not failed or longest_ms <= STALL_MS:
            for report in failed:
                report.sections.append(("The computer kept time", f"{longest_ms:.1f} ms late at most"))
            if stalls:
                item.config.stash[AGAIN].append(f"{item.nodeid}: run again after a stall of {' and '.join(stalls)}")
            return reports
        stalls.append(f"{longest_ms:.0f} ms")
        with contextlib.suppress(Exception):
            item.session._setupstate.teardown_exact(None)
        item._initrequest()
    last = str(failed[0].longrepr).strip().splitlines()[-1]
    reason = f"the computer stalled in each of {ATTEMPTS} attempts, for {', '.join(stalls)}: {last}"
    item.config.stash[AGAIN].append(f"{item.nodeid}: skipped, {reason}")
    first = reports[0]
    first.outcome, first.longrepr = "skipped", (str(item.path), item.location[1] or 0, f"Skipped: {reason}")
    return [first]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if config.stash[AGAIN]:
        terminalreporter.section("failed while the computer stalled")
        for line in config.stash[AGAIN]:
            terminalreporter.line(line)
