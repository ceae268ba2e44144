"""`memrt profile`: where the milliseconds of a policy go on this computer, and whether its own rates can be kept."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from memrt.runtime.cli.eval_command import EVALUATION_SEEDS_START, Precision
from memrt.runtime.cli.trust_options import AllowUnsigned, TrustedKeys


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("profile")(profile_policy)


def profile_policy(
    *,
    robot: Annotated[
        str, typer.Option(help="A packaged robot, a robot YAML, or `none`: synthetic pictures, no control part.")
    ] = "sim",
    host: Annotated[str | None, typer.Option(help="The robot's own address.", show_default="the YAML's")] = None,
    task: Annotated[str, typer.Option(help="The simulator's task.")] = "PickXtimes",
    policy: Annotated[
        str | None, typer.Option(help="A packaged policy, or a policy YAML.", show_default="am_grounded")
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
    goal: Annotated[str | None, typer.Option(help="What to do.", show_default="the task's own goal")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the first episode of every window.")] = EVALUATION_SEEDS_START,
    seconds: Annotated[float, typer.Option(min=0.5, help="Measured in each of the four windows.")] = 60.0,
    speed: Annotated[
        float, typer.Option(help="Slow the robot down: 0.3 moves at 30 %, and gives every call longer.")
    ] = 1.0,
    threads: Annotated[
        str | None,
        typer.Option(
            help="Computing threads of the low level and of the high level, e.g. 2,1.",
            show_default="all cores and half of them",
        ),
    ] = None,
    arm: Annotated[
        bool, typer.Option("--arm", help="The robot is no simulation and may move: somebody holds the emergency stop.")
    ] = False,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Folder for profile.json, profile.html and trace.json.")
    ] = Path("memrt-profile"),
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")] = False,
) -> None:
    """Measure every stage of both policies while they drive a robot, and compare with what the policy asks for.

    Four windows are measured, in the order high level on, off, on, off: what differs between the two of a kind is
    noise. "Off" is the low level alone with a fixed subgoal. Warm-up calls and the first two seconds of each window
    do not count. If a task ends early, the next seed's begins.

    Exit status: 0 when all four were measured, whatever the verdict; 2 when something was refused or kept ending.

    Examples:

        memrt profile --robot sim

        memrt profile --bundle my_bundle --seconds 300 -o my_profile

        memrt profile --robot none --seconds 10 --json > profile.json
    """
    from memrt.runtime.cli.profile_session import ProfileOptions, profile
    from memrt.runtime.cli.run_policies import chosen_threads

    profile(
        ProfileOptions(
            robot=robot,
            host=host,
            task=task,
            policy=policy,
            bundle=bundle,
            cache=cache,
            keys=keys,
            allow_unsigned=allow_unsigned,
            precision=precision.value,
            goal=goal,
            seed=seed,
            seconds=seconds,
            speed=speed,
            threads=chosen_threads(threads),
            arm=arm,
            output=output,
            as_json=as_json,
        )
    )
