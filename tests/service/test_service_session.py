"""How `memrt service run` ends when something is refused: by its status the units know whose fault it is."""

import signal

import pytest

from memrt.runtime.cli import service_session
from memrt.runtime.cli.default_bundle import reference_bundles
from memrt.runtime.errors import MemrtError

pytest.importorskip("mujoco")


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch):
    monkeypatch.setattr(service_session.faulthandler, "enable", lambda: None)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def status_of(folder, settings: str) -> int:
    path = folder / "service.yaml"
    path.write_text(settings)
    return service_session.serve(path, folder / "control", None)


@pytest.mark.parametrize("settings", ["robot: nobody", "robot: sim\ngaol: swing", "robot: sim\nspeed: 3"])
def test_settings_that_are_refused_are_nobodys_bundles_fault(tmp_path, capsys, settings):
    assert status_of(tmp_path, settings) == 78
    assert "Fix:" in capsys.readouterr().err
    assert not (tmp_path / "control").exists()


def test_a_bundle_that_is_refused_is_the_bundles_fault(tmp_path, capsys):
    (tmp_path / "bundle").mkdir()
    assert status_of(tmp_path, f"robot: sim\nbundle: {tmp_path / 'bundle'}") == 2
    assert "manifest" in capsys.readouterr().err


def test_a_computer_that_is_not_ready_is_no_bundles_fault(tmp_path, monkeypatch, capsys):
    bundle = reference_bundles() / "am_grounded-int8"
    if not bundle.is_dir():
        pytest.skip("no reference bundle in this checkout")

    def refuse(*_, **__):
        raise MemrtError("cannot run this bundle's engines", expected="a GPU", found="no driver", fix="install it")

    monkeypatch.setattr(service_session, "check_proof", refuse)
    assert status_of(tmp_path, f"robot: sim\nbundle: {bundle}") == 75
    assert "found no driver" in capsys.readouterr().err
