"""Store in, one HTML file and tables out. Needs no data, no network and no GPU."""

from __future__ import annotations

import json
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
import yaml
from plotly.offline import get_plotlyjs

from prunescope import __version__
from prunescope.core.files import write_atomic
from prunescope.report import charts
from prunescope.report.concepts import concept_tables
from prunescope.report.gallery import CHOICES, galleries
from prunescope.report.tables import write_tables
from prunescope.report.words import headlines, summary
from prunescope.study.results import MEASURE, Results, results


def build_report(root: Path, out: Path | None = None) -> Path:
    """Write `report.html` (or `out`) and, beside it, `tables/*.csv` and `*.parquet`; returns the page's path.

    Raises:
        PrunescopeError: no study there, or nothing of it is done.
    """
    found = results(root)
    page = out or root / "report.html"
    write_tables(found, page.parent / "tables")
    write_atomic(page, render(found))
    return page


def render(found: Results) -> str:
    """The page: everything in it, nothing fetched. All text is escaped by the template or by `safe_json`."""
    figures, tables, shown = _figures(found), concept_tables(found), galleries(found)
    drifts = [key for key in figures if key.startswith("drift/")]
    first = next((key for key in drifts if key.startswith("drift/gradcam") and key.endswith("both_right")), None)
    bumps = {f"{table.title} · {name}": figure for table in tables for name, figure in table.bumps}
    sprites = {row.image: row.picture for g in shown for rows in g.groups.values() for row in rows}
    environment = jinja2.Environment(loader=jinja2.PackageLoader("prunescope.report"), autoescape=True)
    environment.filters["percent"] = lambda value: "–" if value is None or not np.isfinite(value) else f"{value:.1%}"
    environment.filters["number"] = lambda value: "–" if value is None or not np.isfinite(value) else f"{value:.3g}"
    return environment.get_template("report.html.j2").render(
        name=found.study.name, version=__version__, summary=summary(found), problems=found.problems,
        figures=_safe_json(figures), keys=list(figures),
        titles={key: figure["layout"]["title"]["text"] for key, figure in figures.items()},
        first_drift=first or (drifts or [""])[0], verdicts=_verdicts(found),
        galleries=shown, choices=CHOICES, small=max(found.data["shape"][1:]) < 64,
        sprite={image: i for i, image in enumerate(sprites)}, sprites=dict(enumerate(sprites.values())),
        concepts=tables, bumps=_safe_json(bumps), bump_keys=list(bumps), runs=_runs(found),
        provenance=_provenance(found), config=yaml.safe_dump(found.study.as_mapping(), sort_keys=False),
        data=found.data, plotly=_plotly(), style=_asset("report.css"), script=_asset("report.js"),
    )  # fmt: skip


def _figures(found: Results) -> dict[str, Any]:
    """Figures by place on the page: fixed ones, and every measure for the chooser."""
    figures: dict[str, Any] = {}
    if found.runs.empty:
        return figures
    for column, title in (
        ("performance.top1", "Accuracy"), ("performance.balanced_accuracy", "Balanced accuracy"),
        ("performance.auroc", "AUROC"), ("performance.ece", "Calibration error"),
        ("gradcam.inside.true", "Heat inside the object"), ("gradcam.blank.reference", "Blank heat maps"),
        ("concepts.bottleneck_accuracy", "Accuracy of the concept bottleneck"),
    ):  # fmt: skip
        if column in found.runs and found.runs[column].notna().any():
            figures[f"metric/{column}"] = charts.metric_curve(found.runs, column, title=title, unit=_unit(column))
    figures["density/effective"] = charts.metric_curve(
        found.runs.assign(excess=found.runs["effective"] / found.runs["density"]), "excess",
        title="Kept weights that still lie on a live path", unit="share of the kept weights",
    )  # fmt: skip
    for key, rows in found.pooled.groupby(MEASURE, sort=False) if len(found.pooled) else []:
        name = "/".join(str(part) for part in key)
        figures[f"drift/{name}"] = charts.drift_curve(rows, _same(found.drift, key))
    for headline in headlines(found):
        key = (headline.probe, headline.array, headline.distance, headline.subset)
        rows = _same(found.drift, key) if len(found.drift) else found.drift
        if len(rows):
            name = "/".join(key)
            figures[f"accuracy/{name}"] = charts.against_accuracy(found.runs, rows, "performance.top1")
    figures |= _recalls(found) | _layers(found)
    return figures


def _unit(column: str) -> str:
    return "share of test images" if column.startswith(("performance.top", "gradcam.blank")) else ""


def _recalls(found: Results) -> dict[str, Any]:
    """Recall per class at every density, mean over seeds."""
    classes = [str(name) for name in found.data["classes"]]
    figures = {}
    for recipe in found.study.recipes:
        groups: dict[tuple[int, str], list[Any]] = {}
        for point in found.points:
            if point.role == "dense" or (point.role == "ticket" and point.recipe == recipe.name):
                label = "dense" if point.role == "dense" else f"{point.density:.1%}"
                key = next(k for k, probe in found.study.probes.items() if probe.name == "performance")
                groups.setdefault((point.round, label), []).append(found.record(point, key).arrays["class.recall"])
        if len(groups) > 1 and len(classes) <= 60:
            order = sorted(groups)
            values = np.stack([np.mean(groups[key], axis=0) for key in order], axis=1)
            figures[f"recall/{recipe.name}"] = charts.heat_table(
                values, classes, [label for _, label in order], title=f"Recall of every class: {recipe.name}"
            )
    return figures


def _layers(found: Results) -> dict[str, Any]:
    """Density of every layer after the last round, mean over seeds."""
    rows = found.layers[found.layers["role"] == "ticket"] if len(found.layers) else found.layers
    if rows.empty:
        return {}
    last = rows[rows["round"] == rows.groupby("recipe")["round"].transform("max")]
    names = list(dict.fromkeys(last["layer"]))
    values = {
        str(recipe): group.groupby("layer")["density"].mean().reindex(names).tolist()
        for recipe, group in last.groupby("recipe")
    }
    short = [name.removesuffix(".weight") for name in names]
    return {
        "layers": charts.bars(values, short, title="Density of every layer after the last round", unit="weights kept")
    }


def _verdicts(found: Results) -> list[dict[str, Any]]:
    """Rows of the verdict table: one per measure and recipe, one cell per density."""
    if found.pooled.empty:
        return []
    tickets = found.pooled[found.pooled["role"] == "ticket"]
    rows = []
    for key, group in tickets.groupby(["recipe", *MEASURE], sort=False):
        group = group.sort_values("round")
        cells = [
            {"density": r.density, "value": r.value, "low": r.low, "high": r.high, "verdict": r.verdict}
            for r in group.itertuples()
        ]
        first = group.iloc[0]
        others = tickets[(tickets["array"] == key[2]) & (tickets["distance"] == key[3])]["subset"]
        rows.append(
            {
                "only": others.nunique() == 1,
                "recipe": key[0], "probe": key[1], "array": str(key[2]).split(".", 1)[-1], "subset": key[4],
                "title": first["title"], "unit": first["unit"], "floor": (first["floor_low"], first["floor_high"]),
                "figure": "drift/" + "/".join(str(part) for part in key[1:]), "cells": cells,
            }
        )  # fmt: skip
    return rows


def _runs(found: Results) -> list[dict[str, Any]]:
    """Rows of the table of checkpoints."""
    names = {"performance.top1": "accuracy", "performance.balanced_accuracy": "balanced", "performance.auroc": "AUROC"}
    shown = [column for column in names if column in found.runs]
    return [
        {
            **{k: row[k] for k in ("role", "recipe", "seed", "round", "density", "effective", "checkpoint", "seconds")},
            "metrics": {names[c]: row[c] for c in shown},
        }
        for row in found.runs.to_dict("records")
    ]  # fmt: skip


def _provenance(found: Results) -> dict[str, Any]:
    """Versions, device, threads and fingerprint, and where they differ between cells."""
    seen: dict[str, set[str]] = {}
    for point in found.points:
        for key, value in found.store.provenance(point.checkpoint).items():
            if key not in ("seconds", "finished"):
                seen.setdefault(key, set()).add(str(value))
    shown = {key: ", ".join(sorted(values)) for key, values in sorted(seen.items())}
    return {"data fingerprint": found.data["fingerprint"], **shown}


def _same(table: pd.DataFrame, key: Any) -> pd.DataFrame:
    """Rows of one measure."""
    chosen = np.ones(len(table), dtype=bool)
    for column, value in zip(MEASURE, key, strict=True):
        chosen &= (table[column] == value).to_numpy()
    return table[chosen]


def _safe_json(value: Any) -> str:
    """JSON that cannot end the script element it stands in, whatever strings it holds."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026").replace("\u2028", "\\u2028")


def _asset(name: str) -> str:
    return (files("prunescope.report") / "templates" / name).read_text()


@lru_cache(maxsize=1)
def _plotly() -> str:
    """Plotly's script, so that the page needs no network. Kept from closing its own element early."""
    return get_plotlyjs().replace("</script", "<\\/script")
