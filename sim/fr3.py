"""The Franka FR3 with its hand, as MJCF built from primitive shapes.

Kinematics are the manufacturer's (`runtime/kinematics.py`); shapes are capsules and boxes of our own, because primitive
shapes render several times faster than visual meshes on a CPU. Masses are round figures: gravity is compensated, as
libfranka's controllers do, so that only inertia acts.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, sin

from memrt.runtime.kinematics import FLANGE_D, FRANKA_DH, HAND_TCP_D, HAND_TURN

HOME_Q = (0.0, -0.0601, 0.0, -2.5094, 0.0, 2.4492, 0.7854)  # fingertips 0.20 m above the table's middle [rad]

Q_MIN = (-2.7437, -1.7837, -2.9007, -3.0421, -2.8065, 0.5445, -3.0159)  # FR3 datasheet, joint limits [rad]
Q_MAX = (2.7437, 1.7837, 2.9007, -0.1518, 2.8065, 4.5169, 3.0159)
TORQUE_MAX = (87.0, 87.0, 87.0, 87.0, 12.0, 12.0, 12.0)  # FR3 datasheet [N m]

# Joint impedance, stiff enough for millimetres under inertia [N m/rad], [N m s/rad]; the order of magnitude is that of
# franka_ros' joint impedance example.
STIFFNESS = (900.0, 900.0, 900.0, 900.0, 350.0, 250.0, 150.0)
DAMPING = (60.0, 60.0, 50.0, 50.0, 20.0, 16.0, 10.0)

HAND_OPEN_WIDTH = 0.08  # Franka Hand datasheet: travel of both fingers together [m]
HAND_SPEED = (
    0.15  # [m/s], both fingers together; the datasheet allows 0.05 m/s per finger, rounded up for the spline's sake
)


@dataclass(frozen=True, slots=True)
class _Link:
    """One link: its mass [kg], and the shapes drawn in its frame."""

    mass: float
    shapes: tuple[str, ...]


def _capsule(start: str, end: str, radius: float, colour: str = "white") -> str:
    return f'<geom class="arm" type="capsule" fromto="{start} {end}" size="{radius}" material="{colour}"/>'


_LINKS = (
    _Link(3.0, (_capsule("0 0 -.16", "0 0 .02", 0.06), _capsule("0 -.03 0", "0 .03 0", 0.062, "grey"))),
    _Link(3.0, (_capsule("0 0 -.05", "0 0 .05", 0.06), _capsule("0 -.06 0", "0 -.19 0", 0.058))),
    _Link(2.5, (_capsule("0 0 -.09", "0 0 0", 0.055), _capsule("0 0 0", ".0825 0 0", 0.052))),
    _Link(2.5, (_capsule("0 0 -.04", "0 0 .04", 0.052, "grey"), _capsule("0 0 0", "-.0825 .11 0", 0.05))),
    _Link(2.0, (_capsule("0 0 -.22", "0 0 -.02", 0.048), _capsule("0 .04 -.04", "0 .06 0", 0.045))),
    _Link(1.5, (_capsule("0 0 -.03", "0 0 .03", 0.048, "grey"), _capsule("0 0 0", ".088 0 0", 0.045))),
    _Link(0.7, (_capsule("0 0 .02", "0 0 .09", 0.042),)),
)

_FINGER = """
<body name="{side}_finger" pos="0 0 .0584" {rotation} gravcomp="1">
  <inertial pos="0 0 .02" mass=".05" diaginertia="3e-5 3e-5 1e-5"/>
  <joint name="{side}_finger" type="slide" axis="0 1 0" range="0 .04" damping="8" armature=".02"/>
  <geom class="finger" type="box" size=".010 .006 .021" pos="0 .008 .024" material="dark"/>
  <geom class="pad" name="{side}_pad" type="box" size=".009 .004 .009" pos="0 .004 .045" material="dark"/>
</body>"""

_HAND = f"""
<body name="hand" pos="0 0 {FLANGE_D}" euler="0 0 {HAND_TURN}" gravcomp="1">
  <inertial pos="0 0 .04" mass=".73" diaginertia=".001 .0025 .0017"/>
  <geom class="arm" type="box" size=".022 .095 .030" pos="0 0 .030" material="white"/>
  <site name="tcp" pos="0 0 {HAND_TCP_D}" size=".004" rgba="0 0 0 0"/>
  <camera name="wrist" pos=".07 0 .025" xyaxes="0 1 0 .91 0 .41" fovy="75"/>
  {_FINGER.format(side="left", rotation="")}
  {_FINGER.format(side="right", rotation='euler="0 0 3.14159265"')}
</body>"""

DEFAULTS = """
<default class="arm"><geom contype="0" conaffinity="0" mass="0"/></default>
<default class="finger"><geom contype="1" conaffinity="1" mass="0" friction="1 .01 .001"/></default>
<default class="pad">
  <geom contype="1" conaffinity="1" mass="0" condim="4" friction="2 .05 .001" solref=".004 1"/>
</default>"""

MATERIALS = """
<material name="white" rgba=".92 .92 .94 1" specular=".2"/>
<material name="grey" rgba=".45 .47 .5 1"/>
<material name="dark" rgba=".16 .16 .18 1"/>"""


def arm_body() -> str:
    """The kinematic tree from the base to the fingers, base frame at the world's origin."""
    body = _HAND
    for number in range(len(_LINKS), 0, -1):
        link, (a, d, alpha) = _LINKS[number - 1], FRANKA_DH[number - 1]
        y, z = -sin(alpha) * d, cos(alpha) * d
        body = f"""
<body name="link{number}" pos="{a} {y} {z}" euler="{alpha} 0 0" gravcomp="1">
  <inertial pos="0 0 0" mass="{link.mass}" diaginertia=".03 .03 .02"/>
  <joint name="joint{number}" axis="0 0 1" range="{Q_MIN[number - 1]} {Q_MAX[number - 1]}" damping="1" armature=".1"/>
  {"".join(link.shapes)}
  {body}
</body>"""
    base = '<geom class="arm" type="cylinder" size=".08 .07" pos="0 0 .07" material="white"/>'
    return f'<body name="base">{base}{body}</body>'


def actuators() -> str:
    """Joint impedance (a position and a velocity servo per joint) and the two finger servos."""
    lines = []
    for i, (stiffness, damping, torque) in enumerate(zip(STIFFNESS, DAMPING, TORQUE_MAX, strict=True), start=1):
        lines.append(
            f'<position name="q{i}" joint="joint{i}" kp="{stiffness}" forcerange="-{torque} {torque}"/>'
            f'<velocity name="dq{i}" joint="joint{i}" kv="{damping}" forcerange="-{torque} {torque}"/>'
        )
    lines += [
        f'<position name="{side}_grip" joint="{side}_finger" kp="800" kv="20" forcerange="-20 20"/>'
        for side in ("left", "right")
    ]
    return "".join(lines)
