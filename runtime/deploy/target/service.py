"""Starts the service with the bundle that is current, disarmed, and waits until it says whether it is healthy."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memrt.runtime.deploy.target.attended import Attended
from memrt.runtime.deploy.target.settings import DeploySettings
from memrt.runtime.errors import MemrtError

_ASK_S = 0.5  # between two questions
_ANSWER_S = 5.0
_MOVING = frozenset({"running", "held"})
_WAITING_S = 20.0  # for a robot that is switched off, or a node that does not answer: then the check cannot be made

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Service:
    """The service of this computer, through its control socket and the command that restarts it."""

    settings: DeploySettings

    def status(self) -> dict[str, Any] | None:
        """What it says of itself; None when it does not run."""
        from memrt.runtime.service.control import Request, ask

        control = Path(self.settings.control)
        if not control.exists():
            return None
        try:
            return ask(Request("status"), control, timeout_s=_ANSWER_S)
        except MemrtError:
            return None

    def phase(self) -> str:
        """The service's phase, or `not running`."""
        status = self.status()
        return "not running" if status is None else str(status.get("phase"))

    def require_stopped(self) -> None:
        """Raises MemrtError while the robot may move."""
        status = self.status()
        if status is not None and status.get("phase") in _MOVING:
            raise MemrtError(
                "the robot",
                expected="at rest and disarmed",
                found=f"the service is {status['phase']}",
                fix="end the run: `memrt service disarm` on the robot's computer",
            )

    def installed(self, attended: Attended) -> bool:
        """Whether there is a service to restart."""
        return not self._by_systemd or (shutil.which("systemctl") is not None and self._systemctl("cat", attended))

    def has_failed(self, attended: Attended) -> bool:
        """Whether systemd has given it up; True where it is not systemd's."""
        return not self._by_systemd or self._systemctl("is-failed", attended)

    def restart(self, attended: Attended, tell: Tell) -> None:
        """Start it anew, disarmed. Raises MemrtError when it does not come up."""
        if self._by_systemd:  # a unit that failed often would not be started again
            self._systemctl("reset-failed", attended)
        ran = attended.run(self.settings.restart, self.settings.start_s, tell)
        if ran.status != 0:
            raise MemrtError(
                "the service",
                expected="to start",
                found=ran.said or f"`{' '.join(self.settings.restart)}` ended with {ran.status}",
                fix="look at `memrt service logs` on the robot's computer",
            )

    def stop(self, attended: Attended) -> None:
        """Let nothing run, where there is no bundle to go back to; a service that is not systemd's stays."""
        if self._by_systemd:
            self._systemctl("stop", attended)

    @property
    def _by_systemd(self) -> bool:
        return self.settings.restart[:2] == ("systemctl", "restart")

    def _systemctl(self, verb: str, attended: Attended) -> bool:
        """Whether `systemctl VERB UNIT...` says yes of what the restart command names."""
        command = ("systemctl", verb, *self.settings.restart[2:])
        return attended.run(command, self.settings.start_s, lambda _: None).status == 0

    def await_health(self, bundle: Path, attended: Attended) -> dict[str, Any]:
        """Its health report on `bundle`, once every question is answered with yes. Raises MemrtError otherwise."""
        # How long each phase may last before it counts as the answer.
        patience = {"disarmed": 0.0, "unhealthy": self.settings.patience_s, "waiting": _WAITING_S}
        status, phase, until_s = None, "", math.inf
        end_s = time.monotonic() + self.settings.health_s
        while (now_s := time.monotonic()) < min(end_s, until_s):
            status = self.status() or status
            if status is not None and status["phase"] != phase and Path(status["bundle"]) == bundle.resolve():
                phase = status["phase"]
                until_s = now_s + patience.get(phase, math.inf)
            if now_s < until_s:
                attended.pause(_ASK_S)
        if status is None:
            raise _unhealthy("no answer from the service")
        if Path(status["bundle"]) != bundle.resolve():
            raise _unhealthy(f"the service runs {status['bundle']}")
        health: dict[str, Any] | None = status["health"]
        if status["phase"] != "disarmed" or health is None or not health["healthy"]:
            raise _unhealthy(f"{status['phase']}: {status['reason'] or 'no more was said'}")
        return health


def _unhealthy(found: str) -> MemrtError:
    return MemrtError(
        "the health check",
        expected="engines that load and reproduce their golden outputs, fresh pictures, p99 within the policy's budget",
        found=found,
        fix="mend what it names, or export the policy again; `memrt service logs` on the robot's computer has more",
    )
