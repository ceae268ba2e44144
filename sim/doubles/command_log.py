"""What a robot was commanded and what it did, millisecond by millisecond, as seen on libfranka's wire.

Two tables: a row per command that arrived, a row per state that was sent. Writing a row costs about 3 us; memory is
taken as the tables fill, and ends at `MAX_MINUTES`. From then on rows are only counted, and a log that counted any says
so to whoever judges it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_MINUTES = 10.0  # 190 MB
_JOINTS = ("<f8", (7,))
# `motion` counts libfranka's Move requests; `controller` and `generator` are the numbers of its ControllerMode and
# MotionGeneratorMode in that request (research_interface::robot::Move).
COMMAND = np.dtype(
    [
        ("t_ns", "<i8"),
        ("message_id", "<u8"),
        ("motion", "<u4"),
        ("controller", "u1"),
        ("generator", "u1"),
        ("finished", "u1"),
        ("q_c", *_JOINTS),
        ("dq_c", *_JOINTS),
        ("tau_J_d", *_JOINTS),
    ]
)
STATE = np.dtype([("t_ns", "<i8"), ("q", *_JOINTS), ("dq", *_JOINTS)])
JOINT_IMPEDANCE, CARTESIAN_IMPEDANCE, EXTERNAL_CONTROLLER = range(3)
JOINT_POSITION, JOINT_VELOCITY, CARTESIAN_POSITION, CARTESIAN_VELOCITY, NO_GENERATOR = range(5)


@dataclass(frozen=True, slots=True, eq=False)
class CommandLog:
    """`commands` and `states` are structured arrays of the dtypes above, in the order of their times.

    `unrecorded` counts the rows that came after the log was full.
    """

    commands: NDArray[Any]
    states: NDArray[Any]
    unrecorded: int = 0

    def save(self, path: Path) -> None:
        """Write an .npz file."""
        with path.open("wb") as file:
            np.savez(file, commands=self.commands, states=self.states, unrecorded=self.unrecorded)

    @classmethod
    def load(cls, path: Path) -> CommandLog:
        """Read what `save` wrote. Raises OSError or ValueError for anything else."""
        with np.load(path, allow_pickle=False) as stored:
            if not {"commands", "states", "unrecorded"} <= set(stored):
                raise ValueError(f"{path} is no log of commands")
            commands, states = stored["commands"], stored["states"]
            if commands.dtype != COMMAND or states.dtype != STATE:
                raise ValueError(f"{path} was written by another version")
            return cls(commands, states, int(stored["unrecorded"]))


class _Table:
    """Rows of one dtype in memory that the system hands out as they are written."""

    def __init__(self, dtype: np.dtype[Any], layout: str, rows: int) -> None:
        self._pack = struct.Struct(layout).pack_into
        self._rows = np.zeros(rows, dtype)
        self._bytes = memoryview(self._rows.view(np.uint8))
        self._width, self._end = dtype.itemsize, self._rows.nbytes
        self._at = 0
        self.unrecorded = 0

    def add(self, *values: Any) -> None:
        if self._at == self._end:
            self.unrecorded += 1
            return
        self._pack(self._bytes, self._at, *values)
        self._at += self._width

    def __len__(self) -> int:
        return self._at // self._width

    def rows(self) -> NDArray[Any]:
        return self._rows[: len(self)].copy()


class CommandRecorder:
    """Fills a `CommandLog`. One thread writes; `snapshot` may be called from another between two rows."""

    def __init__(self, minutes: float = MAX_MINUTES) -> None:
        rows = round(minutes * 60_000)  # both come once per millisecond
        self._commands = _Table(COMMAND, "<qQIBBB21d", rows)
        self._states = _Table(STATE, "<q14d", rows)

    def command(
        self, t_ns: int, message_id: int, motion: int, modes: tuple[int, int], finished: bool, values: tuple[float, ...]
    ) -> None:
        """Add a command: `modes` are controller and generator, `values` q_c, dq_c and tau_J_d one after the other."""
        self._commands.add(t_ns, message_id, motion, *modes, finished, *values)

    def state(self, t_ns: int, q: tuple[float, ...], dq: tuple[float, ...]) -> None:
        """Add a state: measured joint angles [rad] and speeds [rad/s]."""
        self._states.add(t_ns, *q, *dq)

    @property
    def commanded(self) -> int:
        """How many commands are recorded."""
        return len(self._commands)

    def snapshot(self) -> CommandLog:
        """What is recorded by now, as copies."""
        unrecorded = self._commands.unrecorded + self._states.unrecorded
        return CommandLog(self._commands.rows(), self._states.rows(), unrecorded)
