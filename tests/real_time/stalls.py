"""`@pytest.mark.real_time`: for tests of what must happen on time, which no test can prove on a computer that stalls.

A busy host takes its guests' cores away for tens of milliseconds, several times a minute. A test is to be written so
that this changes nothing: with a clock of its own, by counts and order, by waiting for what must come. What remains is
real time itself (a watchdog's 50 ms, libfranka's 1 kHz): such a test is marked, and `computer.py` watches whether the
computer kept time while it ran. Of a marked test that fails
 * on a computer that kept time the failure stands;
 * on one that did not nothing is known: it is run again when the computer has kept time for a second, with all fixtures
   made anew, up to `ATTEMPTS` times, and then skipped with what the computer did and the failure as its reason.
What was run again or skipped is listed at the end of the run. A test that passes is never looked at.
`make test` runs the marked tests one by one after all others, which run side by side.
"""

from __future__ import annotations

import contextlib

import pytest
from _pytest.runner import runtestprotocol
from computer import Computer

ATTEMPTS = 3
AGAIN = pytest.StashKey[list[str]]()
COMPUTER = pytest.StashKey[Computer]()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "real_time: is run again when it fails on a computer that does not keep time")
    config.stash[AGAIN] = []


def pytest_unconfigure(config: pytest.Config) -> None:
    if COMPUTER in config.stash:
        config.stash[COMPUTER].close()


def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    if item.get_closest_marker("real_time") is None:
        return None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for report in _attempts(item, nextitem):
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def _attempts(item: pytest.Item, nextitem: pytest.Item | None) -> list[pytest.TestReport]:
    if COMPUTER not in item.config.stash:
        item.config.stash[COMPUTER] = Computer()
    computer, troubles, again = item.config.stash[COMPUTER], [], item.config.stash[AGAIN]
    while len(troubles) < ATTEMPTS:
        if troubles:
            computer.wait_for_calm()
        computer.begin()
        reports = runtestprotocol(item, nextitem=nextitem, log=False)
        trouble = computer.trouble()
        failed = [report for report in reports if report.failed]
        if not failed or not trouble:
            for report in failed:
                report.sections.append(("The computer", "kept time"))
            if troubles:
                again.append(f"{item.nodeid}: run again, since the computer {', then '.join(troubles)}")
            return reports
        troubles.append(trouble)
        with contextlib.suppress(Exception):
            item.session._setupstate.teardown_exact(None)
        item._initrequest()
    last = str(failed[0].longrepr).strip().splitlines()[-1]
    reason = f"in {ATTEMPTS} attempts the computer {', then '.join(troubles)}: {last}"
    again.append(f"{item.nodeid}: skipped, {reason}")
    first = reports[0]
    first.outcome, first.longrepr = "skipped", (str(item.path), item.location[1] or 0, f"Skipped: {reason}")
    return [first]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if config.stash[AGAIN]:
        terminalreporter.section("failed while the computer did not keep time")
        for line in config.stash[AGAIN]:
            terminalreporter.line(line)
