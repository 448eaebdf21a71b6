"""What is left of heat maps when weights turn random."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from prunescope.report.charts import Figure, figure
from prunescope.report.heat import HeatCell, HeatTable
from prunescope.report.places import number, percent
from prunescope.report.style import plain
from prunescope.report.traces import line
from prunescope.report.trust_series import Series, TrustView, level, with_interval
from prunescope.study.results import Results

#: Rank correlation with random weights below which maps depend on the weights, and above which they hardly do.
_DEPENDS, _IGNORES = 0.3, 0.7
_LEFT = {
    "left": "Rank correlation when all weights are random", "head": "The same, only the top stage random",
    "independent": "The same, one stage random (mean over stages)", "lost": "Maps that turn blank (share)",
}  # fmt: skip


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


def sanity_view(series: Series) -> TrustView:
    rows = tuple(
        (title, tuple(HeatCell(number(series.mean(g, name)), level(-series.mean(g, name))) for g in series.columns()))
        for name, title in _LEFT.items()
    )
    table = HeatTable(
        f"What is left of the maps without the weights, {series.title}",
        f"Means over seeds; {series.info['images']} test images; columns: {series.kept} kept. Coloured: what is left.",
        "maps against those of the network itself", series.columns(), rows,
    )  # fmt: skip
    return TrustView(
        f"Sanity: {series.title}", tuple(_sanity_words(series)), table, {series.place("sanity"): _cascade(series)}
    )


def _sanity_words(series: Series) -> Iterator[str]:
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
        rho = with_interval(found)
        yield f"In {whose}, with all weights random a rank correlation of {rho} is left: {told}{blank}."


def _cascade(series: Series) -> Figure:
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
