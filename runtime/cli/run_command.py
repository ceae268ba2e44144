"""`memrt run`: a policy drives a robot, in real time or in lock-step."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from memrt.runtime.cli.eval_command import EVALUATION_SEEDS_START, Precision
from memrt.runtime.cli.trust_options import AllowUnsigned, TrustedKeys


class RecordedFrames(str, Enum):
    """Which frames a recording holds. `used` is enough to replay the decisions."""

    ALL = "all"
    USED = "used"


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("run")(run_policy)


def run_policy(
    *,
    robot: Annotated[str, typer.Option(help="A packaged robot, or a robot YAML.")] = "sim",
    host: Annotated[str | None, typer.Option(help="The robot's own address.", show_default="the YAML's")] = None,
    task: Annotated[str, typer.Option(help="The simulator's task.")] = "PickXtimes",
    policy: Annotated[
        str | None,
        typer.Option(
            help="A packaged policy, or a policy YAML; `expert` and `wander` are scripted and need no bundle.",
            show_default="am_grounded",
        ),
    ] = None,
    bundle: Annotated[
        Path | None, typer.Option(help="Bundle folder.", show_default="the policy's reference bundle")
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Folder for engines and proofs.", show_default="BUNDLE.engines, beside it")
    ] = None,
    keys: TrustedKeys = None,
    allow_unsigned: AllowUnsigned = False,
    precision: Annotated[Precision, typer.Option(help="Which reference bundle, when --bundle is not given.")] = (
        Precision.INT8
    ),
    remote: Annotated[
        str | None,
        typer.Option(
            help="Ask the policy's VLM at this OpenAI-compatible endpoint, e.g. http://box:8000/v1; the bundle's own "
            "answers when it is late."
        ),
    ] = None,
    goal: Annotated[str | None, typer.Option(help="What to do.", show_default="the task's own goal")] = None,
    seed: Annotated[
        int, typer.Option(min=0, help="Of the scene and of the policy's noise; the default was never trained on.")
    ] = EVALUATION_SEEDS_START,
    lockstep: Annotated[
        bool, typer.Option("--lockstep", help="Simulated time waits for the policy: the same seed, the same actions.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Load, connect, warm up, check, print the plan; nothing moves.")
    ] = False,
    speed: Annotated[float, typer.Option(help="Slow the robot down: 0.3 moves at 30 %.")] = 1.0,
    duration: Annotated[float | None, typer.Option(min=0.1, help="End after this many seconds.")] = None,
    video: Annotated[Path | None, typer.Option(help="Write an MP4 of the front camera.")] = None,
    trace: Annotated[Path | None, typer.Option(help="Write a trace for ui.perfetto.dev.")] = None,
    record: Annotated[
        Path | None, typer.Option(help="Record everything to this new MCAP file, for `memrt replay` and Foxglove.")
    ] = None,
    record_frames: Annotated[
        RecordedFrames, typer.Option(help="Record every frame, or only those that a policy used.")
    ] = RecordedFrames.ALL,
    threads: Annotated[
        str | None,
        typer.Option(
            help="Computing threads of the low level and of the high level, e.g. 2,1.",
            show_default="in real time all cores and half of them, in lock-step 1,1",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")] = False,
) -> None:
    """Let a policy drive a robot until the task is decided.

    Keys: space stops the arm, r resumes, h goes home, q quits; g stops it too and takes a new goal; y and n end the
    run as a success or a failure, since a robot in a laboratory cannot tell. Without a terminal the run ends at its
    first hold.

    Exit status: 0 when the run came to its end, whatever the outcome; 1 when a fault or a hold ended it; 2 when
    something was refused before it began.

    Examples:

        memrt run --robot sim

        memrt run --robot sim --seed 7 --video run.mp4 --trace run.json

        memrt run --robot sim --record run.mcap && memrt replay run.mcap

        memrt run --robot sim --policy am_grounded --remote http://bigger-machine:8000/v1

        memrt run --robot sim --lockstep --json > run.json

        memrt run --robot sim --dry-run --bundle my_bundle
    """
    from memrt.runtime.cli.run_policies import chosen_threads
    from memrt.runtime.cli.run_session import RunOptions, run

    options = RunOptions(
        robot=robot,
        host=host,
        task=task,
        policy=policy,
        bundle=bundle,
        cache=cache,
        keys=keys,
        allow_unsigned=allow_unsigned,
        precision=precision.value,
        remote=remote,
        goal=goal,
        seed=seed,
        lockstep=lockstep,
        dry_run=dry_run,
        speed=speed,
        duration=duration,
        video=video,
        trace=trace,
        record=record,
        record_frames=record_frames.value,
        threads=chosen_threads(threads, lockstep=lockstep),
        as_json=as_json,
    )
    status = run(options)
    if status:
        raise typer.Exit(status)
