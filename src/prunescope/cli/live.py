"""Progress bars for a run, and its closing words."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from prunescope.study.execute import Event, Outcome
from prunescope.study.plan import Plan

Drawn = TypeVar("Drawn", bound="_Drawing")


def say(console: Console, text: str, style: str = "") -> None:
    """One line as it is: not wrapped, and brackets in names are no markup."""
    console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


class _Drawing:
    """Bars that are there inside a `with`."""

    _progress: Progress

    def __enter__(self: Drawn) -> Drawn:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()


class Live(_Drawing):
    """Draws the events of `execute`: a bar for the study and one per cell at work; plain lines when not a terminal."""

    def __init__(self, console: Console, plan: Plan, *, quiet: bool = False) -> None:
        self._console = console
        self._progress = _bars(console, quiet)
        self._lines = not quiet and not console.is_terminal
        self._labels: dict[str, str] = {}
        self._bars: dict[str, TaskID] = {}
        self._done = 0
        self._total = len(plan.cells)
        self._all = self._progress.add_task("[bold]study", total=self._total, unit="cells")

    def on_event(self, event: Event) -> None:
        """Draw one event."""
        draw = {
            "found": self._found, "started": self._started, "progress": self._advance, "done": self._finish,
            "failed": self._fail, "skipped": self._end, "warning": self._warn,
        }  # fmt: skip
        draw[event.what](event)

    def _found(self, event: Event) -> None:
        self._done = round(event.at)
        self._progress.update(self._all, completed=self._done)

    def _started(self, event: Event) -> None:
        self._labels[event.folder] = event.label
        self._bars[event.folder] = self._progress.add_task(f"  {event.label}", total=None, unit="")

    def _advance(self, event: Event) -> None:
        if event.folder in self._bars:
            self._progress.update(
                self._bars[event.folder], completed=round(event.at), total=round(event.total), unit=event.unit
            )

    def _finish(self, event: Event) -> None:
        self._end(event)
        if self._lines and event.folder in self._labels:
            say(self._console, f"[{self._done}/{self._total}] {self._labels[event.folder]}")

    def _fail(self, event: Event) -> None:
        self._end(event)
        say(self._console, f"failed: {event.label}: {event.message}", "red")

    def _warn(self, event: Event) -> None:
        say(self._console, f"warning: {event.message}", "yellow")

    def _end(self, event: Event) -> None:
        self._done += 1
        if event.folder in self._bars:
            self._progress.remove_task(self._bars.pop(event.folder))
        self._progress.update(self._all, completed=self._done)


class Rounds(_Drawing):
    """Draws the progress of pruning one network: a bar for its rounds and one for the epochs of the present one."""

    def __init__(self, console: Console, *, quiet: bool = False) -> None:
        self._console, self._lines = console, not quiet and not console.is_terminal
        self._progress = _bars(console, quiet)
        self._rounds = self._progress.add_task("prune", total=None, unit="rounds")
        self._epochs = self._progress.add_task("  train", total=None, unit="epochs")

    def draw(self, done: int, rounds: int, epoch: float, epochs: float) -> None:
        """Counts as `ticket.run.Progress` gives them."""
        self._progress.update(self._rounds, completed=done, total=rounds)
        self._progress.update(self._epochs, completed=round(epoch), total=round(epochs) or None)
        if self._lines and done and not epoch:
            say(self._console, f"[{done}/{rounds}] rounds")


class Worlds(_Drawing):
    """Draws how many predictions without a unit are made, or how much else of one kind."""

    def __init__(self, console: Console, what: str = "units x images", *, quiet: bool = False) -> None:
        self._progress = _bars(console, quiet)
        self._bar = self._progress.add_task(what, total=None, unit="")

    def draw(self, done: int, of: int) -> None:
        """So many of how many."""
        self._progress.update(self._bar, completed=done, total=of)


def _bars(console: Console, quiet: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[unit]}"),
        TimeElapsedColumn(), console=console, transient=True, disable=quiet or not console.is_terminal,
    )  # fmt: skip


def summary(console: Console, outcome: Outcome, page: Path) -> None:
    """What was computed, what failed, where the report is."""
    parts = [f"{len(outcome.computed)} cells computed", f"{len(outcome.cached)} found done"]
    if outcome.failed:
        parts.append(f"[red]{len(outcome.failed)} failed, {len(outcome.skipped)} skipped because of them[/red]")
    console.print(", ".join(parts))
    say(console, f"report: {page}", "bold")
