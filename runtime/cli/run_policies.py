"""Opens what a bundle holds: the VLM, where the policy has one, and the action expert."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from memrt.runtime.background import in_background
from memrt.runtime.bench.hardware import usable_cores
from memrt.runtime.bundle import Bundle
from memrt.runtime.cli.extras import needs_extra
from memrt.runtime.cli.run_display import note
from memrt.runtime.loop.protocols import HighLevel, LowLevel
from memrt.runtime.profile.fixed_subgoal import FixedSubgoal
from memrt.runtime.ready_engines import ReadyEngines
from memrt.runtime.thread_budget import ThreadBudget

if TYPE_CHECKING:
    from memrt.robot_io.config import PolicyServerConfig
    from memrt.robot_io.serve.remote_low_level import RemoteLowLevel
    from memrt.runtime.recording.recorded_vlm import RecordedVlm
    from memrt.sim.scripted import ScriptedPolicy


SCRIPTED = ("expert", "expert-velocity", "expert-pose", "wander")  # policies without weights, of `memrt.sim.scripted`


def find_scripted(policy: str | None) -> ScriptedPolicy | None:
    """The scripted policy of this name; None when it names a trained one. Raises MemrtError without the simulator."""
    if policy not in SCRIPTED:
        return None
    with needs_extra("sim"):
        import memrt.sim.scripted

    return memrt.sim.scripted.SCRIPTED[policy]


def open_scripted(scripted: ScriptedPolicy, task: str, seed: int) -> tuple[HighLevel, LowLevel]:
    """A scripted policy as both levels: it needs no subgoal."""
    return FixedSubgoal("by script"), scripted.open(task, seed)


def open_policies(
    bundle: Bundle,
    threads: ThreadBudget,
    stack: ExitStack,
    *,
    cache: Path | None = None,
    engines: ReadyEngines | None = None,
    policy_server: PolicyServerConfig | None = None,
) -> tuple[HighLevel | None, LowLevel]:
    """Both policies, closed with `stack`. The high level is None for an oracle, which comes with the simulator.

    The threads of the high level's engines stand back behind the low level's. `cache` is the folder of engines built
    here, by default beside the bundle; `engines` are those that were found already. With a `policy_server` the low
    level is that server's, and the bundle needs none. Raises MemrtError for files that do not belong together, where no
    engine's runtime is installed, and when engines must be built first.
    """
    with needs_extra("cpu"):
        from memrt.runtime.policy.high_level import HighLevelPolicy
        from memrt.runtime.policy.low_level import LowLevelPolicy

    engines = engines or ReadyEngines.of(bundle, cache=cache)
    high_level = None
    if bundle.policy.high_level.asks_vlm:
        high_level = in_background(lambda: HighLevelPolicy(bundle, threads.high_level, engines=engines))
        stack.callback(high_level.close)
        if high_level.remote_down:
            note(f"{high_level.remote_down}: the high level is answered on board until it comes back")
    low_level: LowLevelPolicy | RemoteLowLevel
    if policy_server:
        low_level = _connect(policy_server, bundle)
    else:
        low_level = LowLevelPolicy(bundle, threads.low_level, engines=engines)
    stack.callback(low_level.close)
    return high_level, low_level


def open_recorded(
    bundle: Bundle, threads: ThreadBudget, stack: ExitStack, *, cache: Path | None
) -> tuple[HighLevel | None, LowLevel, RecordedVlm]:
    """Both policies of a run whose VLM was served elsewhere, as `open_policies` opens them, to replay it.

    The third is the high level's VLM, which has to be told what was answered.
    """
    with needs_extra("cpu"):
        from memrt.runtime.policy.high_level import HighLevelPolicy
        from memrt.runtime.policy.low_level import LowLevelPolicy
        from memrt.runtime.policy.vlm_session import VlmSession
        from memrt.runtime.recording.recorded_vlm import RecordedVlm

    engines, session = ReadyEngines.of(bundle, cache=cache), None
    if bundle.policy.high_level.vlm_on_board:
        session = in_background(lambda: VlmSession.open(bundle, threads.high_level, engines=engines))
    recorded = RecordedVlm(session)
    stack.callback(recorded.close)
    low_level = LowLevelPolicy(bundle, threads.low_level, engines=engines)
    stack.callback(low_level.close)
    return HighLevelPolicy.of(bundle.policy, recorded), low_level, recorded


def _connect(policy_server: PolicyServerConfig, bundle: Bundle) -> RemoteLowLevel:
    with needs_extra("serve"):
        from memrt.robot_io.serve.remote_low_level import RemoteLowLevel

    return RemoteLowLevel(policy_server, bundle.policy.low_level)


def chosen_threads(text: str | None, *, lockstep: bool = False) -> ThreadBudget:
    """What --threads says, or the default. In lock-step nothing hurries: one thread each, on any number of cores."""
    if text is not None:
        return ThreadBudget.parse(text)
    return ThreadBudget() if lockstep else ThreadBudget.of_cores(usable_cores())
