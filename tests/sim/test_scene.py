"""Every kind of object: where it stands, what can be done with it, and what tasks may do to it."""

import mujoco
import numpy as np
import pytest

from memrt.sim.objects import (
    BIN_HALF,
    BIN_HEIGHT,
    BUTTON_TOP,
    CONTAINER_HEIGHT,
    CUBE_HALF,
    Bin,
    Button,
    Container,
    Cube,
    Marker,
    Placement,
    SceneLayout,
    Target,
)
from memrt.sim.render import SceneRenderer
from memrt.sim.scene import Scene


def scene_of(*objects) -> Scene:
    scene = Scene(SceneLayout(objects))
    mujoco.mj_forward(scene.model, scene.data)
    return scene


def settle(scene: Scene, steps: int = 500) -> None:
    for _ in range(steps):
        mujoco.mj_step(scene.model, scene.data)


def everything() -> tuple:
    return (
        Cube("red_cube", "red", Placement(0.45, -0.2)),
        Cube("red_cube_2", "red", Placement(0.45, 0.2)),
        Cube("blue_cube", "blue", Placement(0.60, 0.0), on_rails=True),
        Container("container_1", Placement(0.45, 0.0)),
        Target("left_target", Placement(0.55, 0.2)),
        Target("right_target", Placement(0.55, -0.2)),
        Marker("marker_1", Placement(0.45, -0.2)),
        Button("button", Placement(0.62, 0.15)),
        Button("second_button", Placement(0.62, -0.15)),
        Bin("bin", Placement(0.30, 0.12)),
    )


def test_objects_stand_where_the_layout_says_and_stay_there():
    scene = scene_of(*everything())
    settle(scene)
    for thing in scene.layout.objects:
        assert np.allclose(scene.position(thing.name), [thing.at.x, thing.at.y, thing.height], atol=1e-3), thing.name
    assert scene.position("button")[2] == BUTTON_TOP
    assert not scene.pressed("button")
    assert not scene.pressed("second_button")


def test_names_in_sentences():
    words = [thing.words for thing in everything()]
    assert words[:2] == ["red cube", "red cube"]
    assert words[4:6] == ["left-side target", "right-side target"]
    assert words[7:] == ["button", "second button", "bin"]


def test_a_container_hides_its_cube_from_the_front_camera():
    cube, cover = Cube("green_cube", "green", Placement(0.5, 0.0, 0.25)), Container("container_1", Placement(0.5, 0.1))
    scene = scene_of(cube, cover)

    def green() -> int:
        with SceneRenderer(scene) as renderer:
            image = renderer.render("front").astype(int)
        return int((image[..., 1] > image[..., [0, 2]].max(-1) + 40).sum())

    assert green() > 100
    scene.put("container_1", [0.5, 0.0, cover.height])
    assert green() == 0
    settle(scene)
    assert np.allclose(scene.position("green_cube"), [0.5, 0.0, CUBE_HALF], atol=1e-3)
    assert np.allclose(scene.position("container_1"), [0.5, 0.0, CONTAINER_HEIGHT / 2], atol=1e-3)


def test_what_falls_into_the_bin_lands_in_it():
    scene = scene_of(Bin("bin", Placement(0.5, 0.0)), Cube("red_cube", "red", Placement(0.5, 0.2)))
    scene.put("red_cube", [0.51, 0.01, 0.14])
    settle(scene)
    away = np.abs(scene.position("red_cube") - [0.5, 0.0, CUBE_HALF])
    assert away[:2].max() < BIN_HALF - CUBE_HALF
    assert scene.position("red_cube")[2] < BIN_HEIGHT / 2


def test_an_object_held_up_floats_until_it_is_let_go():
    scene = scene_of(Cube("red_cube", "red", Placement(0.5, 0.2)))
    scene.hold_up("red_cube")
    scene.put("red_cube", [0.5, 0.1, 0.3])
    settle(scene, 50)
    assert np.allclose(scene.position("red_cube"), [0.5, 0.1, 0.3], atol=1e-6)
    scene.hold_up("red_cube", False)
    settle(scene)
    assert scene.position("red_cube")[2] == pytest.approx(CUBE_HALF, abs=1e-3)


def test_a_cube_on_rails_goes_where_it_is_put_and_nowhere_else():
    scene = scene_of(Cube("red_cube", "red", Placement(0.5, 0.2), on_rails=True))
    scene.put("red_cube", [0.5, 0.1, CUBE_HALF])
    assert np.allclose(scene.position("red_cube"), [0.5, 0.1, CUBE_HALF])
    settle(scene, 100)
    assert np.allclose(scene.position("red_cube"), [0.5, 0.1, CUBE_HALF])


def test_a_marker_is_drawn_only_while_it_is_shown():
    scene = scene_of(Marker("marker_1", Placement(0.5, 0.0)))

    def seen() -> bytes:
        with SceneRenderer(scene) as renderer:
            return renderer.render("front").tobytes()

    before = seen()
    assert not scene.shown("marker_1")
    scene.show("marker_1")
    assert scene.shown("marker_1")
    assert seen() != before
    scene.show("marker_1", False)
    assert seen() == before
