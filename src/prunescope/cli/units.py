"""The verb for units: which filters matter, and for which class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer
from rich.console import Console
from rich.table import Table

from prunescope.cli.tickets import Threads, console, threads_set, warnings_said

if TYPE_CHECKING:
    from torch import nn

    from prunescope.data.split import Split
    from prunescope.probes.car import UnitTable
    from prunescope.pruning.trails import Trail
    from prunescope.ticket.sees import Sees
    from prunescope.ticket.units import Question

#: {removal: what takes a unit's place, in words}.
PLACES = {
    "mean": "its mean over these images and all places",
    "resample": "what it holds on another of these images",
    "weights": "what zero weights give, with what a norm adds behind them",
}


def car(
    model: Annotated[
        str, typer.Option("--model", "-m", help="The network: NAME, '{name: NAME, option: value}', or a YAML file.")
    ],
    data: Annotated[
        str, typer.Option("--data", "-d", help="The images: NAME, NAME:PATH, '{name: NAME, option: value}', or a file.")
    ],
    weights: Annotated[Optional[Path], typer.Option("--weights", help="The trained weights, any common file.")] = None,  # noqa: UP045
    layers: Annotated[
        Optional[list[str]],  # noqa: UP045 (typer reads the annotation at run time, also on Python 3.10)
        typer.Option("--layer", "-l", help="A layer or pattern, as often as you like (default: all convolutions)."),
    ] = None,
    split: Annotated[str, typer.Option("--split", help="train, val or test.")] = "test",
    images: Annotated[
        int, typer.Option("--images", "-n", min=0, help="So many images, each class its share; 0: all.")
    ] = 0,
    out: Annotated[Optional[Path], typer.Option("--out", "-o", help="New folder for the tables and the page.")] = None,  # noqa: UP045
    look: Annotated[
        int, typer.Option("--look", min=0, max=100, help="Best patches of every filter on the page; 0: tables only.")
    ] = 9,
    maximise: Annotated[
        int,
        typer.Option(
            "--maximise",
            min=0,
            metavar="STEPS",
            help="Also make a picture that excites each filter, in so many steps (256); slow: a filter takes three "
            "forward passes as far as its layer a step. 0: none.",
        ),
    ] = 0,
    precision: Annotated[
        str, typer.Option("--precision", help="32, or bf16: faster, with everything near a tie redone in 32.")
    ] = "32",
    screen: Annotated[
        bool, typer.Option("--screen", help="Leave out what cannot change by a calibrated screen; audited.")
    ] = False,
    removal: Annotated[
        str, typer.Option("--removal", help="What takes a filter's place: zero, mean, resample, weights.")
    ] = "zero",
    memory: Annotated[
        int,
        typer.Option(
            "--memory",
            min=1,
            metavar="MB",
            help="MB (2^20 bytes) for values while filters are out; more: larger batches. Too little is refused, with "
            "how many bytes are enough.",
        ),
    ] = 512,
    compare: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--compare", metavar="METHODS", help="Take layers apart by all orders, or by A,B; needs time."),
    ] = None,
    report_split: Annotated[
        str, typer.Option("--report-split", help="Where accuracy along them is measured: not --split.")
    ] = "test",
    fine_tune: Annotated[
        float, typer.Option("--fine-tune", min=0, help="Epochs on the training images, at 25, 50 and 75 % removed.")
    ] = 0.0,
    seed: Annotated[int, typer.Option("--seed", help="Of what is drawn: images, orders, the audit, resampling.")] = 0,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda ...")] = "auto",
    threads: Threads = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars.")] = False,
) -> None:
    """Accuracy reduction (CAR) of every filter: what accuracy, and that of every class, loses without it."""
    from prunescope.cli.live import Worlds, say
    from prunescope.core.errors import PrunescopeError
    from prunescope.engine.ablation.answers import Effort
    from prunescope.engine.allocator import tune_allocator
    from prunescope.report.filters.build import build_filter_page
    from prunescope.ticket.contest import Contest, tables, told
    from prunescope.ticket.contest import compare as take_apart
    from prunescope.ticket.job import read_spec
    from prunescope.ticket.units import Question, ask, by_layer, facts, network_and_images, require_free, write

    question = Question(
        read_spec(model, "model"), read_spec(data, "data"), weights, tuple(layers or ()), split, images,
        Effort(precision, screen=screen, removal=removal, memory=memory * 2**20),  # type: ignore[arg-type]
        look, seed, device, maximise,
    )  # fmt: skip
    contest = None if compare is None else Contest(_methods(compare), report_split, images, epochs=fine_tune)
    if contest is not None:
        contest.require_for(question)
    if maximise and out is None:
        raise PrunescopeError("--maximise makes pictures for a page: name the folder for it, --out FOLDER")
    if out is not None:
        require_free(out)
    tune_allocator()
    try:
        with warnings_said(), threads_set(threads):
            network, sample = network_and_images(question)
            with Worlds(console, quiet=quiet) as bar:
                table = ask(question, network, sample, bar.draw)
            sees = "" if out is None else looked(question, network, sample, table, quiet=quiet)
            if maximise and not isinstance(sees, str):
                sees = pictured(question, network, sample, sees, quiet=quiet)
            names = list(dict.fromkeys(layer for layer, _ in table.units))
            compared = contest and take_apart(question, contest, names, lambda trail: say(console, half_way(trail)))
    except KeyboardInterrupt:
        say(console, "stopped; nothing was written", "yellow")
        raise typer.Exit(130) from None
    measured = facts(question, table)
    Console().print(layers_table(by_layer(table), measured))
    for line in in_words(measured):
        say(console, line)
    if out is not None:
        more = tables(compared, None if isinstance(sees, str) else sees.colour_selective) if compared else None
        write(out, question, table, sees, more, told(contest, compared) if contest and compared else None)
        if isinstance(sees, str) and sees:
            say(console, f"what filters see was not looked at: {sees}", "yellow")
        say(console, f"written: {build_filter_page(out)}", "bold")


def looked(question: Question, network: nn.Module, split: Split, table: UnitTable, *, quiet: bool) -> Sees | str:
    """What the units see; why not, where it cannot be looked at: the CAR that was measured is not lost by it."""
    from prunescope.cli.live import Worlds
    from prunescope.core.errors import PrunescopeError
    from prunescope.engine.device import pick_device
    from prunescope.ticket.sees import look

    if not question.look:
        return "not asked for"
    try:
        with Worlds(console, "looking at filters", quiet=quiet) as bar:
            return look(
                network, split, table.units, k=question.look, seed=question.seed, device=pick_device(question.device),
                on_looked=bar.draw,
            )  # fmt: skip
    except PrunescopeError as error:
        return str(error)


def pictured(question: Question, network: nn.Module, split: Split, sees: Sees, *, quiet: bool) -> Sees:
    """With pictures that are made to excite the units; says of which layers there are none, and why."""
    from prunescope.cli.live import Worlds, say
    from prunescope.engine.device import pick_device
    from prunescope.ticket.maximised import maximised

    with Worlds(console, "making pictures", quiet=quiet) as bar:
        found = maximised(
            network, split, sees, steps=question.maximise, seed=question.seed, device=pick_device(question.device),
            on_made=bar.draw,
        )  # fmt: skip
    for layer, why in found.facts["maximise"]["failed"].items():
        say(console, f"no picture could be made for the filters of {layer}: {why}", "yellow")
    return found


def _methods(text: str) -> tuple[str, ...]:
    """`all`, or names with commas."""
    return () if text == "all" else tuple(name.strip() for name in text.split(","))


def half_way(trail: Trail) -> str:
    """One line on a method: accuracy with half of a layer gone."""
    half = trail.units // 2
    tuned = f", fine-tuned {trail.rightly(half, tuned=True).mean():.1%}" if half in trail.tuned else ""
    whole = f"{trail.rightly(0).mean():.1%} whole"
    return f"{trail.layer} by {trail.method}: {whole}, {trail.rightly(half).mean():.1%} without half of it{tuned}"


def layers_table(rows: Sequence[Mapping[str, Any]], told: Mapping[str, Any]) -> Table:
    """A row per layer: how many of its units matter, which least and which most."""
    where = f"{told['images']:,} {told['split']} images, accuracy {told['accuracy']:.1%}"
    table = Table(title=f"CAR of {told['units']:,} units on {where}", title_justify="left")
    for number, column in enumerate(("layer", "units", "matter", "harm", "mean CAR", "least", "most important (CAR)")):
        table.add_column(column, justify="right" if 0 < number < 5 else "left", overflow="fold")
    for row in rows:
        most = ", ".join(f"{channel} ({value:+.3f})" for channel, value in row["most"])
        least = ", ".join(map(str, row["least"]))
        counts = (str(row[key]) for key in ("units", "mattering", "harmful"))
        table.add_row(row["layer"], *counts, f"{row['mean']:+.4f}", least, most)
    return table


def in_words(told: Mapping[str, Any]) -> list[str]:
    """What the columns say, and how it was measured."""
    lines = [
        "matter: accuracy changes for sure without the unit (McNemar, Holm over all units, 5 %); "
        "harm: accuracy is higher without it",
        f"{told['worlds']:,} predictions; {told['full_passes']:,} within rounding of a tie, made by full passes",
    ]
    if told["precision"] != "32":
        lines.append(f"{told['again_in_float32']:,} not sure in {told['precision']} and made again in float32")
    if told["screen"]:
        lines.append(
            f"{told['left_out']:,} left out by the screen; of {told['audited']:,} of these that were run, "
            f"{told['audited_wrong']:,} change their class"
        )
    if told["surprises"]:
        lines.append(
            f"in {told['surprises']:,} measurements an error was larger than was trusted until then: predictions made "
            "before them may be off where they were nearly ties; --precision 32 without --screen has none of this"
        )
    if told["removal"] != "zero":
        lines.append(f"what takes a unit's place: {PLACES[told['removal']]}")
    if told["classes_without_images"]:
        lines.append(f"classes without images: {', '.join(told['classes_without_images'])}")
    return lines
