"""`memrt replay`: compute a recorded run's decisions again, or say what a recording holds."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from memrt.runtime.errors import MemrtError
from memrt.runtime.thread_budget import ThreadBudget

if TYPE_CHECKING:
    from memrt.runtime.bundle import Bundle
    from memrt.runtime.recording.reader import Recording
    from memrt.runtime.recording.replay import Verdict

EQUAL, DIFFERENT = 0, 1  # exit statuses; a refusal is 2, see the CLI's main


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("replay")(replay_recording)


def replay_recording(
    recording: Annotated[Path, typer.Argument(help="What `memrt run --record` wrote.")],
    *,
    bundle: Annotated[
        Path | None, typer.Option(help="Replay through this bundle.", show_default="the recorded one")
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Folder for engines and proofs.", show_default="BUNDLE.engines, beside it")
    ] = None,
    until: Annotated[int | None, typer.Option(min=1, help="Only this many decisions, from the first on.")] = None,
    info: Annotated[bool, typer.Option("--info", help="Say what the recording holds; load no bundle.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")] = False,
) -> None:
    """Compute every decision of a recorded run again, and report the first that differs.

    What a VLM that is served elsewhere answered is taken from the recording; nobody is asked again.

    Exit status: 0 when every decision that was computed again is equal, bit for bit; 1 when one differs; 2 when the
    recording or the bundle was refused.

    Examples:

        memrt run --robot sim --record run.mcap && memrt replay run.mcap

        memrt replay run.mcap --info

        memrt replay run.mcap --bundle other_bundle --json
    """
    from memrt.runtime.cli.replay_report import report_info, report_verdict
    from memrt.runtime.recording.reader import Recording

    opened = Recording(recording)
    if info:
        report_info(opened.summary(), recording, as_json)
        return
    held, verdict = _replay(opened, bundle, cache, until)
    report_verdict(opened, held, verdict, as_json)
    if not verdict.equal:
        raise typer.Exit(DIFFERENT)


def _replay(recording: Recording, folder: Path | None, cache: Path | None, until: int | None) -> tuple[Bundle, Verdict]:
    from memrt.runtime.bundle import load_bundle, require_halves
    from memrt.runtime.cli.run_policies import open_policies, open_recorded
    from memrt.runtime.recording.replay import replay

    run = recording.run
    bundle = load_bundle(folder or Path(run["bundle"]))
    require_halves(bundle)
    if folder is None and (found := bundle.sha256) != run["bundle_sha256"]:
        raise MemrtError(
            f"bundle {bundle.path}",
            expected=f"the one that was recorded (manifest SHA-256 {run['bundle_sha256']})",
            found=f"another one ({found})",
            fix="name the recorded bundle, or another on purpose, with --bundle",
        )
    with ExitStack() as stack:
        threads = ThreadBudget.parse(str(run["threads"]))
        if "remote" in run:
            high_level, low_level, served = open_recorded(bundle, threads, stack, cache=cache)
        else:
            (high_level, low_level), served = open_policies(bundle, threads, stack, cache=cache), None
        verdict = replay(recording, high_level, low_level, served=served, until=until)
    if not verdict.decisions:
        raise MemrtError(
            f"recording {recording.path}",
            expected="decisions of a policy",
            found="none: it ended before the first",
            fix="record a longer run",
        )
    return bundle, verdict
