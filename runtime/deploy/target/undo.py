"""Going back: by hand, by the service that failed, and by whoever finds a flash that was cut short."""

from __future__ import annotations

from typing import Any

from memrt.runtime.deploy.target.attended import Attended
from memrt.runtime.deploy.target.layout import Layout
from memrt.runtime.deploy.target.lock import BusyError, hold
from memrt.runtime.deploy.target.service import Service, Tell
from memrt.runtime.deploy.target.settings import read_deploy_settings
from memrt.runtime.deploy.target.switch import Switch
from memrt.runtime.errors import MemrtError


def recover(layout: Layout) -> str | None:
    """Undo a flash that was cut short; returns the bundle that was on trial, None when there was none.

    The service calls this before it starts. While a flash is alive, which holds the lock, it does nothing.
    """
    if not layout.root.is_dir():
        return None
    try:
        with hold(layout.lock, "a recovery", tries=1):
            trial = Switch(layout).recover()
    except BusyError:
        return None
    return None if trial is None else trial.bundle


def roll_back(layout: Layout, reason: str, *, to: str | None = None, failed: bool = False) -> str:
    """Go back to the bundle before the current one, or `to`; returns its folder. Restarting is the caller's.

    `failed`: the service gave up on the current bundle, which is bad from now on. Raises MemrtError when there is no
    other that was found good, and BusyError while a flash is under way, which sees a failure itself and decides.
    """
    with hold(layout.lock, "a rollback"):
        switch = Switch(layout)
        undone = switch.recover()
        if undone is not None and failed and undone.back is not None:
            return undone.back  # what failed was on trial: the bundle before it has not
        return switch.roll_back(reason, to=to, bad=failed)


def roll_back_and_start(
    layout: Layout, tell: Tell, *, to: str | None = None, failed: bool = False, reason: str = ""
) -> dict[str, Any]:
    """`roll_back`, then start the service with it and hear of its health. Raises what those raise.

    What is not healthy after a rollback stays current: it was good before, and there is nothing better to run.
    """
    service, attended = Service(read_deploy_settings(layout)), Attended()
    if failed and (Switch(layout).current() is None or not service.has_failed(attended)):
        # Never flashed; or what failed was a bundle on trial, which its flash has undone since.
        return {"current": Switch(layout).current(), "healthy": None, "found": "nothing to go back from"}
    if not failed:
        service.require_stopped()
    folder = roll_back(layout, reason or ("it failed" if failed else "rolled back by hand"), to=to, failed=failed)
    tell(f"current is {folder}")
    if not service.installed(attended):
        return {"current": folder, "healthy": None, "found": "no service here: nothing was started"}
    try:
        service.restart(attended, tell)
        health = service.await_health(layout.bundle(folder), attended)
    except MemrtError as error:
        return {"current": folder, "healthy": False, "found": str(error)}
    return {"current": folder, "healthy": True, "found": "", "health": health}
