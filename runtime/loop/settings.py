"""The loop's settings: the policy's rates and the reactions to faults that users are promised."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from memrt.runtime.clock import NS_PER_MS, NS_PER_S
from memrt.runtime.config import PolicyConfig
from memrt.runtime.errors import MemrtError

EPISODE_CAP_STEPS = 1300  # control steps per episode, RoboMME


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopSettings:
    """Times in nanoseconds. `dt_ns` is one control step at full speed; `speed` stretches every chunk by 1 / speed.

    `chunking`, `calls`, `on_new_subgoal`, `latency_window` and `warm_up_calls` are the policy's (`LowLevelConfig`).
    """

    dt_ns: int
    horizon: int
    execute: int
    every_steps: int
    cameras: tuple[str, ...] = ()
    seed: int = 0
    speed: float = 1.0
    cap_steps: int = EPISODE_CAP_STEPS
    subgoal_time_to_live_ns: int = 3 * NS_PER_S
    chunking: Literal["none", "prefix", "guided"] = "none"
    calls: Literal["chunked", "every_tick"] = "chunked"
    on_new_subgoal: Literal["finish", "discard"] = "finish"
    latency_window: int = 16
    warm_up_calls: int = 2
    camera_stale_ns: int = 100 * NS_PER_MS  # older: no new inference, the running chunk ends
    camera_lost_ns: int = 500 * NS_PER_MS  # older: hold until an operator resumes
    rejected_before_hold: int = 3  # malformed chunks in a row
    late_before_hold: int = 5  # chunks in a row of which no action was in time, or the first came after its prefix
    send_lead_ns: int = 10 * NS_PER_MS  # an action nearer than this would reach the robot too late

    def __post_init__(self) -> None:
        for name in ("dt_ns", "horizon", "execute", "every_steps", "cap_steps", "subgoal_time_to_live_ns"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.execute > self.horizon:
            raise ValueError(f"execute ({self.execute}) exceeds the horizon ({self.horizon})")
        check_speed(self.speed)

    @property
    def paced_dt_ns(self) -> int:
        """The time between two actions on the robot: `dt_ns`, stretched when the robot is to move slower."""
        return round(self.dt_ns / self.speed)

    @property
    def low_level_hung_ns(self) -> int:
        """A low-level call that takes longer is as bad as `late_before_hold` chunks of which no action was in time."""
        return self.late_before_hold * self.horizon * self.paced_dt_ns

    @property
    def steps_between_calls(self) -> int:
        """Control steps from one low-level call's observation to the next one's, where the computer keeps up."""
        return 1 if self.calls == "every_tick" else self.execute

    @classmethod
    def from_policy(cls, policy: PolicyConfig, *, seed: int = 0, speed: float = 1.0) -> LoopSettings:
        """The settings a policy's YAML implies."""
        low, high = policy.low_level, policy.high_level
        # The high level's cameras are needed as much as the low level's: all are gated on age.
        cameras = tuple(dict.fromkeys((*low.cameras, *policy.high_level_cameras)))
        return cls(
            dt_ns=round(NS_PER_S / low.control_hz),
            horizon=low.horizon,
            execute=low.execute,
            every_steps=high.every_steps,
            cameras=cameras,
            seed=seed,
            speed=speed,
            chunking=low.chunking.kind,
            calls=low.calls,
            on_new_subgoal=low.on_new_subgoal,
            latency_window=low.chunking.latency_window,
            warm_up_calls=low.chunking.warm_up_calls,
            subgoal_time_to_live_ns=round(high.time_to_live_s * NS_PER_S),
        )


def check_speed(speed: float) -> None:
    """Raises MemrtError unless the robot is to move, and not faster than the policy was trained to."""
    if not 0.0 < speed <= 1.0:
        raise MemrtError("speed", expected="a number above 0 and at most 1", found=speed, fix="give e.g. --speed 0.3")
