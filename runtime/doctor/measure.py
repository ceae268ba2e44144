"""Measures what no file says: the control thread's lateness, the clocks, the disk, the way to the robot.

A few seconds in all, and next to no work: a thread that sleeps, 64 MB written and removed, a thousand echoes.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import tempfile
import time
from pathlib import Path

import msgspec

from memrt.runtime.bench.control import control_lateness
from memrt.runtime.clock import NS_PER_S
from memrt.runtime.doctor.collect import run_tool
from memrt.runtime.doctor.snapshot import Clock, Disk, Lateness, Network
from memrt.runtime.statistics import median, percentile

RATE_HZ, LATENESS_S = 1000.0, 2.0
BATCHES, READINGS = 20, 1000  # the quickest batch is the one that nothing interrupted
WRITTEN, BLOCK = 64 << 20, 16 << 20  # bytes in all, and between two syncs
WRITE_S = 5.0  # a slow disk is left alone after this long
SPARE = 1 << 30  # bytes that a disk must have free to be written to
ECHO_BYTES = 1200  # as in Franka's ping test
# Older pings let only root send that often.
PINGS = (("-c", "1000", "-i", "0.002", "-w", "5"), ("-c", "20", "-i", "0.2", "-w", "5"))
PING_S = 15.0
TIME_ERROR = 5  # adjtimex(2): the clock is not synchronised


def measure_lateness() -> Lateness:
    """The control thread as the robots' nodes run it, with nothing to do."""
    late, realtime = control_lateness(RATE_HZ, LATENESS_S)
    return Lateness(
        seconds=LATENESS_S,
        median_ms=round(late["median"], 4),
        p99_ms=round(late["p99"], 4),
        max_ms=round(late["max"], 4),
        realtime=realtime,
    )


def measure_clock() -> Clock:
    """What reading it costs, and whether it is right."""
    read_ns = min(_reading_ns() for _ in range(BATCHES))
    resolution = round(time.clock_getres(time.CLOCK_MONOTONIC) * NS_PER_S)
    return Clock(resolution_ns=resolution, read_ns=round(read_ns, 1), synchronised=_synchronised())


def _reading_ns() -> float:
    began = time.monotonic_ns()
    for _ in range(READINGS):
        time.monotonic_ns()
    return (time.monotonic_ns() - began) / READINGS


def _synchronised() -> bool | None:
    """adjtimex(2) with `modes` 0 changes nothing, and needs no rights; `struct timex` has 208 bytes at most."""
    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.create_string_buffer(512))
    except (OSError, AttributeError):
        return None
    return None if state < 0 else state != TIME_ERROR


def measure_disk(folder: Path, *, write: bool) -> Disk:
    """The file system of `folder`; with `write`, 64 MB are written to a file that has no name and then is gone."""
    usage, writable = shutil.disk_usage(folder), os.access(folder, os.W_OK | os.X_OK)
    disk = Disk(folder=str(folder), file_system=_file_system(folder), writable=writable, free_bytes=usage.free)
    if not (write and writable and usage.free > SPARE):
        return disk
    block, slowest, written = os.urandom(BLOCK), 0.0, 0
    began = time.monotonic()
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            while written < WRITTEN and time.monotonic() - began < WRITE_S:
                written += os.write(file.fileno(), block)
                before = time.monotonic()
                os.fsync(file.fileno())
                slowest = max(slowest, time.monotonic() - before)
            speed = written / 1e6 / (time.monotonic() - began)
    except OSError:  # full, over quota, or failing: `writable` said too much
        return msgspec.structs.replace(disk, writable=False)
    return msgspec.structs.replace(disk, write_mb_s=round(speed, 1), slowest_sync_s=round(slowest, 3))


def _file_system(folder: Path) -> str:
    """The type of the mount that `folder` is in: the last of those with the longest path (proc_pid_mountinfo(5))."""
    try:
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    found, longest, path = "", -1, folder.resolve()
    for line in lines:
        before, _, after = line.partition(" - ")
        point = Path(before.split()[4].replace("\\040", " "))
        if path.is_relative_to(point) and len(point.parts) >= longest:
            found, longest = after.split()[0], len(point.parts)
    return found


def measure_network(host: str) -> Network:
    """Echoes of `host`, and the interface that packets to it leave by."""
    output = None
    for options in PINGS:
        output = run_tool(("ping", "-n", "-s", str(ECHO_BYTES), "-W", "1", *options, host), PING_S)
        if output is None or "packets transmitted" in output.text:
            break
    if output is None:
        return Network(host=host, error="no ping")
    network = parse_ping(host, output.text)
    route = run_tool(("ip", "-o", "route", "get", host))
    text = route.text if route is not None and route.status == 0 else ""
    interface, gateway = re.search(r" dev (\S+)", text), re.search(r" via (\S+)", text)
    return msgspec.structs.replace(
        network,
        interface=interface.group(1) if interface else "",
        gateway=gateway.group(1) if gateway else "",
    )


def parse_ping(host: str, text: str) -> Network:
    """What iputils' and busybox's ping print."""
    totals = re.search(r"(\d+) packets transmitted, (\d+) (?:packets )?received", text)
    if totals is None:
        return Network(host=host, error=" ".join(text.split())[:200] or "ping says nothing")
    times = [float(number) for number in re.findall(r"time[=<]([\d.]+) ?ms", text)]
    if not times:
        return Network(host=host, sent=int(totals.group(1)))
    return Network(
        host=host,
        sent=int(totals.group(1)),
        received=int(totals.group(2)),
        median_ms=median(times),
        p99_ms=percentile(times, 99.0),
        max_ms=max(times),
    )
