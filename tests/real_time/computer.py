"""Whether the computer kept time: what a process beside the tests sees, and what other programs took of the cores.

On each core a thread sleeps 2 ms at a time and notes how much later it woke. Where that is permitted it goes before
all other programs (as `memrt.sim.doubles.host_stalls` does): then what holds it up is the host, and never a test with
real-time threads of its own. Busy programs it does not see; their share is read from /proc. What is `nice` does not
count: it gives way.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

# The tightest deadline of a marked test is libfranka's: 20 cycles of 1 ms. An idle computer wakes sleepers 0.1 ms late.
STALL_MS = 10.0
BUSY_CORES = 0.5
SLEEP_NS = 2_000_000
PRIORITY = 90  # SCHED_FIFO; of the tests' own threads none is above 80
CALM_S, CALM_WITHIN_S = 1.0, 20.0
TICK_S = 1 / os.sysconf("SC_CLK_TCK")


class Computer:
    """Watches from `begin` to `trouble`, with a process that otherwise waits."""

    def __init__(self) -> None:
        command = [sys.executable, "-I", "-S", __file__]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def begin(self) -> None:
        """Forget what was."""
        self._began_s, self._foreign_s = time.monotonic(), foreign_s()
        self._ask("begin")

    def trouble(self) -> str:
        """What kept the computer from keeping time since `begin`, "" when it did; ends the watch."""
        late_ms = self._ask("end")
        cores = (foreign_s() - self._foreign_s) / max(time.monotonic() - self._began_s, 1.0)
        stalled = f"stood still for {late_ms:.0f} ms" if late_ms > STALL_MS else ""
        busy = f"gave {cores:.1f} cores to other programs" if cores > BUSY_CORES else ""
        return " and ".join(filter(None, (stalled, busy)))

    def wait_for_calm(self) -> None:
        """Until the computer has kept time for a second, but not for ever."""
        give_up_s = time.monotonic() + CALM_WITHIN_S
        while time.monotonic() < give_up_s:
            self.begin()
            time.sleep(CALM_S)
            if not self.trouble():
                return

    def close(self) -> None:
        """End the process."""
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()

    def _ask(self, what: str) -> float:
        self.process.stdin.write(f"{what}\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())


def foreign_s(proc: Path = Path("/proc"), own: int | None = None) -> float:
    """Core time since the computer started that neither was ours nor nice: other programs', and the host's guests'.

    Ours is what this process (or `own`) and all that descend from it have used, with those of them that have ended.
    """
    fields = (proc / "stat").read_text().split("\n", 1)[0].split()[1:9]
    user, _, system, _, _, irq, softirq, stolen = map(int, fields)
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for entry in proc.iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):  # it has ended meanwhile
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
                parents[int(entry.name)], ticks[int(entry.name)] = int(fields[1]), sum(map(int, fields[11:15]))
    ours = {own or os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in ours} - ours:
        ours |= more
    return (user + system + irq + softirq + stolen - sum(ticks.get(pid, 0) for pid in ours)) * TICK_S


def watch() -> None:
    """What the process does: answers `begin` and `end` with how late a core was, in milliseconds."""
    cores = sorted(os.sched_getaffinity(0))
    due_ns, late_ns = dict.fromkeys(cores, 0), dict.fromkeys(cores, 0)
    watching = threading.Event()

    def sleep(core: int) -> None:
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, {core})  # of this thread
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
        while watching.wait():
            time.sleep(SLEEP_NS / 1e9)
            woke_ns = time.monotonic_ns()
            late_ns[core] = max(late_ns[core], woke_ns - due_ns[core])
            due_ns[core] = woke_ns + SLEEP_NS

    for core in cores:
        threading.Thread(target=sleep, args=(core,), daemon=True).start()
    with contextlib.suppress(OSError):  # its threads wait for this one at times
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
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
