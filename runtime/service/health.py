"""The health check: does this computer run this bundle as it was exported, and fast enough, with pictures to run it on.

Four questions: every engine loads; every engine reproduces its golden outputs; every camera gives new pictures; the low
level's p99 keeps within what the policy's own rates allow. A question that could not be asked is open (`met` is None):
it makes nobody unhealthy, and nobody proven either.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any

import msgspec

from memrt.runtime.bundle import Bundle
from memrt.runtime.clock import NS_PER_MS, NS_PER_S, Clock
from memrt.runtime.device_engines import golden_of
from memrt.runtime.distribution import Distribution
from memrt.runtime.engine.golden import reproduce
from memrt.runtime.errors import MemrtError
from memrt.runtime.loop.gates import camera_state
from memrt.runtime.loop.protocols import LowLevel
from memrt.runtime.loop.settings import LoopSettings
from memrt.runtime.profile.verdict import chunks_follow
from memrt.runtime.ready_engines import ReadyEngines
from memrt.runtime.types import Engine, Observation, Subgoal

CALLS_S = 10.0  # a slow policy is timed for so long, but at least LEAST_CALLS times
LEAST_CALLS = 10
FRESH_WITHIN_S = 5.0  # auto-exposure settles, a simulator draws its first pictures
NEW_PICTURES = 3  # of each camera: one may have been there for long
LOOK_NS = 10 * NS_PER_MS


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One question. `met` is None where it could not be asked; `fix` is "" unless it was answered with no."""

    what: str
    asked: str
    found: str
    met: bool | None
    fix: str = ""


class HealthReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was found, of which bundle (its manifest's SHA-256), on which device."""

    bundle: str
    policy: str
    device: str
    checks: tuple[Check, ...]

    @property
    def healthy(self) -> bool:
        """Whether every question was asked, and answered with yes."""
        return bool(self.checks) and all(check.met for check in self.checks)

    @property
    def complaint(self) -> str:
        """What is wrong, in one line; "" where nothing is known to be."""
        wrong = [check for check in self.checks if check.met is False]
        return "; ".join(f"{c.what}: expected {c.asked}, found {c.found}. Fix: {c.fix}" for c in wrong)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"healthy": self.healthy, **msgspec.to_builtins(self)}


@dataclass(frozen=True)
class ProvenEngines(ReadyEngines):
    """Engines that repeat their golden samples when they are opened: what was proven is what then runs.

    `found` collects one check per engine. `before` is told the name of each engine before it is opened.
    """

    bundle: Bundle | None = None
    before: Callable[[str], None] = lambda name: None
    found: list[Check] = field(default_factory=list)

    @classmethod
    def prepare(cls, bundle: Bundle, before: Callable[[str], None], *, cache: Path | None = None) -> ProvenEngines:
        """As `ReadyEngines.of`, and raises what that raises."""
        ready = ReadyEngines.of(bundle, cache=cache)
        return cls(ready.device, ready.files, ready.kernels, bundle, before)

    def open(self, name: str, *, threads: int = 1, high_priority: bool = False) -> Engine:
        """Open it and prove it. Raises MemrtError when it does not load, or computes something else."""
        assert self.bundle is not None, "see prepare"
        self.before(name)
        engine = super().open(name, threads=threads, high_priority=high_priority)
        try:
            golden, limits = golden_of(self.bundle, name)
            agreement = reproduce(name, engine, golden, limits)
        except MemrtError:
            engine.close()
            raise
        found = f"cosine {agreement.cosine:.6f}, relative L2 {agreement.relative_l2:.1e} over {agreement.samples}"
        self.found.append(Check(what=f"engine {name}", asked=_asked(limits), found=found, met=True))
        return engine


def check_cameras(observe: Callable[[], Observation], settings: LoopSettings, clock: Clock) -> Check:
    """Wait until every camera that the policy needs has given new pictures, and all are fresh at one time.

    Raises what `observe` raises.
    """
    names, never = settings.cameras, Event()
    seen: dict[str, set[int]] = {name: set() for name in names}
    newest: dict[str, int] = {}
    asked = f"{NEW_PICTURES} new pictures of each, younger than {settings.camera_stale_ns / NS_PER_MS:.0f} ms"
    end_ns = clock.now_ns() + round(FRESH_WITHIN_S * NS_PER_S)
    while True:
        observation, now_ns = observe(), clock.now_ns()
        for name in names:
            if frame := observation.frames.get(name):
                newest[name] = frame.t_ns
                if len(seen[name]) < NEW_PICTURES:
                    seen[name].add(frame.index)
        slow = [
            name
            for name in names
            if len(seen[name]) < NEW_PICTURES or camera_state(now_ns, newest[name], settings) != "fresh"
        ]
        if not slow:
            return Check(what="cameras", asked=asked, found=", ".join(names) or "none are needed", met=True)
        if now_ns >= end_ns:
            break
        clock.wait_until(now_ns + LOOK_NS, never)
    found = ", ".join(_age(name, newest.get(name), now_ns) for name in slow)
    fix = "look at them with `memrt cameras check ROBOT.yaml`, and at their cables"
    return Check(what="cameras", asked=asked, found=found, met=False, fix=fix)


def check_low_level(
    low_level: LowLevel,
    observe: Callable[[], Observation],
    goal: str,
    settings: LoopSettings,
    clock: Clock,
    calls: int,
) -> Check:
    """Time at most `calls` calls on live observations, from the observation to its chunk. Nothing moves.

    Of a hundred calls the p99 forgives the worst one, of fewer none.

    Raises what the policy and `observe` raise. Call both policies before: first calls are slow.
    """
    taken = Distribution()
    end_ns = clock.now_ns() + round(CALLS_S * NS_PER_S)
    for call in range(calls):
        if call >= LEAST_CALLS and clock.now_ns() >= end_ns:
            break
        observation = observe()
        subgoal = Subgoal(goal, 0, observation.t_ns)
        low_level.act(observation, subgoal, goal, low_level.noise(settings.seed, call))
        taken.add(clock.now_ns() - observation.t_ns)
    line = chunks_follow(settings, taken.percentile(99))
    return Check(
        what=line.what, asked=line.asked, found=f"{line.found} of {taken.count} calls", met=line.met, fix=line.advice
    )


def _asked(limits: Mapping[str, float]) -> str:
    return f"cosine >= {limits['cosine']}, relative L2 <= {limits['relative_l2']}"


def _age(name: str, t_ns: int | None, now_ns: int) -> str:
    return f"{name}: " + ("no picture" if t_ns is None else f"the newest is {(now_ns - t_ns) / NS_PER_S:.2f} s old")
