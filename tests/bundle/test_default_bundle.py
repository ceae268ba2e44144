"""Which bundle runs for a policy's name: its own or none."""

from pathlib import Path

import pytest

from memrt.runtime.bundle import write_bundle
from memrt.runtime.cli import default_bundle
from memrt.runtime.cli.default_bundle import find_bundle
from memrt.runtime.config import load_policy
from memrt.runtime.errors import MemrtError


@pytest.fixture
def reference(monkeypatch, tmp_path) -> Path:
    """A reference folder with the base's weights and those of one adapter; no bundle yet."""
    for name in ("high_level_base", "low_level", "am_simple"):
        (tmp_path / "weights" / name).mkdir(parents=True)
    monkeypatch.setattr(default_bundle, "reference_bundles", lambda: tmp_path / "bundles")
    return tmp_path


def bundle(reference: Path, policy: str, folder: str) -> Path:
    (reference / "staging").mkdir()
    target = reference / "bundles" / folder
    return write_bundle(reference / "staging", target, policy=load_policy(policy), precision="int8", engines={}).path


def test_a_policy_runs_from_its_own_bundle(reference):
    made = bundle(reference, "am_simple", "am_simple-int8")
    assert find_bundle(None, "am_simple", "int8") == made
    assert find_bundle(made, "am_simple", "int8") == made


def test_an_untrained_policy_is_refused_and_says_what_is_missing(reference):
    bundle(reference, "am_simple", "am_simple-int8")
    with pytest.raises(MemrtError, match=r"`memer` has not been trained yet.*`memer` in .*weights.*train it"):
        find_bundle(None, "memer", "int8")


@pytest.mark.parametrize("policy", ["am_simple", "flat", "oracle_grounded"])
def test_a_trained_policy_without_a_bundle_is_to_be_exported(reference, policy):
    with pytest.raises(MemrtError, match=f"no int8 bundle for policy `{policy}`.*memrt export {policy}"):
        find_bundle(None, policy, "int8")


def test_a_wheel_says_that_it_holds_one_bundle_and_no_weights(reference):
    (reference / "weights").rename(reference / "elsewhere")
    with pytest.raises(
        MemrtError, match=r"no int8 bundle for policy `memoryless`.*from a wheel.*copy of the repository"
    ):
        find_bundle(None, "memoryless", "int8")


def test_another_policys_bundle_is_never_taken(reference):
    bundle(reference, "am_simple", "am_grounded-int8")
    with pytest.raises(MemrtError, match=r"expected policy `am_grounded`.*found policy `am_simple`"):
        find_bundle(None, "am_grounded", "int8")
    with pytest.raises(MemrtError, match=r"expected policy `memer`.*leave out --policy"):
        find_bundle(reference / "bundles" / "am_grounded-int8", "memer", "int8")
