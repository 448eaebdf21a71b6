"""What the hottest pixels are worth, beside pixels in random order."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from prunescope.metrics.statistics import Interval
from prunescope.report.charts import Figure, figure
from prunescope.report.heat import HeatCell, HeatTable
from prunescope.report.places import number, percent
from prunescope.report.style import Look
from prunescope.report.traces import line
from prunescope.report.trust_series import Series, TrustView, level, with_interval

#: {measure: (what it is, whether more is better)}.
_MEASURES = {
    "deletion": ("Deletion: probability while the hottest pixels go", False),
    "insertion": ("Insertion: probability while the hottest pixels come", True),
    "road": ("ROAD: what the hottest pixels are worth more than the coldest", True),
}
_NAMES = {"deletion": "deletion", "insertion": "insertion", "road": "ROAD"}


def faithfulness_view(series: Series) -> TrustView:
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
    return TrustView(f"Faithfulness: {series.title}", tuple(_faithful_words(series)), table, shown)


def _advantage(series: Series, group: str, name: str, better: bool) -> Interval:
    """How far the maps beat random ones, image by image; below 0 where they do not."""
    sign = 1 if better else -1
    return series.over_images(
        group, lambda record: sign * (record.arrays[f"image.{name}"] - record.arrays[f"image.random.{name}"])
    )


def _beside(series: Series, group: str, name: str, better: bool) -> HeatCell:
    own, control = series.mean(group, name), series.mean(group, f"random.{name}")
    return HeatCell(f"{number(own)} ({number(control)})", level(4 * _advantage(series, group, name, better).value))


def _faithful_words(series: Series) -> Iterator[str]:
    for group in dict.fromkeys(name for name in ("dense", series.last) if name in series.columns()):
        gains = {name: _advantage(series, group, name, better) for name, (_, better) in _MEASURES.items()}
        whose = "the dense networks" if group == "dense" else f"the tickets with {group} of the {series.kept}"
        known = {name: gain for name, gain in gains.items() if np.isfinite(gain.value)}
        if not known:
            yield f"In {whose} every map is blank, so there is nothing to delete first."
            continue
        good = [name for name, gain in known.items() if gain.low > 0]
        what = "all" if len(good) == len(known) else "none" if not good else f"{len(good)} of {len(known)}"
        told = ", ".join(f"{_NAMES[name]} by {with_interval(gain)}" for name, gain in known.items())
        yield f"In {whose} the maps surely beat random ones in {what} of the measures ({told}; below 0: worse)."


def _removal(series: Series, name: str, title: str, axis: str) -> Figure:
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
