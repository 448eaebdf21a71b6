"""Layer collapse in the words of the page: which layers pass nothing on, since when, and what accuracy did."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from prunescope.pruning.summary import Collapse, collapsed
from prunescope.report.places import percent, performance_key, recipes_cut, ticket_rows, units
from prunescope.study.collapse import in_words
from prunescope.study.results import Results

#: {seed: {layer: how it ended}} of the tickets of one round.
Ended = dict[int, dict[str, Collapse]]


def ended(rows: pd.DataFrame) -> Ended:
    """Of one round's rows of `Results.layers`; where it is not known which weights are live, only empty layers."""
    return {
        seed: collapsed(
            dict(mine[["layer", "density"]].itertuples(index=False, name=None)),
            dict(mine[["layer", "effective"]].dropna().itertuples(index=False, name=None)),
        )
        for seed, mine in ((int(str(key)), group) for key, group in rows.groupby("seed"))
    }


def collapses(found: Results) -> list[str]:
    """Sentences, one per recipe whose tickets have a collapsed layer."""
    return [told for recipe in recipes_cut(found) for told in _recipe(found, recipe)]


def _recipe(found: Results, recipe: str) -> Iterator[str]:
    layers = ticket_rows(found.layers, recipe)
    rounds = {int(str(number)): ended(rows) for number, rows in layers.groupby("round")}
    hit = [number for number, seeds in rounds.items() if any(seeds.values())]
    if not hit:
        return
    first, last, count = hit[0], hit[-1], layers["layer"].nunique()
    told = f"Layer collapse with {recipe}: at {_place(found, recipe, first)}, {_which(rounds[first])}."
    told += _accuracy(found, recipe, first, rounds[first])
    if last != first:
        most = max(map(len, rounds[last].values()))
        told += f" At {_place(found, recipe, last)} it is up to {most} of {count} layers."
    whole = [number for number in hit if any(len(mine) == count for mine in rounds[number].values())]
    if whole:
        told += f" From round {whole[0]} on, no path leads through any pruned layer of some of these networks."
    yield told


def _place(found: Results, recipe: str, number: int) -> str:
    rows = ticket_rows(found.runs, recipe)
    density = float(rows[rows["round"] == number]["target"].iloc[0])
    return f"{percent(density)} of the {units(found, recipe)} (round {number})"


def _which(seeds: Ended) -> str:
    """The layers, of all seeds together, and how many seeds it is."""
    hit = [layers for layers in seeds.values() if layers]
    told = in_words({layer: how for layers in hit for layer, how in layers.items()})
    if len(seeds) == 1:
        return told
    same = all(layers == hit[0] for layers in hit)
    return f"{told} ({len(hit)} of {len(seeds)} seeds{'' if same else ', not the same layers in each'})"


def _accuracy(found: Results, recipe: str, number: int, seeds: Ended) -> str:
    """Whether accuracy fell with it. A network may have a way around the layer, and it lost other weights too."""
    column = f"{performance_key(found.study)}.top1"
    rows = ticket_rows(found.runs, recipe)
    mine = rows[(rows["round"] == number) & rows["seed"].isin([seed for seed, layers in seeds.items() if layers])]
    dense = found.runs[found.runs["role"] == "dense"][column]
    if dense.empty:
        return ""
    accuracy, low, high = float(mine[column].mean()), float(dense.min()), float(dense.max())
    fell, why = ("", ", be it for this or for the other weights that went") if accuracy < low else ("not ", "")
    return (
        f" Accuracy there is {percent(accuracy)}, {fell}below the dense networks' "
        f"({percent(low)} to {percent(high)}){why}."
    )
