"""Recorded runs of the kinematic arm whose policies remember: texts, and frames."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import msgspec
from kinematic import DT_NS, LEFT, REACHED, RIGHT, KinematicRobot, SwingLowLevel
from mcap.reader import make_reader
from scripted_vlm import Asked, ScriptedVlm
from test_keyframe_loop import LEVELS_PER_RAD, SwingVlm, grey, policy_config

from memrt.runtime.clock import NS_PER_S, VirtualClock
from memrt.runtime.config import PolicyConfig, load_policy
from memrt.runtime.loop.lockstep import run_lockstep
from memrt.runtime.loop.settings import LoopSettings
from memrt.runtime.policy.high_level import HighLevelPolicy
from memrt.runtime.recording.recorder import McapRecorder
from memrt.runtime.types import Frame, Observation

HOSTILE = (
    '</script><script>window.owned = 1</script><img src="http://127.0.0.1:9/x" onerror="window.owned = 1"><!-- & \u2028'
)
GOAL = f"swing twice {HOSTILE}"
SWUNG = ["I have not swung yet", f"I swung once {HOSTILE}", "I swung twice"]


class TwoCameras(KinematicRobot):
    """The wrist's pictures are the front's, inverted."""

    def observe(self) -> Observation:
        now = super().observe()
        front = now.frames["front"]
        wrist = Frame("wrist", front.index, front.t_ns, 255 - front.image)
        return replace(now, frames={"front": front, "wrist": wrist})


@dataclass
class Telling:
    """Answers as a grounded policy with both memories does: swings to and fro, and writes down how often."""

    swings: int = 0

    def __call__(self, asked: Asked) -> str:
        side = LEFT if self.swings % 2 == 0 else RIGHT
        if abs(asked.greys[0] - grey(side)) < REACHED * LEVELS_PER_RAD + 2:
            self.swings += 1
        side_name = "left" if self.swings % 2 == 0 else "right"
        row = 64 + len(asked.user) % 2  # a VLM's pixels waver
        return (
            f"swing {side_name} <{row}, 192>\n<mem>{SWUNG[min(self.swings, 2)]}.</mem>"
            f"<spatial_mem>The arm hangs {side_name} of the post {HOSTILE}.</spatial_mem>"
        )


def record_texts(path: Path) -> Path:
    """Two swings under a goal that is not harmless."""
    policy = load_policy("am_grounded")
    memory = msgspec.structs.replace(
        policy.memory,
        spatial=True,
        user=f"{policy.memory.user}\n{{spatial_memory}}",
        initial_spatial_memory="No observations yet.",
    )
    policy = msgspec.structs.replace(policy, memory=memory)
    return _record(path, policy, ScriptedVlm(Telling()), TwoCameras(VirtualClock(NS_PER_S), 2), GOAL)


def record_keyframes(path: Path) -> Path:
    """Eight swings of a policy that is shown two keyframes: the older ones are dropped."""
    policy = policy_config()
    keyframes = msgspec.structs.replace(policy.memory.keyframes, keyframes=2)
    policy = msgspec.structs.replace(policy, memory=msgspec.structs.replace(policy.memory, keyframes=keyframes))
    return _record(path, policy, SwingVlm(), KinematicRobot(VirtualClock(NS_PER_S), 8), "swing")


def cut_off(recording: Path, cut: Path) -> Path:
    """A copy without the recording's last word, as a killed process leaves it."""
    with recording.open("rb") as file:
        last = make_reader(file).get_summary().chunk_indexes[-1]
    cut.write_bytes(recording.read_bytes()[: last.chunk_start_offset + last.chunk_length])
    return cut


def _record(path: Path, policy: PolicyConfig, vlm: ScriptedVlm, robot: KinematicRobot, goal: str) -> Path:
    settings = LoopSettings(
        dt_ns=DT_NS, horizon=16, execute=8, every_steps=10, cap_steps=600, cameras=policy.low_level.cameras
    )
    about = {
        "mode": "lockstep",
        "goal": goal,
        "policy": policy.name,
        "simulated": True,
        "bundle_sha256": "ab" * 32,
        "versions": {"memrt": "0.0"},
        "memory": msgspec.to_builtins(policy.memory),
        "settings": asdict(settings),
    }
    with McapRecorder(path, about) as recorder:
        high_level = HighLevelPolicy.of(policy, vlm)
        record = run_lockstep(robot, high_level, SwingLowLevel(), goal, settings, observer=recorder)
        ended = {"outcome": record.status, "outcome_by": record.outcome_by, "reason": record.reason}
        recorder.close({**ended, "report": record.to_dict()})
    assert record.status == "success", record.reason
    return path
