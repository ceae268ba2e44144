"""A report for people: by domain, what was found, what it costs, what mends it."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape

from memrt.runtime.doctor.examine import Report, count, shown
from memrt.runtime.doctor.finding import Finding
from memrt.runtime.doctor.snapshot import Snapshot
from memrt.runtime.doctor.system import describe, in_container

MARKS = {"error": "[bold red]✗[/]", "warning": "[yellow]![/]", "unknown": "[dim]?[/]", "fine": "[green]✓[/]"}


def print_report(snapshot: Snapshot, report: Report, console: Console, *, everything: bool) -> None:
    """The computer, the findings, and one line that counts them. Commands are not wrapped: they are to be copied."""
    console.print(f"[dim]{escape(describe(snapshot))}[/]\n", soft_wrap=True, highlight=False)
    for domain, findings in shown(report, everything=everything).items():
        console.print(f"[bold]{domain}[/]")
        before: tuple[str, ...] = ()
        for finding in findings:
            _print(finding, console, before)
            before = finding.mend
        console.print()
    if in_container(snapshot):
        console.print(
            "This is a container: what concerns kernel, processor and clock is mended on its host.\n", soft_wrap=True
        )
    console.print(summary(report))


def summary(report: Report) -> str:
    """One line."""
    errors, warnings = count(report, "error"), count(report, "warning")
    counted = [_number(errors, "error"), _number(warnings, "warning")] if errors or warnings else ["nothing found"]
    quiet = f"{count(report, 'fine')} fine, {count(report, 'unknown')} not to be seen here"
    return f"{', '.join(part for part in counted if part)}; {quiet}"


def _print(finding: Finding, console: Console, before: tuple[str, ...]) -> None:
    line = f"  {MARKS[finding.status]} {escape(finding.about)}: {escape(finding.found)}"
    console.print(line, soft_wrap=True, highlight=False)
    if finding.cost:
        console.print(f"      costs  {escape(finding.cost)}", soft_wrap=True, highlight=False)
    for place, command in enumerate(("# as above",) if finding.mend and finding.mend == before else finding.mend):
        style = "dim" if command.startswith("#") else "cyan"
        label = "mend " if place == 0 else "     "
        console.print(f"      {label}  [{style}]{escape(command)}[/]", soft_wrap=True, highlight=False)


def _number(count_: int, what: str) -> str:
    return f"{count_} {what}{'s' if count_ > 1 else ''}" if count_ else ""
