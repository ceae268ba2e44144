"""`memrt train`: make policies from nothing but the simulator, or from episodes that were recorded elsewhere."""

from __future__ import annotations

import json
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from memrt.runtime.cli.default_bundle import DEFAULT_POLICY
from memrt.runtime.cli.extras import needs_extra
from memrt.runtime.cli.progress import tell
from memrt.runtime.cli.train_labels_command import labels, sft
from memrt.runtime.errors import MemrtError


class Gripper(str, Enum):
    """What a dataset's last state and action is: 1 for an open hand, or 1 for a closed one."""

    OPENING = "opening"
    CLOSING = "closing"


def register(app: typer.Typer) -> None:
    """Add the command group to `app`."""
    group = typer.Typer(no_args_is_help=True, help="Train policies, and bring in episodes recorded elsewhere.")
    group.command("reference")(reference)
    group.command("low-level")(low_level)
    group.command("high-level")(high_level)
    group.command("import")(import_episodes)
    group.command("labels")(labels)
    group.command("sft")(sft)
    app.add_typer(group, name="train")


def reference(
    *,
    root: Annotated[Path, typer.Option(help="Folder for data, checkpoints and logs.")] = Path("runs/reference"),
    stage: Annotated[
        list[str] | None, typer.Option(help="Run this stage only; may be given more than once.", show_default="all")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from each stage's newest checkpoint.")] = False,
) -> None:
    """Reproduce the reference policies: record the scripted expert, then train all their parts.

    The weights and the log of the run are written below the root. Takes hours on a few CPU cores; a GPU is used when
    there is one.

    Examples:

        memrt train reference

        memrt train reference --resume

        memrt train reference --root runs/mine --stage low_level
    """
    with needs_extra("train", "sim"):
        from memrt.train.reproduce import train_reference

    train_reference(root=root, stages=stage or None, resume=resume)


def high_level(
    *,
    data: Annotated[
        list[Path] | None,
        typer.Option(
            help="Recorded data with `episodes`, the first with `grounding`; may be given again.",
            show_default="runs/reference/data",
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for checkpoints, logs and metrics.")] = Path(
        "runs/reference/high_level"
    ),
    start: Annotated[Path | None, typer.Option(help="Base model to start from.", show_default="nothing")] = None,
    policy: Annotated[
        list[str] | None, typer.Option(help="Train this policy's adapter; may be given again.", show_default="all")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads; a GPU is used when there is one.")] = 1,
) -> None:
    """Train the reference high level: one base for all tasks and policies, then an adapter for every policy.

    Started again, it goes on where it was: finished parts are kept, an interrupted one resumes from its last checkpoint
    (every two minutes), and episodes recorded since then are learned from, too.

    Examples:

        memrt train high-level

        memrt train high-level --start train/reference/weights/high_level_base --policy am_grounded --policy memoryless

        memrt train high-level --data runs/reference/data --data runs/second_round
    """
    with needs_extra("train", "sim"):
        from memrt.train.high_level_recipe import train_high_level
        from memrt.train.high_level_train import POLICIES

    train_high_level(
        data or [Path("runs/reference/data")], out, start=start, policies=tuple(policy or POLICIES), threads=threads
    )


def low_level(
    data: Annotated[list[Path], typer.Argument(help="`low_level` folders of recorded datasets; they may still grow.")],
    *,
    out: Annotated[Path, typer.Option(help="Folder of the checkpoint, the run's state and its log.")],
    start_from: Annotated[
        Path | None, typer.Option(help="Checkpoint folder of the same sizes whose weights are taken over.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's newest checkpoint, if any.")] = False,
    minutes: Annotated[float, typer.Option(min=0, help="Of training in all; the learning rate falls to their end.")] = (
        120.0
    ),
    learning_rate: Annotated[float, typer.Option(min=0, help="The highest; 7e-4 for weights that know a task.")] = 1e-3,
    threads: Annotated[int, typer.Option(min=1, help="Of the CPU.")] = 1,
    policy: Annotated[str, typer.Option(help="Whose `low_level` settings it is trained for.")] = DEFAULT_POLICY,
) -> None:
    """Train a low level of the reference size: one for all tasks, for subgoals with and without pixels and for goals.

    Examples:

        memrt train low-level runs/data/low_level --out runs/low_level

        memrt train low-level runs/data/low_level --out runs/low_level --resume --minutes 240
    """
    with needs_extra("train", "sim"):
        from memrt.train.low_level_settings import TrainingSettings
        from memrt.train.low_level_train import train_low_level

    from memrt.runtime.config import load_policy

    train_low_level(
        data,
        out,
        policy=load_policy(policy).low_level,
        settings=TrainingSettings(minutes=minutes, learning_rate=learning_rate, threads=threads),
        resume=resume,
        start_from=start_from,
        progress=tell,
    )


def import_episodes(
    sources: Annotated[
        list[Path],
        typer.Argument(
            help="Recordings of `memrt run --record`, folders of them, LeRobot datasets (v2.0, v2.1, v3.0)."
        ),
    ],
    *,
    root: Annotated[Path, typer.Option(help="Folder of the dataset; what it holds already is kept.")],
    policy: Annotated[
        str, typer.Option(help="Whose low level is trained: rate, horizon, image size.")
    ] = DEFAULT_POLICY,
    task: Annotated[
        str | None,
        typer.Option(help="What the episodes are filed under.", show_default="the run's, or the folder's name"),
    ] = None,
    camera: Annotated[
        list[str] | None,
        typer.Option(
            help="LeRobot: NAME=COLUMN for front and wrist.", show_default="front=observation.images.front, wrist=..."
        ),
    ] = None,
    state: Annotated[str, typer.Option(help="LeRobot: the column of joints [rad] and gripper.")] = "observation.state",
    action: Annotated[str, typer.Option(help="LeRobot: the column of their targets.")] = "action",
    gripper: Annotated[Gripper, typer.Option(help="LeRobot: what 1 means in both.")] = Gripper.OPENING,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")] = False,
) -> None:
    """Add episodes that were recorded elsewhere to a training dataset, as samples like the simulator's.

    Failed runs are left out, and what was added before. Subgoals come from the run, or from a dataset's subtasks.

    Examples:

        memrt train import runs/good/*.mcap --root runs/mine

        memrt train import my_lerobot_dataset --root runs/mine --camera front=observation.images.top
    """
    with needs_extra("sim", "lerobot"):
        from memrt.train.episodes.add import add_episodes, join
        from memrt.train.episodes.lerobot import Columns

    from memrt.runtime.config import load_policy

    columns = Columns(state, action, {**Columns().cameras, **_cameras(camera or [])}, gripper.value)
    settings, found = load_policy(policy).low_level, []
    for source in sources:
        for added in add_episodes(root, source, settings, columns, task):
            found.append(added)
            samples = f"{added.low_level} samples of the low level, {added.high_level} of the high level"
            tell(f"{added.source}: {added.skipped or samples}")
    total = join(root)
    if as_json:
        typer.echo(json.dumps({"root": str(root), "episodes": total, "sources": [asdict(added) for added in found]}))
        return
    kept = sum(not added.skipped for added in found)
    typer.echo(f"{root}: {kept} episodes added, {len(found) - kept} left out, {total} in all")


def _cameras(named: list[str]) -> dict[str, str]:
    pairs = dict(entry.partition("=")[::2] for entry in named)
    if not all(pairs.values()) or not pairs.keys() <= {"front", "wrist"}:
        raise MemrtError(
            "--camera", expected="front=COLUMN or wrist=COLUMN", found=", ".join(named), fix="correct the option"
        )
    return pairs
