"""What a gripper offers to the driver of the arm it sits on."""

# ruff: noqa: D102 - the protocol's docstring speaks for its members

from __future__ import annotations

from typing import Protocol


class Gripper(Protocol):
    """One gripper. No method waits for it: a thread of its own talks to it, and of several commands the newest counts.

    `opening` is measured, from 0 (closed) to 1 (open), as `move` takes it. `fault` is "" or why it does not work; the
    driver puts the robot in fault with it. After `move` the gripper holds with its configured force what it meets on
    the way.
    """

    @property
    def opening(self) -> float: ...

    @property
    def fault(self) -> str: ...

    def move(self, opening: float) -> None: ...

    def close(self) -> None: ...
