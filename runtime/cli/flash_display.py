"""What people see of a flash, on stderr, and tables of what is installed on the robot's computer."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table

_COLUMNS = ("bundle", "version", "verdict", "", "installed", "signed by", "reason")


class FlashDisplay:
    """Watches a flash (`memrt.runtime.deploy.host.flash.Watcher`); a context manager."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._progress = Progress(
            TextColumn("  {task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
        )
        self._task = self._progress.add_task("sent", visible=False, total=None)

    def step(self, name: str) -> None:
        """A step begins."""
        self._progress.update(self._task, visible=False)
        self._console.print(f"[bold]•[/] {name}")

    def line(self, text: str) -> None:
        """The robot's computer says something."""
        self._console.print(f"  {text}", style="dim", markup=False)

    def sending(self, sent: int, total: int) -> None:
        """The bar."""
        self._progress.update(self._task, completed=sent, total=total, visible=True)

    def __enter__(self) -> FlashDisplay:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()


def show_health(health: dict[str, Any]) -> None:
    """The checks that a bundle has passed, one line each."""
    console = Console(highlight=False)
    for check in health.get("checks", ()):
        mark = {True: "[green]✓[/]", False: "[red]✗[/]", None: "[yellow]?[/]"}[check["met"]]
        console.print(f"  {mark} {check['what']}: ", end="")
        console.print(f"{check['found']} (asked: {check['asked']})", markup=False)


def show_bundles(report: dict[str, Any]) -> None:
    """`memrt flash HOST --list`."""
    table = Table(*_COLUMNS)
    for entry in report["bundles"]:
        place = entry["place"] if entry["files_here"] else "removed"
        table.add_row(
            entry["bundle"],
            str(entry["version"]),
            entry["verdict"],
            place,
            entry["installed"],
            entry["key"][:8] or "nobody",
            entry["reason"],
        )
    Console().print(table)


def show_status(report: dict[str, Any]) -> None:
    """`memrt flash HOST --status`."""
    console = Console(highlight=False)
    service = report["service"]
    lines = {
        "current": f"{report['current'] or 'no bundle'} ({report['verdict'] or 'never tried'})",
        "previous": report["previous"] or "none",
        "runtime": report["runtime"] or "installed by other means",
        "flash": report["flash"] or "none under way",
        "service": "not running" if service is None else f"{service['phase']} {service['reason']}".strip(),
    }
    for name, text in lines.items():
        console.print(f"{name:<9} {text}", markup=False)
    if service is not None and service["health"] is not None:
        show_health(service["health"])


def show_rollback(report: dict[str, Any]) -> None:
    """`memrt flash HOST --rollback`."""
    Console(highlight=False).print(f"{report['current']} runs: {report['found'] or 'healthy'}", markup=False)
    show_health(report.get("health") or {})
