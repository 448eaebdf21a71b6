"""Tables for the terminal about one network: how much is left, what it costs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table


def ticket_tables(facts: Mapping[str, Any]) -> list[Table]:
    """Densities after each round; and, with data, accuracy before and after on each split."""
    rounds = _table("what is left", "round", "kept", "kept and on a live path")
    for row in facts["rounds"]:
        rounds.add_row(str(row["round"]), _percent(row["density"]), _percent(row["effective_density"]))
    accuracy = _table("accuracy", "split", "images", "before", "after")
    for split, before in facts["accuracy"]["before"].items():
        after = facts["accuracy"]["after"][split]
        accuracy.add_row(split, str(before["n"]), _share(before), _share(after))
    return [rounds, accuracy] if facts["accuracy"]["before"] else [rounds]


def layers_table(facts: Mapping[str, Any]) -> Table:
    """One row a layer: its density as it came, now, and on live paths; and its outputs and inputs without any."""
    table = _table("layers", "layer", "weights", "came", "kept", "live", "dead out", "dead in")
    for row in facts["layers"]:
        dead = (f"{row[f'dead_{side}']}/{row[side]}" if row[side] else "–" for side in ("outputs", "inputs"))
        kept = (_percent(row[key]) for key in ("before", "density", "effective_density"))
        table.add_row(row["layer"].removesuffix(".weight"), f"{row['total']:,}", *kept, *dead)
    return table


def costs_table(found: Mapping[str, Any]) -> Table:
    """What networks of one origin cost, side by side (`ticket.costs`)."""
    from prunescope.ticket.costs import rows

    title = "cost"
    if found["latency"]:
        title += f"; medians of {found['repeats']} passes, {found['device']}, torch threads: {found['threads']}"
    table = _table(title, "", *found["footprints"])
    for title, unit, values in rows(found):
        table.add_row(title, *(_written(value, unit) for value in values))
    return table


def _written(value: Any, unit: str) -> str:
    from prunescope.report.cost import amount, size

    if unit in ("count", "bytes"):
        return (amount if unit == "count" else size)(value)
    if value is None:
        return ""
    scale, name = (1e3, " ms") if unit == "seconds" else (1.0, "x")
    middle, low, high = (f"{scale * number:.3g}" for number in (value.value, value.low, value.high))
    return f"{middle}{name} ({low} to {high})"


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", overflow="fold")
    return table


def _percent(value: float | None) -> str:
    return "not known" if value is None else f"{value:.2%}"


def _share(found: Mapping[str, float]) -> str:
    return f"{found['value']:.2%} ({found['low']:.2%} to {found['high']:.2%})"
