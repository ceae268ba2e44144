"""MuJoCo tabletop with a Franka FR3, the memory tasks, the scripted expert, the evaluator."""

import os

# MuJoCo chooses its renderer when first imported; robot computers and CI have no display.
os.environ.setdefault("MUJOCO_GL", "egl")
