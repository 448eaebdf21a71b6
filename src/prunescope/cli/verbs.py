"""The verbs of the command line."""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Optional

import typer
import yaml
from rich.console import Console

from prunescope import __version__
from prunescope.cli import tickets, units

app = typer.Typer(
    name="prunescope",
    help="When a vision network is pruned, does it still decide for the same reasons?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
console = Console(stderr=True)

Out = Annotated[Optional[Path], typer.Option("--out", "-o", help="Study folder (default: runs/NAME).")]  # noqa: UP045
Workers = Annotated[
    int, typer.Option("--workers", "-w", min=0, help="Worker processes; 0: as many as cores / threads per cell.")
]
Sets = Annotated[
    Optional[list[str]],  # noqa: UP045 (typer reads the annotation at run time, also on Python 3.10)
    typer.Option("--set", "-s", metavar="KEY=VALUE", help="Override a key: data.root=PATH or training.lr=0.05."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the cells and what is cached; compute nothing.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars.")]


def _version(wanted: bool) -> None:
    if wanted:
        print(f"prunescope {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    del version


@app.command()
def run(
    study: Annotated[Path, typer.Argument(help="A study.yaml.", show_default=False)],
    out: Out = None,
    sets: Sets = None,
    workers: Workers = 0,
    dry_run: DryRun = False,
    quiet: Quiet = False,
) -> None:
    """Run a study: train, prune, explain, compare, report. Stopped or killed, run it again: it goes on."""
    _run(study, out, sets or [], workers, dry_run=dry_run, quiet=quiet)


@app.command()
def demo(out: Out = None, sets: Sets = None, workers: Workers = 0, quiet: Quiet = False) -> None:
    """A complete small study on built-in data, with most probes, in about four minutes on two cores."""
    config = yaml.safe_load((files("prunescope.study") / "demo.yaml").read_text())
    _run(config, out, sets or [], workers, dry_run=False, quiet=quiet)


def _run(
    source: Path | dict[str, object], out: Path | None, sets: list[str], workers: int, *, dry_run: bool, quiet: bool
) -> None:
    from prunescope.cli.live import Live, say, summary
    from prunescope.report.build import build_report
    from prunescope.study.config import read_study
    from prunescope.study.execute import execute
    from prunescope.study.folder import open_folder
    from prunescope.study.plan import make_plan
    from prunescope.study.store import Store

    study = read_study(source, sets)
    root = out or Path("runs") / study.name
    plan = make_plan(study)
    if dry_run:
        from prunescope.cli.tables import cells_table

        Console().print(cells_table(plan, Store(root)))
        return
    open_folder(root, plan)
    workers = workers or max(1, (os.cpu_count() or 1) // study.execution.threads)
    if not quiet:
        say(console, f"{study.name}: {len(plan.cells)} cells, {workers} at a time, into {root}")
    try:
        with Live(console, plan, quiet=quiet) as live:
            outcome = execute(plan, root, workers=workers, on_event=live.on_event)
    except KeyboardInterrupt:
        say(console, f"stopped; what was done is kept in {root}: run the same command to go on", "yellow")
        raise typer.Exit(130) from None
    page = build_report(root)
    summary(console, outcome, page)
    raise typer.Exit(2 if outcome.failed else 0)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="A study folder, or one of `prunescope car`.", show_default=False)],
    out: Annotated[Optional[Path], typer.Option("--out", "-o", help="HTML file (default: FOLDER/report.html).")] = None,  # noqa: UP045
) -> None:
    """Build the HTML report and its tables again from what is stored; needs neither the data nor a GPU."""
    from prunescope.report.build import build_report
    from prunescope.report.filters.build import build_filter_page

    of_filters = (folder / "car.json").is_file()
    print(build_filter_page(folder, out) if of_filters else build_report(folder, out))


@app.command()
def status(
    folder: Annotated[Path, typer.Argument(help="A study folder.", show_default=False)],
    watch: Annotated[bool, typer.Option("--watch", help="Redraw every two seconds until everything is done.")] = False,
) -> None:
    """How far a study is: every cell of its plan, done, failed or waiting."""
    from prunescope.cli.tables import show_status

    show_status(Console(), folder, watch=watch)


@app.command(name="list")
def list_parts(
    kind: Annotated[
        str, typer.Argument(help="criteria, granularities, probes, attributions, models, data or embeddings.")
    ] = "criteria",
) -> None:
    """The parts that a study.yaml can name, with their options and defaults."""
    from prunescope.cli.tables import parts_table

    terminal = Console()
    out = terminal if terminal.is_terminal else Console(width=max(100, terminal.width))
    out.print(parts_table(kind))


app.command()(tickets.prune)
app.command()(tickets.shrink)
app.command()(units.car)
