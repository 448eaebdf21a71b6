"""What the networks cost beside the dense ones: counted, measured, and without promises that hardware does not keep."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pandas as pd

from prunescope.probes.cost import SHRUNK
from prunescope.report.places import percent, recipes_done, ticket_rows
from prunescope.study.results import Results

_MASKED = (
    "A pruned weight is a zero, and dense hardware multiplies with zeros at the same speed as with other numbers: "
    "a masked network takes the time and the memory of the dense one, and its FLOPs with nonzero weights are theory. "
    "Only its packed file is smaller."
)
_SHRUNK = (
    " What is faster is a network from which whole channels are removed: it is measured as “channels removed”. The two "
    "are timed in turns, so “times as fast” does not depend on what else the machine did."
)
#: {metric: (what it is, how it is meant)}, as the probe names them; those with a batch size follow.
_COUNTED = {
    "parameters": ("Parameters", "zeros included"),
    "nonzero": ("Nonzero parameters", ""),
    "flops": ("FLOPs", "an image; a multiplication and an addition are two"),
    "flops_nonzero": ("FLOPs with nonzero weights", "theory"),
    "file_bytes": ("File", "safetensors"),
    "packed_bytes": ("File, packed", "mask and kept weights"),
}


@dataclass(frozen=True)
class CostCell:
    """Mean over seeds; an interval, or the share of the dense networks' mean."""

    text: str
    detail: str


@dataclass(frozen=True)
class CostLine:
    """One quantity; one cell for the dense networks and one per density."""

    title: str
    note: str
    cells: tuple[CostCell, ...]


@dataclass(frozen=True)
class CostTable:
    """One recipe beside the dense networks."""

    title: str
    notes: tuple[str, ...]
    columns: tuple[str, ...]
    lines: tuple[CostLine, ...]


def cost_tables(found: Results) -> list[CostTable]:
    """One table per recipe and probe `cost`; none when the study has no such probe."""
    keys = [key for key, probe in found.study.probes.items() if probe.name == "cost"]
    return [_table(found, recipe, key) for key in keys for recipe in recipes_done(found)]


def _table(found: Results, recipe: str, key: str) -> CostTable:
    dense = found.runs[found.runs["role"] == "dense"]
    rounds = [group for _, group in ticket_rows(found.runs, recipe).groupby("round")]
    columns = [str(column) for column in found.runs if found.runs[column].notna().any()]
    names = [column.removeprefix(f"{key}.") for column in columns if column.startswith(f"{key}.")]
    lines = tuple(
        CostLine(title, note, tuple(_cell(group, dense, f"{key}.{name}", write) for group in (dense, *rounds)))
        for name in names
        if not name.endswith((".low", ".high"))
        for title, note, write in _described(name)
    )
    shrunk = _SHRUNK if any(name.startswith(SHRUNK) for name in names) else ""
    densities = ("dense", *(percent(float(group["target"].iloc[0])) for group in rounds))
    title = recipe if key == "cost" else f"{recipe} ({key})"
    return CostTable(title, (_MASKED + shrunk, *_removal(found, recipe, key), *_timing(found, key)), densities, lines)


def _described(name: str) -> Iterator[tuple[str, str, Callable[[float], str]]]:
    """(what a metric is, how it is meant, how it is written)."""
    where = ", channels removed" if name.startswith(SHRUNK) else ""
    kind, _, batch = name.removeprefix(SHRUNK).partition(".")
    if kind in _COUNTED:
        title, note = _COUNTED[kind]
        yield f"{title}{where}", note, size if kind.endswith("bytes") else amount
    elif batch:
        images = f"{batch} image" if batch == "1" else f"{batch} images"
        title, write = {"memory": ("Peak memory", size), "latency": ("Latency", _milliseconds),
                        "speedup": ("Times as fast, channels removed", _times)}[kind]  # fmt: skip
        yield f"{title}{where}", images, write


def _cell(group: pd.DataFrame, dense: pd.DataFrame, column: str, write: Callable[[float], str]) -> CostCell:
    value, whole = float(group[column].mean()), float(dense[column].mean())
    if math.isnan(value):
        return CostCell("–", "")
    if f"{column}.low" in group:
        low, high = float(group[f"{column}.low"].min()), float(group[f"{column}.high"].max())
        return CostCell(write(value), f"{write(low)} to {write(high)}")
    return CostCell(write(value), "" if math.isnan(whole) or value == whole else percent(value / whole))


def _removal(found: Results, recipe: str, key: str) -> Iterator[str]:
    """Why no network without channels stands beside these, where none does."""
    tickets = [point for point in found.points if (point.role, point.recipe) == ("ticket", recipe)]
    told = {str(found.record(point, key).info.get("removal", "")) for point in tickets if key in point.probes}
    if told == {"none"}:
        yield "Some weight still reads every channel of these networks, so none can be removed."
    for reason in sorted(told):
        if reason.startswith("not known"):
            yield f"Whether channels can be removed is {reason}."


def _timing(found: Results, key: str) -> Iterator[str]:
    """How latency was measured, if it was."""
    infos = [found.record(point, key).info.get("timing") for point in found.points if key in point.probes]
    known = [info for info in infos if info]
    if known:
        threads, devices = (sorted({str(info[name]) for info in known}) for name in ("threads", "device"))
        yield (
            f"Latency: median of {known[0]['repeats']} passes on {', '.join(devices)}, torch threads: "
            f"{', '.join(threads)}, {known[0]['layout']}; mean over seeds, and from the lowest to the highest bound "
            "of their 95 % intervals. Each checkpoint was timed when it was measured: what else the machine did then "
            "is in the numbers."
        )


def amount(value: float) -> str:
    """A count with three digits.

    >>> amount(272474), amount(90), amount(81626368)
    ('272\\xa0k', '90', '81.6\\xa0M')
    """
    return _scaled(value, ("", "k", "M", "G", "T"))


def size(value: float) -> str:
    """Bytes, in thousands.

    >>> size(1089896), size(12)
    ('1.09\\xa0MB', '12\\xa0B')
    """
    return _scaled(value, ("B", "kB", "MB", "GB", "TB"))


def _scaled(value: float, units: tuple[str, ...]) -> str:
    step = 0
    while value >= 999.5 and step < len(units) - 1:
        value, step = value / 1000, step + 1
    text = _three(value) if step else f"{value:.0f}"
    return f"{text}\u00a0{units[step]}".rstrip("\u00a0")


def _three(value: float) -> str:
    digits = 0 if value >= 99.95 else 1 if value >= 9.995 else 2
    return f"{value:.{digits}f}"


def _milliseconds(value: float) -> str:
    return f"{_three(value)}\u00a0ms"


def _times(value: float) -> str:
    return f"{_three(value)}\u00a0×"
