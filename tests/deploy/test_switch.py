"""The switch on a disk that dies between any two system calls, and loses whatever POSIX lets it lose."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from losing_disk import DiedError, LosingDisk

from memrt.runtime.deploy.target.files import Disk
from memrt.runtime.deploy.target.layout import Layout
from memrt.runtime.deploy.target.ledger import Entry
from memrt.runtime.deploy.target.switch import Switch
from memrt.runtime.errors import MemrtError

LAYOUT = Layout(Path("/robot"), Path("/opt"), Path("/etc/memrt"))


def entry(version: int, name: str = "am", fill: str = "") -> Entry:
    digest = f"{fill or version:0>64}"[-64:]
    return Entry(name=name, version=version, digest=digest, installed=f"2026-01-{version:02}")


def begin(switch: Switch, bundle: Entry, runtime: str | None = None) -> None:
    switch.move(switch.announce(bundle, runtime))


def flash(switch: Switch, version: int, runtime: str | None = None) -> str:
    begin(switch, entry(version), runtime)
    switch.keep()
    return entry(version).id.folder


def state(switch: Switch) -> tuple[str | None, str | None]:
    return switch.current(), switch.runtime()


@pytest.fixture
def switch() -> Switch:
    switch = Switch(LAYOUT, LosingDisk())
    switch.files.link(LAYOUT.runtime, "1.0")
    return switch


def dies_after(disk: LosingDisk, calls: int, work: Callable[[], object]) -> bool:
    disk.calls_left = calls
    try:
        work()
    except DiedError:
        return True
    finally:
        disk.calls_left = None
    return False


@settings(max_examples=60)
@given(st.data())
def test_whenever_it_dies_the_old_or_the_new_bundle_is_current(data):
    disk = LosingDisk()
    switch = Switch(LAYOUT, disk)
    disk.link(LAYOUT.runtime, "1.0")
    disk.sync_folder(LAYOUT.runtimes)
    if data.draw(st.booleans(), "an older bundle"):
        flash(switch, 1)
    old = state(switch)
    new = (entry(2).id.folder, data.draw(st.sampled_from(["1.0", "2.0"]), "its runtime"))
    deciding = False

    def one_flash() -> None:
        nonlocal deciding
        begin(switch, entry(2), new[1])
        assert state(switch) == new
        if data.draw(st.booleans(), "healthy"):
            deciding = True
            switch.keep()
        else:
            switch.undo("unhealthy", bad=True)

    work = one_flash
    for _ in range(data.draw(st.integers(1, 4), "deaths")):  # the flash dies, then the recovery, several times
        dies_after(disk, data.draw(st.integers(0, 60), "calls before death"), work)
        if data.draw(st.booleans(), "power failure"):
            disk.power_failure(lambda last: data.draw(st.booleans()), lambda size: data.draw(st.integers(0, size)))
        for link, allowed in (
            (switch.current(), {old[0], new[0]}),
            (switch.runtime(), {old[1], new[1]}),
        ):
            assert link in allowed
        work = switch.recover
    switch.recover()
    good = new[0] in switch.ledger().history
    assert state(switch) == (new if good else old)
    assert deciding or not good
    assert switch.ledger().trial is None
    assert flash(switch, 3) == switch.current(), "and the next flash works"


def test_power_fails_in_the_recovery_from_a_killed_flash_or_recovery():
    """Every pair of moments, on the meanest disk: of what is not synced, only the last change of a folder is there."""

    def run(first: int, second: int) -> tuple[bool, bool]:
        disk = LosingDisk()
        switch = Switch(LAYOUT, disk)
        old = flash(switch, 1)
        killed = dies_after(disk, first, lambda: (begin(switch, entry(2)), switch.recover()))
        failed = dies_after(disk, second, switch.recover)
        disk.power_failure(lambda last: last, lambda size: 0)
        switch.recover()
        assert switch.current() == old
        assert switch.ledger().trial is None
        return killed, failed

    first, killed = 0, True
    while killed:
        second, failed = 0, True
        while failed:
            killed, failed = run(first, second)
            second += 1
        first += 1
    assert first > 25
    assert second > 3


@settings(max_examples=30)
@given(st.data())
def test_a_rollback_that_dies_leaves_either_good_bundle(data):
    disk = LosingDisk()
    switch = Switch(LAYOUT, disk)
    first, second = flash(switch, 1), flash(switch, 2)
    dies_after(disk, data.draw(st.integers(0, 40)), lambda: switch.roll_back("by hand"))
    if data.draw(st.booleans()):
        disk.power_failure(lambda last: data.draw(st.booleans()), lambda size: data.draw(st.integers(0, size)))
    switch.recover()
    assert switch.current() in {first, second}
    assert switch.ledger().trial is None


def test_the_same_on_a_real_disk(tmp_path):
    """Killed before each of its calls in turn: none of them leaves a state that recovery does not know."""
    layout = Layout(tmp_path / "root", tmp_path / "opt", tmp_path / "etc")
    layout.make()
    layout.runtimes.mkdir()

    class Killed(Disk):
        left = 1 << 30

    def counted(name: str):
        def call(self, *arguments):
            if Killed.left == 0:
                raise DiedError
            Killed.left -= 1
            return getattr(Disk, name)(self, *arguments)

        return call

    for name in ("read", "target", "write", "sync", "link", "rename", "remove", "sync_folder"):
        setattr(Killed, name, counted(name))
    switch = Switch(layout, Killed())
    old, outcomes = flash(switch, 1), set()
    for calls in range(100):
        Killed.left = calls
        try:
            new = flash(switch, 2 + calls, f"{calls}.0")
        except DiedError:
            new = entry(2 + calls).id.folder
        Killed.left = 1 << 30
        switch.recover()
        outcomes.add(switch.current() == new)
        assert switch.current() == (new if new in switch.ledger().history else old)
        assert layout.current.resolve().parent == layout.bundles
        if switch.current() == new:
            assert calls > 20
            break
    assert outcomes == {False, True}
    assert sorted(path.name for path in layout.root.iterdir() if path.name.startswith(".")) == []


def test_rollback_goes_to_the_last_other_good_bundle_and_not_back_again(switch):
    folders = [flash(switch, version) for version in (1, 2, 3)]
    assert switch.files.target(LAYOUT.previous) == f"bundles/{folders[1]}"
    assert switch.roll_back("shaky") == folders[1]
    assert switch.current() == folders[1]
    assert switch.ledger().entries[folders[2]].verdict == "withdrawn"
    assert switch.ledger().entries[folders[2]].reason == "shaky"
    assert switch.roll_back("hangs", bad=True) == folders[0]
    assert switch.ledger().entries[folders[1]].verdict == "bad"
    assert switch.files.target(LAYOUT.previous) is None
    with pytest.raises(MemrtError, match=r"found good.*found no other"):
        switch.roll_back("again")


def test_rollback_to_a_named_bundle_brings_its_runtime(switch, tmp_path):
    runtimes = Layout(LAYOUT.root, tmp_path, LAYOUT.settings)
    switch = Switch(runtimes, switch.files)
    for version in ("1.0", "2.0"):
        (tmp_path / version).mkdir()
    first = flash(switch, 1, "1.0")
    flash(switch, 2, "2.0")
    third = flash(switch, 3)
    assert state(switch) == (third, "2.0")
    assert switch.roll_back("compare", to=first) == first
    assert state(switch) == (first, "1.0")
    with pytest.raises(MemrtError, match=r"am-9.*choose one of am-2"):
        switch.roll_back("compare", to="am-9-000000000000")


def test_a_failed_trial_is_bad_and_a_cut_one_new(switch):
    flash(switch, 1)
    for bad, verdict in ((True, "bad"), (False, "new")):
        begin(switch, entry(2))
        switch.undo("no picture", bad=bad)
        assert switch.ledger().entries[entry(2).id.folder].verdict == verdict
    assert switch.undo("again", bad=True) is None


def test_a_good_bundle_stays_good_when_another_runtime_fails_it(switch):
    first = flash(switch, 1)
    begin(switch, entry(1), "2.0")
    assert state(switch) == (first, "2.0")
    switch.undo("does not start", bad=True)
    assert state(switch) == (first, "1.0")
    assert switch.ledger().entries[first].verdict == "good"


@pytest.mark.parametrize(
    ("bundle", "found"),
    [(entry(1), "a downgrade"), (entry(2, fill="f"), "another bundle of the same version")],
)
def test_downgrades_are_refused(switch, bundle, found):
    current = flash(switch, 2)
    with pytest.raises(MemrtError, match=f"a version above 2.*found {found}"):
        begin(switch, bundle)
    assert switch.current() == current
    begin(switch, entry(1, name="other"))  # another policy has versions of its own


def test_a_version_that_failed_may_be_replaced_by_its_repair(switch):
    flash(switch, 1)
    begin(switch, entry(2))
    switch.undo("no picture", bad=True)
    repaired = entry(2, fill="f")
    begin(switch, repaired)
    switch.keep()
    assert switch.current() == repaired.id.folder


def test_what_is_remembered_is_bounded(switch):
    for version in range(1, 90):
        flash(switch, version)
    ledger = switch.ledger()
    assert len(ledger.entries) == 64
    assert len(ledger.history) == 3
    assert set(ledger.history) <= ledger.entries.keys()


@pytest.mark.parametrize("content", [b"", b"[]", b'{"entries": 3}', b'{"schema_version": 2}'])
def test_a_damaged_ledger_is_refused_with_a_way_out(switch, content):
    flash(switch, 1)
    switch.files.write(LAYOUT.ledger, content)
    with pytest.raises(MemrtError, match=r"ledger\.json"):
        switch.recover()
