"""`memrt sim`: look at the memory tasks, measure the scripted expert, record its episodes."""

from __future__ import annotations

import json
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from memrt.runtime.cli.extras import needs_extra
from memrt.runtime.cli.progress import tell
from memrt.runtime.errors import MemrtError

if TYPE_CHECKING:
    from memrt.sim.expert_episodes import ExpertEpisode
    from memrt.sim.tasks.base import Difficulty

TaskName = Annotated[str, typer.Argument(help="The memory task, e.g. BinFill.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")]
Workers = Annotated[int, typer.Option(min=1, help="Processes; the outcome does not depend on it.")]
FAILED = 1  # exit status of an episode that the expert did not solve
TRAINING_SEEDS_START = 10_000


class DifficultyName(str, Enum):
    """The benchmark's difficulties."""

    EASY = "easy"
    MEDIUM = "medium"
    HARD = "hard"


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    sim = typer.Typer(help="Look at the simulator's memory tasks and its scripted expert.", no_args_is_help=True)
    sim.command("show")(show)
    sim.command("sheet")(sheet)
    sim.command("expert")(expert)
    sim.command("record")(record)
    app.add_typer(sim, name="sim")


def show(
    task: TaskName,
    *,
    seed: Annotated[int, typer.Option(min=0, help="Of the scene.")] = 0,
    difficulty: Annotated[
        DifficultyName | None, typer.Option(help="How hard.", show_default="drawn from the seed")
    ] = None,
    video: Annotated[Path | None, typer.Option(help="Write an MP4 of the front camera, subgoals below it.")] = None,
    as_json: AsJson = False,
) -> None:
    """Let the scripted expert solve one episode, and tell its subgoals.

    Example:

        memrt sim show StopCube --seed 3 --difficulty hard --video stop_cube.mp4
    """
    with needs_extra("sim"):
        from memrt.sim.expert_episodes import show_episode

    report = show_episode(task, seed, difficulty.value if difficulty else None, video)
    if as_json:
        typer.echo(json.dumps(report))
    else:
        typer.echo(f"{task}, seed {seed}, {report['difficulty']}: {report['goal']}")
        for number, subgoal in enumerate(report["subgoals"], start=1):
            typer.echo(f"  {number}. {subgoal}")
        typer.echo(f"{'success' if report['success'] else 'failure'} in {report['steps']} steps: {report['reason']}")
    if not report["success"]:
        raise typer.Exit(FAILED)


def sheet(
    out: Annotated[Path, typer.Argument(help="The PNG to write.")],
    *,
    task: Annotated[list[str] | None, typer.Option(help="May be given more than once.", show_default="all")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the scenes.")] = 1,
    difficulty: Annotated[DifficultyName, typer.Option(help="How hard.")] = DifficultyName.MEDIUM,
) -> None:
    """Draw the contact sheet of the tasks: moments of an episode each, with their subgoals.

    Example:

        memrt sim sheet tasks.png
    """
    if out.suffix != ".png" or not out.absolute().parent.is_dir():
        raise MemrtError(
            f"contact sheet {out}",
            expected="a file name ending in .png, in a folder that exists",
            found=f"`{out.name}` in {out.absolute().parent}",
            fix="correct the name, or create the folder",
        )
    with needs_extra("sim"):
        from memrt.sim.contact_sheet import contact_sheet
        from memrt.sim.tasks import TASKS

    contact_sheet(task or list(TASKS), seed, difficulty.value).save(out, optimize=True)
    typer.echo(f"{out}: {out.stat().st_size / 1000:.0f} kB")


def expert(
    task: TaskName,
    *,
    episodes: Annotated[int, typer.Option(min=1, help="Seeds per difficulty.")] = 100,
    seed_start: Annotated[int, typer.Option(min=0, help="First seed.")] = 0,
    difficulty: Annotated[
        list[DifficultyName] | None, typer.Option(help="May be given more than once.", show_default="all")
    ] = None,
    workers: Workers = 1,
    as_json: AsJson = False,
) -> None:
    """Measure how often the scripted expert succeeds, undisturbed.

    Example:

        memrt sim expert BinFill --episodes 100 --workers 2
    """
    with needs_extra("sim"):
        from memrt.sim.expert_episodes import expert_rates

    wanted: list[Difficulty] = [each.value for each in difficulty or DifficultyName]
    seeds = range(seed_start, seed_start + episodes)
    report = expert_rates(task, seeds, wanted, workers=workers, on_episode=_tell_episode)
    if as_json:
        typer.echo(json.dumps(report))
        return
    table = Table("difficulty", "succeeded", "95 % interval", "median steps", "most", title=f"expert on {task}")
    for name, rate in {**report["by_difficulty"], "all": report}.items():
        low, high = rate["wilson95"]
        succeeded = f"{round(rate['success_rate'] * rate['episodes'])} of {rate['episodes']}"
        table.add_row(name, succeeded, f"{low:.3f}-{high:.3f}", f"{rate['median_steps']:.0f}", str(rate["most_steps"]))
    Console().print(table)


def record(
    task: Annotated[str, typer.Argument(help="The memory task, or `all`: one episode of each in turn.")],
    root: Annotated[Path, typer.Argument(help="Folder of the dataset; what it holds already is kept.")],
    *,
    episodes: Annotated[int, typer.Option(min=1, help="Number of episodes, one seed each.")] = 100,
    seed_start: Annotated[int, typer.Option(min=0, help="First seed.")] = TRAINING_SEEDS_START,
    image_size: Annotated[int, typer.Option(min=16, max=256, help="Side of the low level's pictures.")] = 224,
    workers: Workers = 1,
    bundle: Annotated[
        Path | None, typer.Option(help="Let this bundle's low level move the arm in place of the expert.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Record only the first control steps of each episode, so many.")
    ] = None,
) -> None:
    """Record disturbed episodes of the expert as training data: pictures, action chunks, subgoals in both styles.

    Both levels can be trained on while it grows. Failed episodes are kept apart. With --bundle the low level that was
    trained follows the right subgoals, and the expert only says what it would have done: a second round of training
    then shows both levels the states that they meet themselves. With --steps only the beginnings are recorded: what
    has to be remembered is often seen there, and a policy that has seen few tables reads its first one wrongly.

    Examples:

        memrt sim record all runs/data --episodes 700 --image-size 96 --workers 2

        memrt sim record all runs/second_round --episodes 700 --image-size 96 --bundle my_bundle

        memrt sim record ButtonUnmask runs/beginnings --episodes 400 --image-size 96 --steps 80
    """
    with needs_extra("sim"):
        from memrt.sim.dataset import record_dataset
        from memrt.sim.tasks import TASKS, make_task

    seeds = range(seed_start, seed_start + episodes)
    tasks = list(TASKS) if task == "all" else [task]
    make_task(tasks[0], seed_start)  # refuses an unknown task before anything is written
    usable = 0
    for episode in record_dataset(root, tasks, seeds, image_size, workers, bundle, steps):
        usable += episode.usable
        ended = "success" if episode.success else episode.reason
        tell(f"{episode.task} seed {episode.seed}: {ended}")
    typer.echo(f"{root}: {episodes} episodes, {usable} of them usable")


def _tell_episode(episode: ExpertEpisode) -> None:
    if not episode.success:
        tell(f"{episode.difficulty} seed {episode.seed}: {episode.reason}")
