"""Can heat maps be trusted? Sanity checks, and faithfulness beside random maps; tickets beside dense. Words first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from prunescope.core.types import Array, Record
from prunescope.metrics.statistics import Interval, bootstrap_mean
from prunescope.report.charts import Figure, figure
from prunescope.report.heat import HeatCell, HeatTable
from prunescope.report.places import dense_points, number, percent, recipes_done, spread_out, tickets, units
from prunescope.report.style import Look, plain
from prunescope.report.traces import line, shade
from prunescope.study.plan import Point
from prunescope.study.results import Results

#: Densities drawn, at most, besides dense.
_LINES = 4
#: Rank correlation with random weights below which maps depend on the weights, and above which they hardly do.
_DEPENDS, _IGNORES = 0.3, 0.7
#: {measure: (what it is, whether more is better)}.
_MEASURES = {
    "deletion": ("Deletion: probability while the hottest pixels go", False),
    "insertion": ("Insertion: probability while the hottest pixels come", True),
    "road": ("ROAD: what the hottest pixels are worth more than the coldest", True),
}
_LEFT = {
    "left": "Rank correlation when all weights are random", "head": "The same, only the top stage random",
    "independent": "The same, one stage random (mean over stages)", "lost": "Maps that turn blank (share)",
}  # fmt: skip


@dataclass(frozen=True)
class TrustView:
    """One probe and recipe; `figures` are charts by their place on the page."""

    title: str
    words: tuple[str, ...]
    table: HeatTable
    figures: dict[str, Figure] = field(default_factory=dict)


def trust_views(found: Results) -> list[TrustView]:
    """One per probe `sanity` or `faithfulness` and recipe of which tickets are done."""
    kinds: dict[str, Callable[[_Series], TrustView]] = {"sanity": _sanity, "faithfulness": _faithfulness}
    return [
        kinds[probe.name](_Series(found, key, recipe))
        for key, probe in found.study.probes.items()
        if probe.name in kinds
        for recipe in recipes_done(found)
    ]


def sanity_rows(found: Results) -> pd.DataFrame:
    """A row per checkpoint, probe `sanity` and stage: how alike maps are when it is random, with all above or alone."""
    columns = [
        "role", "recipe", "seed", "round", "checkpoint", "probe", "stage", "layers",
        "cascading", "cascading_ssim", "independent", "independent_ssim",
    ]  # fmt: skip
    rows = [
        (point.role, point.recipe, point.seed, point.round, point.checkpoint, key, stage + 1, " ".join(layers),
         *record.arrays["stage.cascading"][stage], *record.arrays["stage.independent"][stage])
        for key in (key for key, probe in found.study.probes.items() if probe.name == "sanity")
        for point in found.points
        for record in (found.record(point, key),)
        for stage, layers in enumerate(record.info["layers"])
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


class _Series:
    """Records of one probe: the dense networks', and those of a recipe's tickets by round."""

    def __init__(self, found: Results, key: str, recipe: str) -> None:
        self.key, self.recipe, self.kept = key, recipe, units(found, recipe)
        rounds: dict[int, list[Point]] = {}
        for point in tickets(found, recipe):
            rounds.setdefault(point.round, []).append(point)
        self.groups: dict[str, list[Record]] = {"dense": [found.record(point, key) for point in dense_points(found)]}
        self.groups |= {percent(ps[0].density): [found.record(point, key) for point in ps] for ps in rounds.values()}
        self.last = list(self.groups)[-1]
        first = next(record for records in self.groups.values() for record in records)
        told = f"{first.info['method']}, {recipe}"
        self.info, self.title = first.info, told if key == first.probe else f"{told} ({key})"

    def mean(self, group: str, metric: str) -> float:
        """Over the seeds that have a value."""
        values = [record.metrics[metric] for record in self.groups[group]]
        known = [value for value in values if np.isfinite(value)]
        return float(np.mean(known)) if known else float("nan")

    def over_images(self, group: str, of: Callable[[Record], Array]) -> Interval:
        """Mean, and a 95 % bootstrap interval over images, of a number per image, averaged over seeds before."""
        values = np.stack([of(record).astype(np.float64) for record in self.groups[group]])
        known = np.isfinite(values)
        mean = np.where(known, values, 0).sum(0) / np.where(known.any(0), known.sum(0), np.nan)
        return bootstrap_mean(mean, seed=0)

    def curve(self, group: str, array: str) -> Array:
        """Mean over the seeds of an array."""
        values = np.stack([record.arrays[array] for record in self.groups[group]])
        known = np.isfinite(values)
        total = np.where(known, values, 0).sum(0)
        return np.where(known.any(0), total / np.maximum(known.sum(0), 1), np.nan)

    def drawn(self) -> Iterator[tuple[str, Look]]:
        """Dense, and some densities, darker as fewer weights are left."""
        some = spread_out([name for name in self.groups if name != "dense"], _LINES)
        if self.groups["dense"]:
            yield "dense", Look("#7f7f7f", "dash", "circle-open")
        for place, name in enumerate(some):
            yield name, Look(shade((place + 1) / len(some)), "solid", "circle")

    def columns(self) -> tuple[str, ...]:
        return tuple(name for name, records in self.groups.items() if records)

    def place(self, what: str) -> str:
        return f"trust/{self.key}/{self.recipe}/{what}"


def _sanity(series: _Series) -> TrustView:
    rows = tuple(
        (title, tuple(HeatCell(number(series.mean(g, name)), _level(-series.mean(g, name))) for g in series.columns()))
        for name, title in _LEFT.items()
    )
    table = HeatTable(
        f"What is left of the maps without the weights, {series.title}",
        f"Means over seeds; {series.info['images']} test images; columns: {series.kept} kept. Coloured: what is left.",
        "maps against those of the network itself", series.columns(), rows,
    )  # fmt: skip
    return TrustView(series.title, tuple(_sanity_words(series)), table, {series.place("sanity"): _cascade(series)})


def _sanity_words(series: _Series) -> Iterator[str]:
    for group in dict.fromkeys(name for name in ("dense", series.last) if name in series.columns()):
        lost = series.mean(group, "lost")
        found = series.over_images(group, lambda record: record.arrays["image.left"])
        left = found.value
        whose = "the dense networks" if group == "dense" else f"the tickets with {group} of the {series.kept}"
        if not np.isfinite(left):
            yield f"Of {whose} no map can be compared with that of random weights: one of the two is blank."
            continue
        told = (
            "the maps hang on the weights" if left <= _DEPENDS
            else "the maps hardly hang on the weights; an edge detector does as well" if left >= _IGNORES
            else "the maps hang on the weights only in part"
        )  # fmt: skip
        blank = f"; {percent(lost)} of the maps turn blank" if lost > 0 else ""
        rho = _with_interval(found)
        yield f"In {whose}, with all weights random a rank correlation of {rho} is left: {told}{blank}."


def _cascade(series: _Series) -> Figure:
    stages = [str(layers[-1]) for layers in series.info["layers"]]
    traces, cells = [], []
    for name, look in series.drawn():
        values = [1.0, *series.curve(name, "stage.cascading")[:, 0].tolist()]
        traces.append(line(range(len(values)), values, name, look, hover="stage %{x}: %{y:.3f}"))
        cells.append([name, *map(number, values)])
    axis = {
        "tickvals": list(range(len(stages) + 1)), "ticktext": ["none", *(plain(f"to {name}") for name in stages)],
        "title": {"text": "weights that are random, from the head down"},
    }  # fmt: skip
    title, unit = f"Maps while weights turn random, {series.title}", "Spearman's rho"
    lowest = min((y for trace in traces for y in trace["y"] if y is not None), default=0.0)
    layout = {"xaxis": axis, "yaxis": {"title": {"text": unit}, "range": [min(lowest, 0.0) - 0.05, 1.05]}}
    return figure(
        traces, layout, title=title, unit=unit, note="Near 0 at the right end is good.",
        alt=f"{title}: {len(traces)} lines.", columns=("network", "none", *stages), cells=cells,
    )  # fmt: skip


def _faithfulness(series: _Series) -> TrustView:
    rows = tuple(
        (title, tuple(_beside(series, group, name, better) for group in series.columns()))
        for name, (title, better) in _MEASURES.items()
    )
    blank = tuple(HeatCell(percent(series.mean(group, "blank")), 0.0) for group in series.columns())
    table = HeatTable(
        f"What the hottest pixels are worth, {series.title}",
        f"Means over seeds and {series.info['images']} test images; in brackets the same in random order; columns: "
        f"{series.kept} kept. Coloured is how far maps beat chance (in the other colour: how far they fall short).",
        "probability of the class", series.columns(), (*rows, ("Blank maps, left out", blank)),
    )  # fmt: skip
    shown = {
        series.place("deletion"): _removal(series, "deletion", "Deletion", "share of pixels deleted"),
        series.place("insertion"): _removal(series, "insertion", "Insertion", "share of pixels put in"),
    }
    return TrustView(series.title, tuple(_faithful_words(series)), table, shown)


def _advantage(series: _Series, group: str, name: str, better: bool) -> Interval:
    """How far the maps beat random ones, image by image; below 0 where they do not."""
    sign = 1 if better else -1
    return series.over_images(
        group, lambda record: sign * (record.arrays[f"image.{name}"] - record.arrays[f"image.random.{name}"])
    )


def _beside(series: _Series, group: str, name: str, better: bool) -> HeatCell:
    own, control = series.mean(group, name), series.mean(group, f"random.{name}")
    return HeatCell(f"{number(own)} ({number(control)})", _level(4 * _advantage(series, group, name, better).value))


def _faithful_words(series: _Series) -> Iterator[str]:
    for group in dict.fromkeys(name for name in ("dense", series.last) if name in series.columns()):
        gains = {name: _advantage(series, group, name, better) for name, (_, better) in _MEASURES.items()}
        whose = "the dense networks" if group == "dense" else f"the tickets with {group} of the {series.kept}"
        known = {name: gain for name, gain in gains.items() if np.isfinite(gain.value)}
        if not known:
            yield f"In {whose} every map is blank, so there is nothing to delete first."
            continue
        good = [name for name, gain in known.items() if gain.low > 0]
        what = "all" if len(good) == len(known) else "none" if not good else f"{len(good)} of {len(known)}"
        told = ", ".join(f"{name} by {_with_interval(gain)}" for name, gain in known.items())
        yield f"In {whose} the maps surely beat random ones in {what} of the measures ({told}; below 0: worse)."


def _with_interval(found: Interval) -> str:
    return f"{number(found.value)} ({number(found.low)} to {number(found.high)})"


def _removal(series: _Series, name: str, title: str, axis: str) -> Figure:
    traces, cells = [], []
    for group, look in series.drawn():
        at = series.curve(group, "curve.at")
        pairs = [("", look), ("random.", Look(look.colour, "dot", "x"))]
        for prefix, own in pairs if group in ("dense", series.last) else pairs[:1]:
            values, words = series.curve(group, f"curve.{prefix}{name}"), f"{group}{', random order' if prefix else ''}"
            traces.append(line(at, values, words, own, hover="%{x:.0%}: %{y:.3f}", markers=False))
            cells.append([words, *(number(values[i]) for i in (0, len(values) // 2, -1))])
    note = "Below the random order is good." if name == "deletion" else "Above the random order is good."
    title = f"{title}, {series.title}"
    return figure(
        traces, {"xaxis": {"title": {"text": axis}, "tickformat": ".0%"}}, title=title, unit="probability of the class",
        note=note, alt=f"{title}: {len(traces)} lines.", columns=("network", "first", "half way", "last"), cells=cells,
    )  # fmt: skip


def _level(value: float) -> float:
    return float(np.clip(np.nan_to_num(value), -1, 1).round(2))
