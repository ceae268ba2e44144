"""What the suite consists of: cells, and what is kept of each episode."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from memrt.sim.tasks import TASKS

Mode = Literal["lockstep", "realtime"]
MODES: tuple[Mode, ...] = ("lockstep", "realtime")

SUITE_TASKS = tuple(TASKS)
# In the order of SPECS 1: from no memory to the most, then the ceilings.
SUITE_POLICIES = (
    "flat",
    "memoryless",
    "subgoal_simple",
    "subgoal_grounded",
    "am_simple",
    "am_grounded",
    "am_sm_simple",
    "am_sm_grounded",
    "memer",
    "language_memory",
    "oracle_simple",
    "oracle_grounded",
)


class Cell(msgspec.Struct, frozen=True, order=True):
    """One square of the table."""

    task: str
    policy: str
    precision: str
    mode: Mode

    def __str__(self) -> str:
        """E.g. `am_grounded, int8, lockstep, on PickXtimes`."""
        return f"{self.policy}, {self.precision}, {self.mode}, on {self.task}"


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What decides a cell's outcomes beside its seeds: two cells with equal settings may share episodes.

    `bundle` is the folder's name and `bundle_sha256` the hash of its manifest, which holds those of all its files; both
    are None for a policy without weights. `borrowed`: the policy's own settings, where another policy's bundle lends
    it the low level.
    """

    suite: Literal["memory"] = "memory"
    task: str
    policy: str
    precision: str
    mode: Mode
    bundle: str | None
    bundle_sha256: str | None
    borrowed: dict[str, Any] | None = None
    cap_steps: int


class Episode(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """How one seed ended: `memrt.sim.episode_player.EpisodeResult`, and what played it.

    `bundle` is the beginning of the manifest's hash. `starved_ms` is measured in real time only, as is `seconds` by
    the robot's clock then; elsewhere it is what the computer took.
    """

    seed: int
    success: bool
    status: str
    reason: str
    steps: int
    progress: float | None
    difficulty: str
    repetitions: int
    seconds: float
    high_level_ms: float
    low_level_ms: float
    starved_ms: float | None = None
    actions_sha256: str
    bundle: str | None
    memrt: str

    @property
    def outcome(self) -> tuple[bool, str, int]:
        """What anyone would call the outcome: success, reason, control steps."""
        return self.success, self.reason, self.steps
