"""`memrt train labels` and `memrt train sft`: what a policy should remember at recorded calls, and data to learn it."""

from __future__ import annotations

import json
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from memrt.runtime.cli.default_bundle import DEFAULT_POLICY
from memrt.runtime.cli.extras import needs_extra
from memrt.runtime.cli.progress import tell
from memrt.runtime.errors import MemrtError

if TYPE_CHECKING:
    from memrt.train.labels.chains import Turn

TELL_EVERY = 20  # episodes


class Generator(str, Enum):
    """Who words the memories."""

    RULES = "rules"
    ENDPOINT = "endpoint"


Data = Annotated[Path, typer.Argument(help="Folder that `memrt sim record` or `memrt train import` wrote.")]
Policy = Annotated[str, typer.Option(help="Name or YAML of the policy that is to learn.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")]


def labels(
    data: Data,
    *,
    policy: Policy = DEFAULT_POLICY,
    task: Annotated[str | None, typer.Option(help="Of this task.", show_default="the first recorded")] = None,
    episode: Annotated[int | None, typer.Option(help="This seed.", show_default="the first recorded")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what a policy should answer at every call of one recorded episode, as written by rule.

    Example:

        memrt train labels runs/data --policy am_sm_grounded --task ButtonUnmaskSwap
    """
    with needs_extra("sim"):
        from memrt.train.labels.chains import turns
        from memrt.train.labels.sft import Recording

    from memrt.runtime.config import load_policy

    memory = load_policy(policy).memory
    wanted = {"task": task, "episode": episode}
    for samples in Recording(data).episodes():
        if all(value in (None, samples[0].get(name)) for name, value in wanted.items()):
            break
    else:
        raise MemrtError(
            "--task, --episode", expected="a recorded episode", found=wanted, fix=f"choose one that {data} holds"
        )
    calls = [_call(turn, int(samples[turn.sample]["step"])) for turn in turns(memory, samples)]
    goal = str(samples[0]["goal"])
    if as_json:
        about = {"policy": policy, "task": samples[0].get("task"), "episode": samples[0]["episode"], "goal": goal}
        typer.echo(json.dumps({**about, "calls": calls}))
        return
    typer.echo(f"goal: {goal}")
    last = ""
    for call in calls:
        if call["reply"] != last:
            last = call["reply"]
            typer.echo(f"\nstep {call['step']}\n{last}")


def sft(
    data: Data,
    out: Annotated[Path, typer.Argument(help="Folder for train.jsonl, validation.jsonl and images/.")],
    *,
    policy: Policy = DEFAULT_POLICY,
    phase: Annotated[
        list[int] | None,
        typer.Option(help="Control steps, 0 to 15, at which a run begins; more give more calls.", show_default="0"),
    ] = None,
    generator: Annotated[Generator, typer.Option(help="Who words the memories.")] = Generator.RULES,
    endpoint: Annotated[str, typer.Option(help="endpoint: its address, http(s)://host[:port]/v1.")] = "",
    model: Annotated[str, typer.Option(help="endpoint: the model to ask.")] = "",
    key_env: Annotated[str, typer.Option(help="endpoint: environment variable that holds its key.")] = "",
    body: Annotated[
        str, typer.Option(help="endpoint: JSON that every request carries besides; null takes a key away.")
    ] = "{}",
    jobs: Annotated[int, typer.Option(min=1, help="endpoint: episodes that are labelled at a time.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Write recorded episodes as fine-tuning data in ms-swift's JSONL, in the words with which the runtime asks.

    With an endpoint, its answers are kept in OUT/answers.jsonl: run again after an interruption, it goes on.

    Examples:

        memrt train sft runs/data runs/sft --policy am_sm_grounded

        memrt train sft runs/data runs/sft --generator endpoint --endpoint https://api.openai.com/v1 \\
            --model gpt-5.4-mini --key-env OPENAI_API_KEY --jobs 8
    """
    with needs_extra("sim"):
        from memrt.train.labels.chains import CALL_EVERY, MemoryLabels, RuleLabels
        from memrt.train.labels.endpoint import EndpointLabels, EndpointSettings
        from memrt.train.labels.sft import Recording, write_sft

    from memrt.runtime.config import load_policy

    phases = phase or [0]
    if not all(0 <= each < CALL_EVERY for each in phases):
        raise MemrtError("--phase", expected=f"0 to {CALL_EVERY - 1}", found=phases, fix="correct the option")
    recording = Recording(data)
    worded_by: MemoryLabels = RuleLabels()
    if generator is Generator.ENDPOINT:
        if not (endpoint and model):
            raise MemrtError(
                "--generator endpoint", expected="--endpoint and --model", found="not both", fix="add the options"
            )
        settings = EndpointSettings(endpoint, model, key_env, _object(body))
        worded_by = EndpointLabels(settings, out / "answers.jsonl", recording.front)
    settled = load_policy(policy)
    written = write_sft(recording, settled, out, worded_by, phases, jobs, _tell_progress)
    if as_json:
        typer.echo(json.dumps({"folder": str(out), "policy": settled.name, "phases": phases, **asdict(written)}))
        return
    typer.echo(
        f"{out}: {written.training} calls to train on, {written.validation} to validate with, "
        f"from {written.episodes} episodes; {written.images} images"
    )


def _call(turn: Turn, step: int) -> dict[str, Any]:
    shown = {"keyframes": turn.request.keyframes, "recent": turn.request.recent} if turn.request.recent else {}
    return {"step": step, **shown, "reply": turn.reply}


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise MemrtError("--body", expected="a JSON object", found=error, fix="correct the option") from error
    if not isinstance(value, dict):
        raise MemrtError("--body", expected="a JSON object", found=text, fix="correct the option")
    return value


def _tell_progress(episodes: int) -> None:
    if episodes % TELL_EVERY == 0:
        tell(f"{episodes} episodes")
