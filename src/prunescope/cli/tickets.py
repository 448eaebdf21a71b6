"""The verbs for one network, without a study."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Optional

import typer
from rich.console import Console

from prunescope.core.errors import PrunescopeError, PrunescopeWarning

console = Console(stderr=True)

Threads = Annotated[
    Optional[int],  # noqa: UP045 (typer reads the annotation at run time, also on Python 3.10)
    typer.Option("--threads", min=1, help="CPU threads (default: torch's); equal numbers give equal bits."),
]


def prune(
    model: Annotated[
        str, typer.Option("--model", "-m", help="The network: NAME, '{name: NAME, option: value}', or a YAML file.")
    ],
    recipe: Annotated[Path, typer.Option("--recipe", "-r", help="A YAML file with one recipe, as in a study.yaml.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the ticket.")],
    weights: Annotated[Optional[Path], typer.Option("--weights", help="The trained weights, any common file.")] = None,  # noqa: UP045
    data: Annotated[
        Optional[str],  # noqa: UP045 (typer reads the annotation at run time, also on Python 3.10)
        typer.Option("--data", "-d", help="The data: NAME, NAME:PATH, '{name: NAME, option: value}', or a YAML file."),
    ] = None,
    sets: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--set", "-s", metavar="KEY=VALUE", help="Override a key of the recipe: schedule.density=0.05."),
    ] = None,
    retrain: Annotated[bool, typer.Option("--retrain/--no-retrain", help="Retrain after cuts, or only cut.")] = True,
    zeros: Annotated[
        str,
        typer.Option("--zeros", help="Zeros of a network that comes pruned: keep, free, or auto: keep where many."),
    ] = "auto",
    rewind_weights: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--rewind-weights", help="What recipes that rewind go back to."),
    ] = None,
    classes: Annotated[Optional[int], typer.Option("--classes", min=1, help="Number of classes, without data.")] = None,  # noqa: UP045
    shape: Annotated[Optional[str], typer.Option("--shape", help="Images without data, as C,H,W: 3,32,32.")] = None,  # noqa: UP045
    seed: Annotated[int, typer.Option("--seed", help="Equal seeds give equal bits on a CPU.")] = 0,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda ...")] = "auto",
    threads: Threads = None,
    layers: Annotated[bool, typer.Option("--layers", help="Also print a table of the layers.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars.")] = False,
) -> None:
    """Prune one trained network by one recipe, without a study. Stopped or killed, run it again: it goes on."""
    from prunescope.cli.live import Rounds, say
    from prunescope.cli.ticket_tables import layers_table, ticket_tables
    from prunescope.ticket.job import Job, read_recipe_file, read_spec
    from prunescope.ticket.run import run

    job = Job(
        read_spec(model, "model"), weights, read_recipe_file(recipe, sets or []),
        data=None if data is None else read_spec(data, "data"), classes=classes, shape=_shape(shape), retrain=retrain,
        zeros=zeros, rewind_weights=rewind_weights, seed=seed, device=device,  # type: ignore[arg-type]
    )  # fmt: skip
    try:
        with warnings_said(), threads_set(threads), Rounds(console, quiet=quiet) as bars:
            facts = run(job, out, bars.draw)
    except KeyboardInterrupt:
        say(console, f"stopped; what was done is kept in {out}: run the same command to go on", "yellow")
        raise typer.Exit(130) from None
    tables = Console()
    if layers or facts["zeros"]:
        tables.print(layers_table(facts))
    for table in ticket_tables(facts):
        tables.print(table)
    if facts["data"] is None:
        say(console, "without data, accuracy is not known")
    say(console, f"ticket: {out}", "bold")


def shrink(
    ticket: Annotated[Path, typer.Argument(help="A ticket's folder, or STUDY/cells/retrain-...", show_default=False)],
    out: Annotated[Optional[Path], typer.Option("--out", "-o", help="New folder (default: TICKET-shrunk).")] = None,  # noqa: UP045
    program: Annotated[bool, typer.Option("--program/--no-program", help="Also a program of torch.export.")] = True,
    onnx: Annotated[bool, typer.Option("--onnx/--no-onnx", help="Also an ONNX file.")] = False,
    data: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--data", "-d", help="Images for the comparison (default: the ticket's data, if it is there)."),
    ] = None,
    model: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--model", "-m", help="The network, where it is a function of your own: package.module:function."),
    ] = None,
    repeats: Annotated[int, typer.Option("--repeats", min=0, help="Timed passes; 0: no timing.")] = 30,
    threads: Annotated[int, typer.Option("--threads", min=1, help="CPU threads that the timing is of.")] = 1,
) -> None:
    """Take out the channels that nothing reads: a smaller dense network with the same outputs, checked and timed."""
    from prunescope.cli.live import say
    from prunescope.cli.ticket_tables import costs_table
    from prunescope.ticket.job import read_spec
    from prunescope.ticket.shrink import in_words, shrink_folder

    folder = out or ticket.with_name(f"{ticket.resolve().name}-shrunk")
    with warnings_said(), threads_set(threads):
        facts = shrink_folder(
            ticket, folder, program=program, onnx=onnx, repeats=repeats,
            data=None if data is None else read_spec(data, "data"),
            model=None if model is None else read_spec(model, "model"),
        )  # fmt: skip
    Console().print(costs_table(facts["costs"]))
    for line in in_words(facts):
        say(console, line)
    say(console, f"written: {folder}", "bold")


@contextmanager
def warnings_said() -> Iterator[None]:
    """Our own warnings as plain lines."""
    from prunescope.cli.live import say

    with warnings.catch_warnings():
        warnings.simplefilter("always", PrunescopeWarning)
        shown = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *rest: Any, **more: Any) -> None:
            if issubclass(category, PrunescopeWarning):
                say(console, f"warning: {message}", "yellow")
            else:
                shown(message, category, *rest, **more)

        warnings.showwarning = show
        yield


@contextmanager
def threads_set(count: int | None) -> Iterator[None]:
    """torch's number of threads inside."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _shape(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    parts = text.replace("x", ",").split(",")
    if len(parts) != 3 or not all(part.strip().isdecimal() for part in parts):
        raise PrunescopeError(f"--shape: expected channels, height and width, as 3,32,32; got {text!r}")
    return tuple(int(part) for part in parts)
