"""The health check: engines that are proven as they are opened, cameras, and the low level's p99."""

from dataclasses import replace

import pytest
from kinematic import DT_NS, HOME, KinematicRobot, SwingLowLevel

from memrt.runtime.bundle import load_bundle
from memrt.runtime.cli.default_bundle import reference_bundles
from memrt.runtime.clock import NS_PER_MS, NS_PER_S, VirtualClock
from memrt.runtime.device_engines import golden_of
from memrt.runtime.engine.golden import read_golden
from memrt.runtime.errors import MemrtError
from memrt.runtime.loop.settings import LoopSettings
from memrt.runtime.service import health
from memrt.runtime.service.health import Check, HealthReport, ProvenEngines, check_cameras, check_low_level

ENGINE = "ll/vision"


@pytest.fixture(scope="module")
def bundle():
    pytest.importorskip("onnxruntime")
    folder = reference_bundles() / "am_grounded-int8"
    if not folder.is_dir():
        pytest.skip("no reference bundle in this checkout")
    return load_bundle(folder, verify=False)


def test_an_engine_is_proven_as_it_is_opened(bundle):
    named = []
    engines = ProvenEngines.prepare(bundle, named.append)
    engine = engines.open(ENGINE)
    golden, _ = golden_of(bundle, ENGINE)
    feeds, outputs = read_golden(golden)
    assert engine.run(feeds[0]).keys() == outputs[0].keys()  # what was proven is what runs
    engine.close()
    assert named == [ENGINE]
    (check,) = engines.found
    assert (check.what, check.met) == (f"engine {ENGINE}", True)
    assert "cosine 0.99" in check.found


def test_an_engine_that_computes_something_else_is_refused(bundle, monkeypatch):
    def stricter(*arguments):
        golden, _ = golden_of(*arguments)
        return golden, {"cosine": 1.0, "relative_l2": 0.0}

    monkeypatch.setattr(health, "golden_of", stricter)
    engines = ProvenEngines.prepare(bundle, lambda name: None)
    with pytest.raises(MemrtError, match="does not reproduce its golden outputs"):
        engines.open(ENGINE)
    assert engines.found == []


def settings(**changes) -> LoopSettings:
    values = {"dt_ns": DT_NS, "horizon": 16, "execute": 8, "every_steps": 16, "cameras": ("front",)}
    return LoopSettings(**(values | changes))


def test_cameras_are_fresh_when_new_pictures_keep_coming():
    clock = VirtualClock(NS_PER_S)
    check = check_cameras(KinematicRobot(clock).observe, settings(), clock)
    assert (check.met, check.found) == (True, "front")


def test_a_camera_that_stands_still_or_is_missing_is_named_with_its_age():
    clock = VirtualClock(NS_PER_S)
    robot = KinematicRobot(clock)
    robot.camera_works = False
    check = check_cameras(robot.observe, settings(cameras=("front", "wrist")), clock)
    assert check.met is False
    assert check.found == "front: the newest is 5.00 s old, wrist: no picture"
    assert "memrt cameras check" in check.fix


def test_pictures_that_are_old_when_they_come_are_not_fresh():
    clock = VirtualClock(NS_PER_S)
    robot = KinematicRobot(clock)

    def late():
        seen = robot.observe()
        frame = seen.frames["front"]
        return replace(seen, frames={"front": replace(frame, t_ns=frame.t_ns - 150 * NS_PER_MS)})

    assert check_cameras(late, settings(), clock).met is False


@pytest.mark.parametrize(("delay_ms", "met"), [(100, True), (390, True), (401, False)])
def test_the_low_level_is_held_to_what_the_policys_rates_allow(delay_ms, met):
    """8 of 16 actions of 50 ms: a chunk may take 400 ms, less 10 for sending only where that is another step."""
    clock = VirtualClock(NS_PER_S)
    low_level = SwingLowLevel(clock=clock, delay_ns=delay_ms * NS_PER_MS)
    robot = KinematicRobot(clock)
    check = check_low_level(low_level, robot.observe, "swing", settings(), clock, 5)
    assert check.met is met
    assert f"p99 {delay_ms} ms" in check.found
    assert robot.sent == []
    assert (robot.observe().proprioception[:7] == HOME).all()
    assert bool(check.fix) is not met


def test_a_slow_policy_is_not_timed_for_ever():
    clock = VirtualClock(NS_PER_S)
    low_level = SwingLowLevel(clock=clock, delay_ns=3 * NS_PER_S)
    check = check_low_level(low_level, KinematicRobot(clock).observe, "swing", settings(), clock, 100)
    assert check.found.endswith(f"of {health.LEAST_CALLS} calls")


def test_nobody_is_healthy_with_a_question_open():
    yes = Check(what="a", asked="x", found="x", met=True)
    about = {"bundle": "0", "policy": "p", "device": "d"}
    assert HealthReport(checks=(yes,), **about).healthy
    for other in (None, False):
        report = HealthReport(checks=(yes, Check(what="b", asked="x", found="y", met=other, fix="mend it")), **about)
        assert not report.healthy
        assert report.to_dict()["healthy"] is False
    assert report.complaint == "b: expected x, found y. Fix: mend it"
    assert not HealthReport(checks=(), **about).healthy
