"""`memrt flash` against a real sshd on loopback: whatever goes wrong, the bundle that ran before runs."""

import random
import shutil
import threading
import time
from pathlib import Path

import pytest
from robot_computer import PAYLOAD, SSHD, RobotComputer, Silent, Sshd

from memrt.runtime.deploy.frames import PIECE_BYTES
from memrt.runtime.deploy.host.flash import flash
from memrt.runtime.deploy.host.ssh import Robot
from memrt.runtime.deploy.host.verbs import ask
from memrt.runtime.errors import MemrtError
from memrt.runtime.manifest import manifest_content, parse_manifest
from memrt.runtime.signing import generate_key, verify_bundle

pytestmark = [
    pytest.mark.skipif(not Path(SSHD).is_file(), reason="no sshd: apt-get install openssh-server"),
    pytest.mark.skipif(shutil.which("ssh") is None, reason="no ssh: apt-get install openssh-client"),
]


@pytest.fixture(scope="module")
def sshd(tmp_path_factory):
    server = Sshd(tmp_path_factory.mktemp("sshd"))
    yield server
    server.close()


@pytest.fixture(scope="module")
def key(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "lab"
    generate_key(path)
    return path


@pytest.fixture
def computer(sshd, key, tmp_path):
    """Nothing is installed on it."""
    computer = RobotComputer(sshd, tmp_path, key)
    yield computer
    computer.close()


@pytest.fixture(scope="module")
def in_use(sshd, key, tmp_path_factory):
    """Version 5 runs on it, whatever the tests do."""
    computer = RobotComputer(sshd, tmp_path_factory.mktemp("robot"), key)
    folder = computer.flash(computer.make(5, payload=1000)).folder
    yield computer, folder
    computer.close()


def refused(in_use, bundle: Path, match: str, watcher: Silent | None = None, **options) -> None:
    computer, folder = in_use
    with pytest.raises(MemrtError, match=match):
        computer.flash(bundle, watcher, **options)
    computer.unchanged(folder)


def at(step: str, damage) -> Silent:
    return Silent(on_step=lambda name: damage() if name.startswith(step) else None)


def staged(computer: RobotComputer) -> Path:
    """The transfer's folder, once all that was sent has arrived."""
    (folder,) = computer.layout.staging.iterdir()
    sizes = {name: record.size for name, record in parse_manifest(manifest_content(folder), folder).files.items()}
    deadline_s = time.monotonic() + 60
    while time.monotonic() < deadline_s:
        if all((folder / name).is_file() and (folder / name).stat().st_size == size for name, size in sizes.items()):
            return folder
        time.sleep(0.05)
    raise AssertionError(f"not everything arrived in {folder}")


def test_bundles_are_flashed_started_and_kept(computer):
    watcher = Silent()
    first = computer.flash(computer.make(1), watcher)
    assert (first.sent, first.previous, first.kept) == (PAYLOAD + len("release 1"), None, True)
    assert first.signer.startswith("signed by `lab`")
    assert first.health["healthy"] is True
    assert first.facts["current"] is None
    assert [step.split()[0] for step in watcher.steps] == [
        "preflight",
        "sending",
        "verifying",
        "building",
        "switching,",
    ]
    second = computer.flash(computer.make(2, payload=1000))
    assert second.previous == first.folder
    assert second.facts["current"] == first.folder
    computer.unchanged(second.folder)
    assert computer.layout.previous.resolve() == computer.layout.bundle(first.folder).resolve()
    again = computer.flash(computer.folder / "bundle-2")
    assert (again.kept, again.sent, again.folder) == (False, 0, second.folder)
    assert list(computer.layout.staging.iterdir()) == []


def test_a_changed_byte_is_refused_here(in_use):
    bundle = in_use[0].make(6, payload=1000)
    (bundle / "readme.txt").write_text("release 7")
    refused(in_use, bundle, "corrupt file `readme.txt`")


def test_a_changed_byte_is_refused_there(in_use):
    def damage() -> None:
        with (staged(in_use[0]) / "ll" / "weights.bin").open("r+b") as file:
            file.seek(500)
            byte = file.read(1)[0]
            file.seek(500)
            file.write(bytes([byte ^ 1]))

    refused(in_use, in_use[0].make(6, payload=1000), r"corrupt file `ll/weights\.bin`", at("verifying", damage))
    assert list(in_use[0].layout.staging.iterdir()) == [], "the next flash begins anew"


def test_an_extra_file_is_refused(in_use):
    bundle = in_use[0].make(6, payload=1000)
    refused(in_use, bundle, r"found `\.bashrc`", at("verifying", lambda: (staged(in_use[0]) / ".bashrc").touch()))  # noqa: PLW0108
    (bundle / "extra").touch()
    refused(in_use, bundle, "found `extra`")


def test_a_missing_file_is_refused(in_use):
    bundle = in_use[0].make(6, payload=1000)
    damage = at("verifying", lambda: (staged(in_use[0]) / "readme.txt").unlink())  # noqa: PLW0108
    refused(in_use, bundle, r"no `readme\.txt`", damage)
    (bundle / "readme.txt").unlink()
    refused(in_use, bundle, r"no `readme\.txt`")


@pytest.mark.parametrize("signed", [True, False])
def test_a_wrong_key_is_refused_before_anything_is_sent(in_use, tmp_path, signed):
    computer, _ = in_use
    generate_key(tmp_path / "stranger")
    bundle = computer.make(6, payload=1000, key=tmp_path / "stranger", signed=signed)
    watcher = Silent()
    refused(in_use, bundle, "not trusted here" if signed else "it is unsigned", watcher)
    assert watcher.steps == ["preflight"]
    assert list(computer.layout.staging.iterdir()) == []


def test_a_changed_manifest_is_refused_even_where_unsigned_ones_are_allowed(in_use):
    bundle = in_use[0].make(6, payload=1000)
    manifest = bundle / "manifest.json"
    manifest.write_bytes(manifest.read_bytes().replace(b'"version": 6', b'"version": 7'))
    refused(in_use, bundle, "the manifest was changed after it was signed", allow_unsigned=True)


def test_an_unsigned_bundle_may_be_allowed(computer):
    outcome = computer.flash(computer.make(1, payload=1000, signed=False), allow_unsigned=True)
    assert outcome.signer == "unsigned"
    assert computer.switch.current() == outcome.folder


@pytest.mark.parametrize(("version", "found"), [(4, "a downgrade"), (5, "another bundle of the same version")])
def test_a_downgrade_is_refused(in_use, version, found):
    refused(in_use, in_use[0].make(version, payload=2000), f"version above 5.*found {found}")


def test_a_connection_cut_at_random_points_goes_on_where_it_was(in_use):
    computer, folder = in_use
    payload, points = 10 * (PIECE_BYTES + PIECE_BYTES), random.Random(7)
    bundle = computer.make(6, payload)
    for number in range(10):  # farther every time: what was sent last may be lost on its way

        def cut(sent: int, cut_at: int = int((number + points.random()) * 1.5 * PIECE_BYTES)) -> None:
            if sent >= cut_at:
                computer.cut()

        with pytest.raises(MemrtError, match="the old bundle runs there; flash again"):
            computer.flash(bundle, Silent(on_sent=cut))
        computer.unchanged(folder)
        (transfer,) = computer.layout.staging.iterdir()
        arrived = (transfer / "ll" / "weights.bin").stat().st_size
    assert 0 < arrived < payload
    for step in ("verifying", "building"):
        with pytest.raises(MemrtError, match="the connection to 127"):
            computer.flash(bundle, at(step, computer.cut))
        computer.unchanged(folder)


def test_a_cut_while_the_new_bundle_is_examined_brings_the_old_one_back(in_use):
    computer, folder = in_use
    computer.service.phase = "loading"

    def cut() -> None:
        while computer.service.bundle.name == folder:
            time.sleep(0.02)
        computer.cut()

    cutter = threading.Thread(target=cut)
    cutter.start()
    try:
        refused(in_use, computer.make(6, payload=1000), "the connection to 127")
    finally:
        computer.service.phase = "disarmed"
        cutter.join()
    entries = computer.switch.ledger().entries.values()
    assert {entry.verdict for entry in entries if entry.version == 6} == {"new"}


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_process_killed_in_the_switch_leaves_the_old_bundle(in_use, moment):
    bundle = in_use[0].make(6, payload=1000)
    refused(in_use, bundle, "the connection to 127", MEMRT_DIE=moment)


def test_an_unhealthy_bundle_is_taken_back_and_noted_as_bad(in_use):
    computer, _ = in_use
    bundle = computer.make(6, payload=1000)
    computer.service.phase, computer.service.reason = "unhealthy", "cameras: wrist gives no picture"
    try:
        refused(in_use, bundle, r"the health check: .*wrist gives no picture")
    finally:
        computer.service.phase = "disarmed"
    entries = computer.switch.ledger().entries
    (bad,) = [entry for entry in entries.values() if entry.verdict == "bad"]
    assert "wrist gives no picture" in bad.reason


def test_a_robot_that_runs_is_left_alone(in_use):
    computer, _ = in_use
    computer.service.phase = "running"
    try:
        refused(in_use, computer.make(6, payload=1000), "at rest and disarmed, found the service is running")
    finally:
        computer.service.phase = "disarmed"


def test_a_full_disk_is_refused_and_nothing_stays(in_use):
    computer, _ = in_use
    refused(in_use, computer.make(6), "it is full", MEMRT_SMALL_DISK="1000000")
    assert list(computer.layout.staging.iterdir()) == []


def test_of_two_flashes_at_once_one_is_refused(computer):
    first, second = computer.make(1), computer.make(2, payload=1000)
    refusals = []

    def meanwhile(sent: int) -> None:
        if not refusals:
            with pytest.raises(MemrtError, match=r"no other on this computer.*found a flash from") as refusal:
                computer.flash(second)
            refusals.append(refusal)

    assert computer.flash(first, Silent(on_sent=meanwhile)).kept
    computer.unchanged(computer.switch.current())
    assert len(refusals) == 1


def test_a_rollback_brings_the_bundle_before_and_starts_it(computer):
    first = computer.flash(computer.make(1, payload=1000)).folder
    second = computer.flash(computer.make(2, payload=1000)).folder
    listed = ask(computer.robot(), computer.memrt, "list")
    assert [(entry["bundle"], entry["place"]) for entry in listed["bundles"]] == [
        (second, "current"),
        (first, "previous"),
    ]
    report = ask(computer.robot(), computer.memrt, "rollback")
    assert (report["current"], report["healthy"]) == (first, True)
    computer.unchanged(first)
    status = ask(computer.robot(), computer.memrt, "status")
    assert (status["current"], status["verdict"], status["previous"], status["flash"]) == (first, "good", None, None)
    with pytest.raises(MemrtError, match="found good on this computer before"):
        ask(computer.robot(), computer.memrt, "rollback")
    refused((computer, first), computer.make(1, payload=2000), "a downgrade")


def test_a_host_that_cannot_be_reached_and_one_without_memrt(computer):
    nobody = Robot("127.0.0.1", computer.sshd.client().replace(f"Port={computer.sshd.port}", "Port=1"))
    with pytest.raises(MemrtError, match=r"the connection to 127.*refused"):
        ask(nobody, computer.memrt, "status")
    bundle = verify_bundle(computer.make(1, payload=1000), (), allow_unsigned=True).bundle
    with pytest.raises(MemrtError, match=r"an installed runtime.*--runtime"):
        flash(computer.robot(), [f"{computer.folder}/nothing/memrt"], bundle, Silent())
