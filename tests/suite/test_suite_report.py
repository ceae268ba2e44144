"""The suite's figures: rates, intervals, paired differences, the table in Markdown and the picture."""

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from suite_pieces import BY, make_episode

from memrt.sim.suite.cells import SUITE_POLICIES, SUITE_TASKS, Cell, Settings
from memrt.sim.suite.markdown import markdown
from memrt.sim.suite.plot import suite_svg
from memrt.sim.suite.published import PUBLISHED
from memrt.sim.suite.report import suite_report
from memrt.sim.suite.sweep import CellPlan

GOLDEN = Path(__file__).parent / "golden" / "memory_suite.md"


def make_plan(policy: str, task: str, successes: str, precision: str = "int8", mode: str = "lockstep") -> CellPlan:
    """`successes` has a 1 for every seed that succeeds, from seed 1000000 on; empty for a cell that nothing plays."""
    cell = Cell(task, policy, precision, mode)
    seeds = range(1_000_000, 1_000_000 + max(len(successes), 10))
    if not successes:
        return CellPlan(cell, f"no bundle: {policy}-{precision} is not there", seeds)
    bundle = f"{policy}-{precision}"
    settings = Settings(
        **{name: getattr(cell, name) for name in cell.__struct_fields__},
        bundle=bundle,
        bundle_sha256=f"{bundle}:".ljust(64, "0"),
        borrowed={"prompt": "{goal}"} if policy == "oracle_grounded" else None,
        cap_steps=1300,
    )
    episodes = {seed: make_episode(seed, flag == "1") for seed, flag in zip(seeds, successes, strict=False)}
    return CellPlan(cell, "stored", seeds, settings, episodes, [BY])


@pytest.fixture(scope="module")
def report():
    plans = [
        make_plan("memoryless", "PickXtimes", "0010000000"),
        make_plan("memoryless", "StopCube", "0000000000"),
        make_plan("am_simple", "PickXtimes", "1110111100"),
        make_plan("am_simple", "StopCube", ""),
        make_plan("am_grounded", "PickXtimes", "1111111100"),
        make_plan("am_grounded", "StopCube", "00001"),
        make_plan("memer", "PickXtimes", "1111111111"),
        make_plan("memer", "StopCube", "0101010101"),
        make_plan("oracle_grounded", "PickXtimes", "1111111111"),
        make_plan("oracle_grounded", "StopCube", "1111100000"),
        make_plan("am_grounded", "PickXtimes", "1111111110", precision="fp32"),
        make_plan("am_grounded", "PickXtimes", "1110111000", mode="realtime"),
    ]
    return json.loads(json.dumps(suite_report(plans), allow_nan=False))


def of(report, policy, task, precision="int8", mode="lockstep"):
    which = {"policy": policy, "task": task, "precision": precision, "mode": mode}
    [cell] = [cell for cell in report["cells"] if which.items() <= cell.items()]
    return cell


def test_a_cell_says_how_often_it_succeeded(report):
    cell = of(report, "am_grounded", "PickXtimes")
    assert (cell["success_rate"], cell["episodes"], cell["missing"]) == (0.8, 10, 0)
    assert cell["wilson95"] == pytest.approx([0.4902, 0.9433], abs=1e-4)  # 8 of 10
    assert cell["failures"] == {"pressed too early": 2}
    assert cell["seeds"] == [[1_000_000, 1_000_009]]
    assert cell["mean_progress"] == 0.9
    assert sum(part["episodes"] for part in cell["by_difficulty"].values()) == 10
    assert cell["bundle"] == "am_grounded-int8"


def test_a_cell_without_episodes_says_why(report):
    cell = of(report, "am_simple", "StopCube")
    assert (cell["success_rate"], cell["wilson95"], cell["episodes"]) == (None, None, 0)
    assert "no bundle" in cell["why"]
    assert of(report, "am_grounded", "StopCube")["missing"] == 0  # only stored cells are reported here


def test_differences_are_paired_over_shared_seeds(report):
    rows = {(r["of"], r["policy"], r["minus"], r["task"]): r for r in report["differences"]}
    precision = rows["precision", "am_grounded", "fp32", "PickXtimes"]
    assert (precision["only_first"], precision["only_second"], precision["n"]) == (0, 1, 10)
    assert precision["difference"] == pytest.approx(-0.1)
    assert rows["mode", "am_grounded", "lockstep", "PickXtimes"]["difference"] == pytest.approx(-0.2)
    assert rows["policy", "am_grounded", "memoryless", "StopCube"]["n"] == 5
    assert (
        rows["policy", "memer", "am_simple", "PickXtimes"]["low"]
        < 0.3
        < rows["policy", "memer", "am_simple", "PickXtimes"]["high"]
    )
    assert not any(row["policy"] == row["minus"] for row in report["differences"])


def test_a_paired_interval_against_a_published_value():
    """Bentur 2009 as analysed by Fagerland, Lydersen and Laake (2014): 1 against 7 disagreements of 21."""
    first, second = "1" + "0" * 7 + "1" * 13, "0" + "1" * 7 + "1" * 13
    plans = [make_plan("am_grounded", "PickXtimes", first), make_plan("memoryless", "PickXtimes", second)]
    [row] = suite_report(plans)["differences"]
    assert (row["difference"], row["low"], row["high"]) == pytest.approx((-0.286, -0.517, -0.026), abs=5e-4)


def test_several_computers_are_all_named():
    plans = [make_plan("flat", task, "11") for task in ("PickXtimes", "StopCube")]
    plans[1].by.append(BY | {"processor": "another"})
    report = suite_report(plans)
    assert report["hardware"]["processor"] == ["a processor", "another"]
    assert report["versions"] == {"memrt": "0.1.0", "mujoco": "3.2.0"}


def test_the_table_in_markdown(report):
    """Write the file anew with the text in the assertion's left side, after looking at it."""
    assert markdown(report) == GOLDEN.read_text(encoding="utf-8")


def test_the_picture_has_a_panel_per_task_and_a_bar_per_rate(report):
    picture = suite_svg(report)
    root = ET.fromstring(picture)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert "http" not in picture.replace("http://www.w3.org/2000/svg", "")  # nothing is fetched
    titles = [element.text for element in root.iter("{http://www.w3.org/2000/svg}title")]
    assert "am_grounded: 80 % of 10, 95 %: 49–94 %" in titles
    assert sum("%" in text and "of 10" in text for text in titles) == 8
    assert "published: 42.9 %" not in titles  # of flat, which is not shown
    assert "published: 79.3 %" in titles


def test_a_picture_of_nothing_played():
    ET.fromstring(suite_svg(suite_report([make_plan("flat", "PickXtimes", "")])))


def test_published_rates_have_the_published_means():
    """The sources print the mean over the seven tasks beside them (π0.5, MemER, oracle: SPECS 1.3)."""
    means = (22.2, 32.06, 39.05, 41.67, 40.00, 37.86, 46.73, 51.3, 84.9)
    for row, mean in zip(PUBLISHED, means, strict=True):
        assert 100 * sum(row.rates.values()) / len(row.rates) == pytest.approx(mean, abs=0.06), row.name
        assert tuple(row.rates) == SUITE_TASKS
        assert row.policy is None or row.policy in SUITE_POLICIES
