"""A memory of one's own, as the README shows it: found by its entry point, named by a YAML, asked like any other."""

import subprocess
import sys
from pathlib import Path

import pytest

from memrt.runtime.config import load_policy, policy_from_dict, policy_to_dict
from memrt.runtime.errors import MemrtError
from memrt.runtime.memory import build_memory

EXAMPLE = Path(__file__).parents[2] / "examples" / "my_memory"
README = Path(__file__).parents[2] / "runtime" / "memory" / "README.md"


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """What pip makes of the example, without the network."""
    site, source = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "my_memory.py"):  # setuptools would leave a build folder beside them
        (source / name).write_bytes((EXAMPLE / name).read_bytes())
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--target", str(site)]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(source)], check=True)
    return site


def test_the_example_counts(site, monkeypatch):
    monkeypatch.syspath_prepend(site)
    policy = load_policy(EXAMPLE / "tally.yaml")
    assert policy_from_dict(policy_to_dict(policy)) == policy
    memory = build_memory(policy.memory)
    state = memory.initial()
    assert "Done so far: nothing yet\n" in memory.request(state, "goal").user
    for reply in ("pick up the cube <1, 2>", "", "pick up the cube <1, 2>", "put it down", "pick up the cube <5, 6>"):
        state = memory.update(state, reply, "goal").state
    assert "Done so far: pick up the cube: 1; put it down: 1\n" in memory.request(state, "goal").user
    assert memory.update(memory.initial(), "", "goal").subgoal == "goal"


def test_without_its_package_a_kind_is_unknown():
    with pytest.raises(MemrtError, match=r"memory\.kind.*memoryless, history.*found `tally`.*install the package"):
        load_policy(EXAMPLE / "tally.yaml")


def test_a_package_that_does_not_load_is_named(tmp_path, monkeypatch):
    info = tmp_path / "tally-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tally\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[memrt.memories]\ntally = no_such_module:Tally\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MemrtError, match=r"no_such_module.*again"):
        build_memory(load_policy(EXAMPLE / "tally.yaml").memory)


def test_ours_take_no_settings():
    values = policy_to_dict(load_policy("am_simple"))
    values["memory"]["settings"] = {"nothing": "x"}
    with pytest.raises(MemrtError, match=r"memory\.settings.*none with `kind: language`"):
        policy_from_dict(values)


def test_the_readme_shows_the_example_as_it_is():
    shown = README.read_text(encoding="utf-8")
    code = (EXAMPLE / "my_memory.py").read_text(encoding="utf-8")
    assert code[code.index("@dataclass") :].rstrip() in shown
    assert 'tally = "my_memory:TallyMemory"' in shown
