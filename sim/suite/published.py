"""What the sources published on these seven tasks. Other models, in RoboMME's own simulator: no figure to compare with
ours point by point, but the pattern to look for.
"""

from __future__ import annotations

from dataclasses import dataclass

from memrt.sim.suite.cells import SUITE_TASKS

COMPRESSED_MEMORY = "compressed-memory report, table 1 (30 episodes per task)"
ROBOMME = "RoboMME's own figures"
NOTE = "published by the sources: other models, in RoboMME's own simulator"


@dataclass(frozen=True, slots=True)
class Published:
    """One row of success rates, as fractions by task. `policy` is the one of ours of the same kind, if there is one."""

    name: str
    policy: str | None
    source: str
    rates: dict[str, float]


def _row(name: str, policy: str | None, source: str, *percent: float) -> Published:
    tasks = ("BinFill", "PickXtimes", "SwingXtimes", "StopCube", "ButtonUnmask", "ButtonUnmaskSwap", "PickHighlight")
    assert tasks == SUITE_TASKS
    return Published(name, policy, source, {t: round(p / 100, 4) for t, p in zip(tasks, percent, strict=True)})


PUBLISHED = (
    _row("π0.5 without memory", "flat", ROBOMME, 30.0, 42.9, 35.6, 6.7, 22.2, 6.7, 11.3),
    _row("SimpleSG+QwenVL", "subgoal_simple", COMPRESSED_MEMORY, 77.56, 95.33, 5.11, 0.44, 19.33, 9.56, 17.11),
    _row("AM+SimpleSG", "am_simple", COMPRESSED_MEMORY, 73.33, 93.33, 96.67, 0.0, 3.33, 0.0, 6.67),
    _row("AM+GroundedSG", "am_grounded", COMPRESSED_MEMORY, 75.0, 100.0, 93.33, 0.0, 3.33, 0.0, 20.0),
    _row("AM+SM+SimpleSG", "am_sm_simple", COMPRESSED_MEMORY, 80.0, 83.33, 73.33, 0.0, 3.33, 3.33, 36.67),
    _row("AM+SM+GroundedSG", "am_sm_grounded", COMPRESSED_MEMORY, 60.0, 85.0, 66.67, 0.0, 13.33, 3.33, 36.67),
    _row("FrameSamp+Modul", None, COMPRESSED_MEMORY, 39.56, 87.33, 92.0, 42.0, 25.11, 18.22, 22.89),
    _row("MemER (RoboMME's)", "memer", ROBOMME, 56.7, 79.3, 59.3, 0.0, 72.0, 21.3, 70.7),
    _row("oracle grounded subgoals", "oracle_grounded", ROBOMME, 85.8, 100.0, 100.0, 49.7, 95.0, 80.2, 83.3),
)
