"""A robot of your own: an arm of six joints and a gripper, which takes a position a hundred times a second.

`Vendor` stands for the library that came with the arm; here its joints go where they are told. Everything else is real.
"""

import time

import msgspec
import numpy as np

from memrt.robot_io.config import RobotConfig
from memrt.robot_io.drivers import DriverOptions
from memrt.robot_io.seam_driver import SeamDriver


class Vendor:
    """Replace this by the arm's own library."""

    def __init__(self, address: str | None, baud: int) -> None:
        self.angles, self.opening = np.array([0.0, -1.2, 1.4, 0.0, 1.0, 0.0]), 1.0

    def servo(self, angles: np.ndarray, opening: float) -> None:
        """Go there: angles [rad], gripper opening 0 to 1."""
        self.angles, self.opening = angles, opening


class Settings(msgspec.Struct, forbid_unknown_fields=True):
    """What stands under `settings` in the YAML."""

    baud: int
    rate_hz: float = 100.0


class MyArm(SeamDriver):
    """What `my_arm.yaml` calls `driver: my_arm`."""

    def __init__(self, robot: RobotConfig, options: DriverOptions) -> None:
        self._settings = robot.driver_settings(Settings)
        self._vendor = Vendor(options.host, self._settings.baud)
        super().__init__(robot, options, robot.arm.proprioception(self._vendor.angles, self._vendor.opening))
        self.spawn("arm", self._servo)

    def proprioception(self) -> tuple[int, np.ndarray]:
        """When, and measured joints and gripper."""
        measured = self.robot.arm.proprioception(self._vendor.angles, self._vendor.opening)
        self.check_range(measured)
        return time.monotonic_ns(), measured

    def _servo(self) -> None:
        while not self.quit.wait(1 / self._settings.rate_hz):
            q, _, gripper, _ = self.control.command()  # inside the YAML's limits at every moment
            self._vendor.servo(q[: self.robot.arm.count], gripper)
