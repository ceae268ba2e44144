"""Opens what a bundle holds: the VLM, where the policy has one, and the action expert."""

from __future__ import annotations

from contextlib import ExitStack

from memrt.runtime.bundle import Bundle
from memrt.runtime.cli.extras import needs_extra
from memrt.runtime.loop.protocols import HighLevel, LowLevel


def open_policies(bundle: Bundle, threads: int, stack: ExitStack) -> tuple[HighLevel | None, LowLevel]:
    """Both policies, closed with `stack`. The high level is None for an oracle, which comes with the simulator.

    Raises MemrtError for files that do not belong together, or where no engine's runtime is installed.
    """
    with needs_extra("cpu"):
        from memrt.runtime.policy.high_level import HighLevelPolicy
        from memrt.runtime.policy.low_level import LowLevelPolicy

    high_level = None
    if bundle.policy.high_level.source == "vlm":
        high_level = HighLevelPolicy(bundle, threads=threads)
        stack.callback(high_level.close)
    low_level = LowLevelPolicy(bundle, threads=threads)
    stack.callback(low_level.close)
    return high_level, low_level
