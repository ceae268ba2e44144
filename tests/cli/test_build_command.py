"""`memrt build`, as it is typed: the reference bundle is proven here, and a refusal is one line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("onnxruntime")

from memrt.runtime.bundle import load_bundle
from memrt.runtime.cli.default_bundle import reference_bundles
from memrt.runtime.device_engines import proven

BUNDLE = reference_bundles() / "am_grounded-int8"


def memrt_build(*arguments: object) -> subprocess.CompletedProcess[str]:
    program = "import sys; from memrt.runtime.cli import main; sys.argv[0] = 'memrt'; main()"
    command = [sys.executable, "-c", program, "build", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.skipif(not BUNDLE.is_dir(), reason="the reference bundle is not here")
def test_the_reference_bundle_is_proven_on_this_computer(tmp_path: Path) -> None:
    result = memrt_build(BUNDLE, "--cache", tmp_path / "cache", "--json")
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    bundle = load_bundle(BUNDLE)
    assert report["proven"] is True
    assert report["built"] == {}
    assert set(report["gate"]) == set(bundle.manifest.engines)
    assert report["device"]["backend"] == "onnxruntime"
    proof = proven(bundle, cache=tmp_path / "cache")
    assert proof is not None
    assert proof.engines == report["engines"]
    assert "hl/decoder: cosine" in result.stderr


def test_no_bundle_is_one_line_and_status_2(tmp_path: Path) -> None:
    result = memrt_build(tmp_path / "nothing", "--json")
    assert (result.returncode, result.stdout) == (2, "")
    assert len(result.stderr.splitlines()) == 1
    assert "expected a bundle folder" in result.stderr
