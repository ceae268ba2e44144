"""Our table around franky-sim's arm: its joints, inertias and friction, our shapes, cubes and fingertips.

franky-sim compiles the MJCF tree that it hands out as `sim.scene`; what is drawn and what is touched is exchanged in
that tree before it does. The link frames of both arms are the same (the manufacturer's table), so shapes move over
unchanged.
"""

from __future__ import annotations

import copy
import re
from xml.etree import ElementTree

import mujoco
import numpy as np
from franky_sim.mujoco_simulator import MujocoSimulator
from numpy.typing import NDArray

from memrt.sim.scene import SceneLayout, scene_xml

PREFIX = "robot0_"  # franky-sim's, of the first robot's names
OPTIONS = {"cone": "elliptic", "impratio": "10", "iterations": "30"}  # contacts as in `sim/scene.py`


def furnish(simulator: MujocoSimulator, layout: SceneLayout) -> None:
    """Put our scene around the simulator's only robot, before it starts."""
    ours = ElementTree.fromstring(scene_xml(layout))
    for element in ours.iter():
        if "class" in element.attrib:
            element.set("class", "memrt_" + element.attrib["class"])  # franky-sim has a class `finger` too
    scene = simulator.scene
    _part(scene, "asset").clear()  # the arm's meshes and materials: nothing refers to them once the shapes are ours
    for part in ("default", "asset", "contact"):
        _part(scene, part).extend(_renamed(element) for element in _part(ours, part))
    _part(scene, "option").attrib.update(OPTIONS)
    world, our_world = simulator.worldbody, _part(ours, "worldbody")
    for geom in world.findall("geom"):
        world.remove(geom)  # franky-sim's floor is where our table's surface is
    arm, our_arm = _body(world, PREFIX + "base"), _body(our_world, "base")
    for body in arm.iter("body"):
        for geom in body.findall("geom"):
            body.remove(geom)
    for body in our_arm.iter("body"):
        _body(world, their_body(body.get("name", ""))).extend(copy.deepcopy(body.findall("geom")))
    furniture = [element for element in our_world if element is not our_arm and element.tag in {"body", "geom"}]
    world.extend(copy.deepcopy(furniture))


def their_body(ours: str) -> str:
    """What franky-sim calls a body of our arm."""
    if ours == "base":
        return f"{PREFIX}fr3_link0"
    return PREFIX + re.sub(r"^link(?=\d)", "fr3_link", ours)


def their_joint(ours: str) -> str:
    """What franky-sim's scene calls a joint of ours; those that are not the robot's keep their name."""
    if ours in {"left_finger", "right_finger"}:
        return f"{PREFIX}finger_joint{1 if ours == 'left_finger' else 2}"
    return re.sub(r"^joint(?=\d)", f"{PREFIX}fr3_joint", ours)


def matching(ours: mujoco.MjModel, theirs: mujoco.MjModel) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Where our `qpos` [nq] and our `qvel` [nv] lie in theirs."""
    positions, speeds = np.empty(ours.nq, dtype=np.intp), np.empty(ours.nv, dtype=np.intp)
    for joint in range(ours.njnt):
        mine, other = ours.joint(joint), theirs.joint(their_joint(ours.joint(joint).name))
        free = mine.type[0] == mujoco.mjtJoint.mjJNT_FREE
        for index, at, their_at, width in (
            (positions, mine.qposadr[0], other.qposadr[0], 7 if free else 1),
            (speeds, mine.dofadr[0], other.dofadr[0], 6 if free else 1),
        ):
            index[at : at + width] = their_at + np.arange(width)
    return positions, speeds


def _part(root: ElementTree.Element, name: str) -> ElementTree.Element:
    part = root.find(name)
    assert part is not None, f"an MJCF with <{name}>"
    return part


def _body(root: ElementTree.Element, name: str) -> ElementTree.Element:
    return next(body for body in root.iter("body") if body.get("name") == name)


def _renamed(element: ElementTree.Element) -> ElementTree.Element:
    """A copy in which bodies of our arm (of contact exclusions) carry franky-sim's names."""
    element = copy.deepcopy(element)
    for attribute in ("body1", "body2"):
        name = element.get(attribute)
        if name is not None and name.endswith("_finger"):
            element.set(attribute, their_body(name))
    return element
