"""One scene builder: table, robot, two cameras and a layout's objects, as an MJCF string and named handles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import mujoco
import numpy as np
from numpy.typing import NDArray

from memrt.sim import fr3
from memrt.sim.objects import BUTTON_PRESSED, Button, Container, Cube, Marker, SceneLayout

PHYSICS_DT_NS = 2_000_000
IMAGE_SIZE = 256  # RoboMME's camera resolution, report section 1.1 of the policies: not resized for the high level


def scene_xml(layout: SceneLayout) -> str:
    """MJCF of the whole scene. The table's surface is z = 0, the robot's base frame the origin."""
    objects = "".join(thing.mjcf() for thing in layout.objects)
    excludes = "".join(f'<exclude body1="{b.name}" body2="{b.name}_cap"/>' for b in layout.of(Button))
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
    {objects}
  </worldbody>
  <contact>
    {excludes}<exclude body1="left_finger" body2="right_finger"/>
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
        self.ctrl_q = np.array([self.model.actuator(f"q{i}").id for i in range(1, 8)])
        self.ctrl_dq = np.array([self.model.actuator(f"dq{i}").id for i in range(1, 8)])
        self.ctrl_grip = np.array([self.model.actuator(f"{s}_grip").id for s in ("left", "right")])
        self.tcp = self.model.site("tcp").id
        self.pads = frozenset(self.model.geom(f"{s}_pad").id for s in ("left", "right"))
        self._geoms = {
            thing.name: frozenset(np.flatnonzero(self.model.geom_bodyid == self.model.body(thing.name).id).tolist())
            for thing in layout.objects
            if isinstance(thing, Cube | Container | Marker)
        }

    def position(self, name: str) -> NDArray[np.float64]:
        """An object's point in the base frame, float64 [3] in metres.

        The centre of a cube or a container, the middle of a target, of a bin's rim, of the top of a released button.
        """
        thing = self.layout[name]
        if isinstance(thing, Cube | Container | Marker):
            position: NDArray[np.float64] = self.data.body(name).xpos.copy()
            return position
        return np.array([thing.at.x, thing.at.y, thing.height])

    def pressed(self, button: str = "button") -> bool:
        """Whether a button is down far enough to count as pressed."""
        return bool(self.data.joint(button).qpos[0] >= BUTTON_PRESSED)

    def tcp_position(self) -> NDArray[np.float64]:
        """Point between the fingertips, float64 [3]."""
        position: NDArray[np.float64] = self.data.site_xpos[self.tcp].copy()
        return position

    def pads_touching(self, name: str) -> int:
        """How many of the two finger pads touch a cube or a container."""
        geoms, pairs = self._geoms[name], self.data.contact.geom[: self.data.ncon]
        count = 0
        for pad in self.pads:
            rows, columns = np.nonzero(pairs == pad)
            count += any(geom in geoms for geom in pairs[rows, 1 - columns].tolist())
        return count

    def put(self, name: str, position: Sequence[float] | NDArray[np.float64], yaw: float = 0.0) -> None:
        """Set a cube, a container or a marker down somewhere, at rest; for tasks that move objects themselves.

        A free body then falls unless it is held up; put once per control step, it moves as pictures are taken.
        """
        pose = [*position, np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)]
        body = self.model.body(name)
        if body.mocapid[0] >= 0:
            self.data.mocap_pos[body.mocapid[0]], self.data.mocap_quat[body.mocapid[0]] = pose[:3], pose[3:]
        else:
            joint = self.data.joint(name)
            joint.qpos[:], joint.qvel[:] = pose, 0.0
        mujoco.mj_kinematics(self.model, self.data)  # pictures and positions read now show it where it is

    def hold_up(self, name: str, held: bool = True) -> None:
        """Take a free body's weight away, or give it back."""
        self.model.body_gravcomp[self.model.body(name).id] = float(held)

    def show(self, name: str, shown: bool = True) -> None:
        """Draw a cube, a container or a marker, or draw it no longer."""
        self.model.geom_rgba[list(self._geoms[name]), 3] = float(shown)

    def shown(self, name: str) -> bool:
        """Whether an object is drawn; what never was hidden is."""
        return all(self.model.geom_rgba[geom, 3] > 0 for geom in self._geoms.get(name, ()))

    def camera(self, name: str) -> Pinhole:
        """A camera as it stands now."""
        index = self.model.camera(name).id
        focal = IMAGE_SIZE / 2 / np.tan(np.deg2rad(self.model.cam_fovy[index]) / 2)
        return Pinhole(self.data.cam_xpos[index].copy(), self.data.cam_xmat[index].reshape(3, 3).copy(), focal)

    def pixel(self, point: Sequence[float] | NDArray[np.float64], camera: str = "front") -> tuple[int, int]:
        """Project a point [m] to (row, col) of a camera's 256×256 image, clipped to the image."""
        row, col = self.camera(camera).project(np.asarray(point))
        return int(np.clip(round(row), 0, IMAGE_SIZE - 1)), int(np.clip(round(col), 0, IMAGE_SIZE - 1))
