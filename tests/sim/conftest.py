"""Pictures are drawn in software: that is chosen before anything imports mujoco, which chooses when it is imported."""

import memrt.sim  # noqa: F401
