"""One scene builder: table, robot, cubes, target, button and two cameras, as an MJCF string and named handles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import mujoco
import numpy as np
from numpy.typing import NDArray

from memrt.sim import fr3

PHYSICS_DT_NS = 2_000_000
IMAGE_SIZE = 256  # RoboMME's camera resolution, report section 1.1 of the policies: not resized for the high level
CUBE_HALF = 0.02  # RoboMME's 4 cm cubes [m]
TARGET_RADIUS = 0.05
BUTTON_TRAVEL = 0.012  # [m]
BUTTON_PRESSED = 0.007  # travel that counts as a press [m]
BUTTON_TOP = 0.050  # height of the released cap [m]

COLOURS = {"red": (0.85, 0.12, 0.10), "green": (0.10, 0.65, 0.18), "blue": (0.12, 0.25, 0.85)}


@dataclass(frozen=True, slots=True)
class Placement:
    """Where one object stands on the table: x, y [m] and yaw [rad]."""

    x: float
    y: float
    yaw: float = 0.0


@dataclass(frozen=True, slots=True)
class SceneLayout:
    """Everything that varies between episodes."""

    cubes: dict[str, Placement]
    target: Placement
    button: Placement


def _cube(colour: str, at: Placement) -> str:
    r, g, b = COLOURS[colour]
    return f"""
<body name="{colour}_cube" pos="{at.x} {at.y} {CUBE_HALF}" euler="0 0 {at.yaw}">
  <freejoint name="{colour}_cube"/>
  <geom name="{colour}_cube" type="box" size="{CUBE_HALF} {CUBE_HALF} {CUBE_HALF}" mass=".06" rgba="{r} {g} {b} 1"
        condim="4" friction="1 .02 .001" solref=".004 1"/>
</body>"""


def scene_xml(layout: SceneLayout) -> str:
    """MJCF of the whole scene. The table's surface is z = 0, the robot's base frame the origin."""
    cubes = "".join(_cube(colour, at) for colour, at in layout.cubes.items())
    return f"""
<mujoco model="memrt tabletop">
  <compiler angle="radian" autolimits="true"/>
  <option timestep="{PHYSICS_DT_NS * 1e-9}" integrator="implicitfast" cone="elliptic" impratio="10" iterations="30"/>
  <visual>
    <headlight ambient=".45 .45 .45" diffuse=".35 .35 .35" specular="0 0 0"/>
    <quality shadowsize="0" offsamples="0"/>
    <global offwidth="{IMAGE_SIZE}" offheight="{IMAGE_SIZE}"/>
  </visual>
  <default>{fr3.DEFAULTS}</default>
  <asset>
    {fr3.MATERIALS}
    <material name="wood" rgba=".72 .62 .50 1"/><material name="floor" rgba=".32 .34 .38 1"/>
  </asset>
  <worldbody>
    <light pos=".6 -.6 1.8" dir="-.1 .3 -1" directional="true" diffuse=".45 .45 .45"/>
    <geom name="table" type="box" size=".45 .55 .02" pos=".45 0 -.02" material="wood" condim="4" friction="1 .02 .001"/>
    <geom type="plane" size="3 3 .1" pos="0 0 -.5" material="floor" contype="0" conaffinity="0"/>
    <camera name="front" pos="1.16 0 .66" xyaxes="0 1 0 -.672 0 .740" fovy="42"/>
    {fr3.arm_body()}
    {cubes}
    <geom name="target" type="cylinder" size="{TARGET_RADIUS} .0005" pos="{layout.target.x} {layout.target.y} .0005"
          rgba=".93 .93 .88 1" contype="0" conaffinity="0"/>
    <geom type="cylinder" size="{TARGET_RADIUS * 0.66} .0005" pos="{layout.target.x} {layout.target.y} .0008"
          rgba=".55 .20 .60 1" contype="0" conaffinity="0"/>
    <body name="button" pos="{layout.button.x} {layout.button.y} 0">
      <geom type="box" size=".035 .035 .015" pos="0 0 .015" rgba=".22 .22 .24 1"/>
      <body name="button_cap" pos="0 0 .040" gravcomp="1">
        <joint name="button" type="slide" axis="0 0 -1" range="0 {BUTTON_TRAVEL}" stiffness="250" springref="-.004"
               damping="6"/>
        <geom name="button_cap" type="cylinder" size=".024 .010" mass=".05" rgba=".98 .78 .08 1"/>
      </body>
    </body>
  </worldbody>
  <contact>
    <exclude body1="button" body2="button_cap"/><exclude body1="left_finger" body2="right_finger"/>
  </contact>
  <actuator>{fr3.actuators()}</actuator>
</mujoco>"""


class Pinhole(NamedTuple):
    """Position [m], axes (columns: right, up, backwards) and focal length [pixels] of a 256×256 camera."""

    eye: NDArray[np.float64]
    axes: NDArray[np.float64]
    focal: float

    def project(self, point: NDArray[np.float64]) -> tuple[float, float]:
        """(row, col) of a point [m], also outside the image; NaN for a point that is not in front of the camera."""
        right, up, back = self.axes.T @ (point - self.eye)
        if back >= 0.0:
            return float("nan"), float("nan")
        return IMAGE_SIZE / 2 - self.focal * up / -back, IMAGE_SIZE / 2 + self.focal * right / -back

    def at_height(self, row: float, col: float, height: float) -> NDArray[np.float64]:
        """The point [m] at z = `height` that is seen at (row, col)."""
        sight = np.array([(col - IMAGE_SIZE / 2) / self.focal, (IMAGE_SIZE / 2 - row) / self.focal, -1.0])
        ray = self.axes @ sight
        point: NDArray[np.float64] = self.eye + ray * (height - self.eye[2]) / ray[2]
        return point


class Scene:
    """A compiled scene with the indices that physics, rendering and task logic need."""

    def __init__(self, layout: SceneLayout) -> None:
        self.layout = layout
        self.model = mujoco.MjModel.from_xml_string(scene_xml(layout))
        self.data = mujoco.MjData(self.model)
        joints = [self.model.joint(f"joint{i}") for i in range(1, 8)]
        self.q_index = np.array([joint.qposadr[0] for joint in joints])
        self.dq_index = np.array([joint.dofadr[0] for joint in joints])
        self.finger_index = np.array([self.model.joint(f"{s}_finger").qposadr[0] for s in ("left", "right")])
        self.button_index = int(self.model.joint("button").qposadr[0])
        self.ctrl_q = np.array([self.model.actuator(f"q{i}").id for i in range(1, 8)])
        self.ctrl_dq = np.array([self.model.actuator(f"dq{i}").id for i in range(1, 8)])
        self.ctrl_grip = np.array([self.model.actuator(f"{s}_grip").id for s in ("left", "right")])
        self.tcp = self.model.site("tcp").id
        self.pads = frozenset(self.model.geom(f"{s}_pad").id for s in ("left", "right"))
        self.cube_geoms = {colour: self.model.geom(f"{colour}_cube").id for colour in layout.cubes}

    def cube_position(self, colour: str) -> NDArray[np.float64]:
        """Centre of a cube in the base frame, float64 [3] in metres."""
        position: NDArray[np.float64] = self.data.body(f"{colour}_cube").xpos.copy()
        return position

    def target_position(self) -> NDArray[np.float64]:
        """Centre of the target disc, float64 [3]."""
        return np.array([self.layout.target.x, self.layout.target.y, 0.0])

    def button_position(self) -> NDArray[np.float64]:
        """Middle of the released button cap's top, float64 [3]."""
        return np.array([self.layout.button.x, self.layout.button.y, BUTTON_TOP])

    def tcp_position(self) -> NDArray[np.float64]:
        """Point between the fingertips, float64 [3]."""
        position: NDArray[np.float64] = self.data.site_xpos[self.tcp].copy()
        return position

    def pads_touching(self, colour: str) -> int:
        """How many of the two finger pads touch a cube."""
        cube = self.cube_geoms[colour]
        touching = set()
        for contact in self.data.contact[: self.data.ncon]:
            pair = {int(contact.geom1), int(contact.geom2)}
            if cube in pair:
                touching |= pair & self.pads
        return len(touching)

    def camera(self, name: str) -> Pinhole:
        """A camera as it stands now."""
        index = self.model.camera(name).id
        focal = IMAGE_SIZE / 2 / np.tan(np.deg2rad(self.model.cam_fovy[index]) / 2)
        return Pinhole(self.data.cam_xpos[index].copy(), self.data.cam_xmat[index].reshape(3, 3).copy(), focal)

    def pixel(self, point: Sequence[float] | NDArray[np.float64], camera: str = "front") -> tuple[int, int]:
        """Project a point [m] to (row, col) of a camera's 256×256 image, clipped to the image."""
        row, col = self.camera(camera).project(np.asarray(point))
        return int(np.clip(round(row), 0, IMAGE_SIZE - 1)), int(np.clip(round(col), 0, IMAGE_SIZE - 1))
