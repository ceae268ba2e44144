"""Connects to an FR3, and says in one line within seconds why that is not possible."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import franky

from memrt.robot_io.franka.settings import FrankaConfig
from memrt.runtime.errors import MemrtError

ARM_PORT, HAND_PORT = 1337, 1338  # libfranka's research_interface: kCommandPort of robot and gripper
PROBE_S = 2.0  # for a robot on the same network; libfranka itself would wait for minutes
HANDSHAKE_S = 5.0
# Of franky's author, for each server version: 10 is the FR3's present one, 5 the last of the older Panda (FER).
WHEELS = "https://timschneider42.github.io/franky/whl/by-robot-server-version"
REALTIME_KERNEL = Path("/sys/kernel/realtime")  # what libfranka looks at

T = TypeVar("T")


def connect_arm(host: str, config: FrankaConfig) -> franky.Robot:
    """The arm at `host`, idle, with `config`'s thresholds and load. Raises MemrtError when it cannot be commanded."""
    enforce = config.realtime == "enforce"
    if enforce and not (REALTIME_KERNEL.exists() and REALTIME_KERNEL.read_text().strip() == "1"):
        raise MemrtError(
            "settings.realtime: enforce",
            expected="a kernel with PREEMPT_RT, whose 1 kHz loop never waits for others",
            found="a kernel without",
            fix="boot one (robot_io/franka/README.md says how), or set `realtime: ignore` and expect robot stops",
        )
    what = f"FR3 at {host}"
    _probe(host, ARM_PORT, what, "give the robot's address with --host; in Desk unlock the joints and activate FCI")
    realtime = franky.RealtimeConfig.Enforce if enforce else franky.RealtimeConfig.Ignore
    arm = _connected(lambda: franky.Robot(host, realtime_config=realtime), what)
    try:
        arm.set_collision_behavior(list(config.collision.torque), list(config.collision.force))
        if config.load is not None:
            columns = [value for column in zip(*config.load.inertia, strict=True) for value in column]
            arm.set_load(config.load.mass, config.load.centre, columns)
    except (franky.CommandException, franky.NetworkException) as error:
        raise MemrtError(
            what,
            expected="its thresholds and load to be accepted",
            found=one_line(error),
            fix="see what Desk shows; a robot that stopped by itself must be acknowledged there first",
        ) from error
    return arm


def connect_hand(host: str) -> franky.Gripper:
    """The Franka Hand of the arm at `host`. Raises MemrtError when there is none."""
    what = f"Franka Hand at {host}"
    _probe(host, HAND_PORT, what, "mount it and set it as end effector in Desk, or remove `gripper` from the YAML")
    return _connected(lambda: franky.Gripper(host), what)


def one_line(error: BaseException) -> str:
    """libfranka's own words."""
    return " ".join(str(error).split()).removeprefix("libfranka: ")


def _probe(host: str, port: int, what: str, fix: str) -> None:
    try:
        socket.create_connection((host, port), PROBE_S).close()
    except socket.gaierror as error:
        raise MemrtError(what, expected="an address that can be found", found=error.strerror, fix=fix) from error
    except OSError as error:
        found = "no answer" if isinstance(error, TimeoutError) else (error.strerror or str(error)).lower()
        raise MemrtError(what, expected=f"libfranka's server on port {port}", found=found, fix=fix) from error


def _connected(connect: Callable[[], T], what: str) -> T:
    """`connect()`, given up after `HANDSHAKE_S`: a server that accepts and then is silent would hold it for ever."""
    result: list[T] = []
    failure: list[Exception] = []

    def run() -> None:
        try:
            result.append(connect())
        except Exception as error:
            failure.append(error)

    thread = threading.Thread(target=run, name="connecting", daemon=True)
    thread.start()
    thread.join(HANDSHAKE_S)
    if result:
        return result[0]
    error = failure[0] if failure else None
    if isinstance(error, franky.IncompatibleVersionException):
        version = re.search(r"server version: (\d+)", str(error))
        number = version.group(1) if version else "N"
        raise MemrtError(
            what,
            expected="a robot that speaks this franky-control's version of libfranka's protocol",
            found=f"version {number}" if version else one_line(error),
            fix=f"pip install --force-reinstall --no-deps franky-control --extra-index-url {WHEELS}/{number}/",
        ) from error
    if isinstance(error, franky.RealtimeException):
        raise MemrtError(
            what,
            expected="the right to real-time priority",
            found=one_line(error),
            fix="let this user have it (robot_io/franka/README.md says how), or set `realtime: ignore`",
        ) from error
    raise MemrtError(
        what,
        expected="libfranka's handshake",
        found=one_line(error) if error else f"silence for {HANDSHAKE_S:g} s",
        fix="end the program that is connected already; activate FCI in Desk",
    ) from error
