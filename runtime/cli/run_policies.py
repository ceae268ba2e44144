"""Opens what a bundle holds: the VLM, where the policy has one, and the action expert."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from memrt.runtime.bundle import Bundle
from memrt.runtime.cli.extras import needs_extra
from memrt.runtime.loop.protocols import HighLevel, LowLevel
from memrt.runtime.ready_engines import ReadyEngines

if TYPE_CHECKING:
    from memrt.robot_io.config import PolicyServerConfig
    from memrt.robot_io.serve.remote_low_level import RemoteLowLevel


def open_policies(
    bundle: Bundle,
    threads: int,
    stack: ExitStack,
    *,
    cache: Path | None = None,
    policy_server: PolicyServerConfig | None = None,
) -> tuple[HighLevel | None, LowLevel]:
    """Both policies, closed with `stack`. The high level is None for an oracle, which comes with the simulator.

    `cache` is the folder of engines built here, by default beside the bundle. With a `policy_server` the low level is
    that server's, and the bundle needs none. Raises MemrtError for files that do not
    belong together, where no engine's runtime is installed, and when engines must be built first.
    """
    with needs_extra("cpu"):
        from memrt.runtime.policy.high_level import HighLevelPolicy
        from memrt.runtime.policy.low_level import LowLevelPolicy

    engines = ReadyEngines.of(bundle, cache=cache)
    high_level = None
    if bundle.policy.high_level.source == "vlm":
        high_level = HighLevelPolicy(bundle, threads, engines=engines)
        stack.callback(high_level.close)
    low_level = _connect(policy_server, bundle) if policy_server else LowLevelPolicy(bundle, threads, engines=engines)
    stack.callback(low_level.close)
    return high_level, low_level


def _connect(policy_server: PolicyServerConfig, bundle: Bundle) -> RemoteLowLevel:
    with needs_extra("serve"):
        from memrt.robot_io.serve.remote_low_level import RemoteLowLevel

    return RemoteLowLevel(policy_server, bundle.policy.low_level)
