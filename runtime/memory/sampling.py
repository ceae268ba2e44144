"""At which moments of an episode a memory looks: raw ticks, counted from the first observation (SPECS 1.2)."""

from __future__ import annotations

from dataclasses import dataclass

from memrt.runtime.clock import NS_PER_S
from memrt.runtime.keyframes_config import KeyframesConfig
from memrt.runtime.memory.keyframes import KeyframeSettings


@dataclass(frozen=True, slots=True)
class Sampling:
    """Times and ticks of one episode, both ways. Pure: the episode's start is an argument."""

    config: KeyframesConfig
    settings: KeyframeSettings

    @classmethod
    def of(cls, config: KeyframesConfig) -> Sampling:
        """What a policy's YAML says."""
        settings = KeyframeSettings(
            stride=config.stride,
            recent=config.recent,
            keyframes=config.keyframes,
            merge_distance=config.merge_distance,
            median=config.median,
            destructive_merge=config.destructive_merge,
            max_open_frames=config.max_open_frames,
        )
        return cls(config, settings)

    def t_ns(self, start_ns: int, tick: int) -> int:
        """The time of a raw tick."""
        return start_ns + round(tick * NS_PER_S / self.config.raw_rate_hz)

    def tick(self, start_ns: int, t_ns: int) -> int:
        """The newest tick that a call at `t_ns` shows, at least 0.

        With `align` it lies on the grid even if the call came a little late: a shifted grid would make every recent
        frame a new one.
        """
        tick = max(0, round((t_ns - start_ns) * self.config.raw_rate_hz / NS_PER_S))
        while tick > 0 and self.t_ns(start_ns, tick) > t_ns:
            tick -= 1
        if self.config.align:
            return tick - tick % self.config.stride
        return max(0, tick - self.config.lag)

    def recent_ticks(self, start_ns: int, t_ns: int) -> tuple[int, ...]:
        """The ticks of the recent frames of a call at `t_ns`, oldest first."""
        return self.settings.recent_ticks(self.tick(start_ns, t_ns))

    def next_call_ns(self, start_ns: int, t_ns: int) -> int:
        """The first time at or after `t_ns` for a call: with `align` the next one on the grid."""
        if not self.config.align or t_ns <= start_ns:
            return max(t_ns, start_ns)
        tick = self.tick(start_ns, t_ns)
        at_ns = self.t_ns(start_ns, tick)
        return at_ns if at_ns == t_ns else self.t_ns(start_ns, tick + self.config.stride)
