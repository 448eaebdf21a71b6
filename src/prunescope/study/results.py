"""What a study found, as tables: built from the store alone, so it needs neither the data nor a network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from prunescope.core.errors import PrunescopeError
from prunescope.core.mask import Mask
from prunescope.core.seeds import derive
from prunescope.core.types import Record
from prunescope.metrics.statistics import pooled_spread
from prunescope.models.checkpoint import read_mask
from prunescope.pruning.summary import layer_table
from prunescope.study.drift import DriftRow, drift
from prunescope.study.floor import noise_floor, over_seeds, verdict
from prunescope.study.folder import read_folder
from prunescope.study.plan import Point
from prunescope.study.records import load_record
from prunescope.study.store import Store
from prunescope.study.study import Study

#: What names one measure: rows that agree in these are the same quantity.
MEASURE = ["probe", "array", "distance", "subset"]
#: What names one place on the curves, over seeds.
PLACE = ["role", "recipe", "round"]

_LAYER = [*PLACE[:2], "seed", "round", "checkpoint", "layer", "total", "kept", "density", "effective",
          "outputs", "dead_outputs", "inputs", "dead_inputs"]  # fmt: skip
_RUN = [*PLACE[:2], "seed", "round", "target", "density", "effective", "checkpoint", "seconds"]


@dataclass(eq=False)
class Results:
    """Tables of one study.

    Attributes:
        runs: one row per checkpoint: role, recipe, seed, round, target, density, effective, checkpoint, seconds and
            every probe's metrics as `<probe>.<metric>`.
        drift: one row per checkpoint, measure and subset (`all`, `both_right`), against the dense network of its seed.
        floor: the same between dense networks that differ only in seed.
        pooled: means over seeds with t intervals, the floor and the verdict.
        history: one row per epoch.
        layers: one row per pruned layer (not biases and norms) and checkpoint: weights (total, kept, density),
            `effective` density (NaN in older stores), outputs (filters) and inputs, and how many of them have no kept
            weight.
        problems: sentences about what is missing or failed.
    """

    study: Study
    store: Store
    data: dict[str, Any]
    points: list[Point]
    runs: pd.DataFrame
    drift: pd.DataFrame
    floor: pd.DataFrame
    pooled: pd.DataFrame
    history: pd.DataFrame
    layers: pd.DataFrame
    problems: list[str] = field(default_factory=list)

    def record(self, point: Point, probe: str) -> Record:
        """The record of one probe on the checkpoint of a point."""
        return load_record(self.store.path(point.probes[probe]))

    def pictures(self) -> dict[str, np.ndarray[Any, Any]]:
        """Test images kept for the gallery: ids (n,), labels (n,), images uint8 (n, C, H, W)."""
        with np.load(self.store.path(_data_folder(self.store)) / "pictures.npz", allow_pickle=False) as file:
            return {name: file[name] for name in file.files}


#: {checkpoint's folder: its checkpoint.json}.
Facts = Mapping[str, Mapping[str, Any]]


def results(root: Path) -> Results:
    """Read a study's folder and compute every drift. Cells that are not done are left out and told in `problems`.

    Raises:
        PrunescopeError: no study there, or nothing of it is done yet.
    """
    study, points, pairs = read_folder(root)
    store = Store(root)
    load = lru_cache(maxsize=256)(lambda folder: load_record(store.path(folder)))
    done = [point for point in points if _complete(store, point)]
    data = store.json(_data_folder(store), "data.json")
    facts = {point.checkpoint: store.json(point.checkpoint, "checkpoint.json") for point in done}
    drifts = _frame(row for p in done if p.role != "dense" for row in _rows(study, load, p))
    floors = _frame(row for p in pairs if _complete(store, p) for row in _rows(study, load, p))
    return Results(
        study=study, store=store, data=data, points=done,
        runs=pd.DataFrame([_run(store, facts, load, p) for p in done] or None, columns=None if done else _RUN),
        drift=drifts, floor=floors, pooled=_pooled(drifts, floors),
        history=_history(facts, done), layers=_layers(store, facts, done),
        problems=_problems(study, store, points, done),
    )  # fmt: skip


def _data_folder(store: Store) -> str:
    folders = sorted(path.name for path in store.cells.glob("data-*"))
    if not folders:
        raise PrunescopeError(f"nothing is done yet in {store.root}: run the study first")
    return folders[-1]


def _complete(store: Store, point: Point) -> bool:
    folders = [point.checkpoint, *point.probes.values(), *point.reference_probes.values()]
    return all(store.has(folder) for folder in folders)


def _place(point: Point) -> dict[str, Any]:
    return {"role": point.role, "recipe": point.recipe, "seed": point.seed, "round": point.round}


def _run(store: Store, facts: Facts, load: Any, point: Point) -> dict[str, Any]:
    info = facts[point.checkpoint].get("info", {})
    row = {
        **_place(point), "target": point.density, "density": info.get("density", 1.0),
        "effective": info.get("effective_density", 1.0), "checkpoint": point.checkpoint,
        "seconds": store.provenance(point.checkpoint).get("seconds", np.nan),
    }  # fmt: skip
    for key, folder in point.probes.items():
        row |= {f"{key}.{name}": value for name, value in load(folder).metrics.items()}
    return row


def _rows(study: Study, load: Any, point: Point) -> list[dict[str, Any]]:
    """Every measure of a point against its reference."""
    distances = {key: dict(probe.distances) for key, probe in study.probes.items()}
    found: list[DriftRow] = drift(
        {key: load(folder) for key, folder in point.reference_probes.items()},
        {key: load(folder) for key, folder in point.probes.items()},
        distances,
        same_start=point.role not in ("dense", "reinit"),
        seed=derive(0, "drift"),
    )
    return [
        {
            **_place(point), "density": point.density, "probe": row.probe, "array": row.array,
            "distance": row.distance, "subset": row.subset, "title": row.title, "value": row.estimate.value,
            "low": row.estimate.low, "high": row.estimate.high, "n": row.estimate.n, "dropped": row.estimate.dropped,
            "unit": row.estimate.unit, "higher_is_better": row.estimate.higher_is_better,
        }
        for row in found
    ]  # fmt: skip


def _frame(rows: Iterable[dict[str, Any]]) -> pd.DataFrame:
    columns = [*PLACE[:2], "seed", "round", "density", *MEASURE, "title", "value", "low", "high", "n", "dropped",
               "unit", "higher_is_better"]  # fmt: skip
    return pd.DataFrame(list(rows), columns=columns)


def _pooled(drifts: pd.DataFrame, floors: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds beside the floor of the same measure; the spread between seeds is pooled over the rounds."""
    floor = {
        key: noise_floor(group["value"].to_numpy(), higher_is_better=group["higher_is_better"].iloc[0])
        for key, group in floors.groupby(MEASURE, sort=False, dropna=False)
    }
    spread = {
        key: pooled_spread([runs["value"].to_numpy() for _, runs in group.groupby("round")])
        for key, group in drifts.groupby([*PLACE[:2], *MEASURE], sort=False, dropna=False)
    }
    rows = []
    for key, group in drifts.groupby([*PLACE, *MEASURE], sort=False, dropna=False):
        measure = key[len(PLACE) :]
        first = group.iloc[0]
        between = spread[(*key[:2], *measure)]
        estimate = over_seeds(group["value"].to_numpy(), floor=floor.get(measure), spread=between)
        low, high = estimate.floor or (np.nan, np.nan)
        rows.append(
            {
                **dict(zip([*PLACE, *MEASURE], key, strict=True)), "density": first["density"],
                "title": first["title"], "value": estimate.value, "low": estimate.low, "high": estimate.high,
                "seeds": len(group), "floor_low": low, "floor_high": high, "unit": first["unit"],
                "higher_is_better": first["higher_is_better"],
                "verdict": verdict(estimate, higher_is_better=first["higher_is_better"]),
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def _history(facts: Facts, points: list[Point]) -> pd.DataFrame:
    rows = []
    for point in points:
        rows += [{**_place(point), **entry} for entry in facts[point.checkpoint].get("history", [])]
    return pd.DataFrame(rows)


def _layers(store: Store, facts: Facts, points: list[Point]) -> pd.DataFrame:
    rows = []
    for point in points:
        effective = facts[point.checkpoint].get("info", {}).get("effective_densities", {})
        rows += [
            {**_place(point), "checkpoint": point.checkpoint, **row, "effective": effective.get(row["layer"], np.nan)}
            for row in layer_table(read_mask(store.path(point.checkpoint)) or Mask({}))
            if len(row["shape"]) > 1  # biases and norms go with their channels
        ]
    return pd.DataFrame(rows, columns=_LAYER)


def _problems(study: Study, store: Store, points: list[Point], done: list[Point]) -> list[str]:
    found = [f"Failed: {why.strip().splitlines()[-1]}" for why in store.failures().values()]
    if len(done) < len(points):
        found.append(f"{len(points) - len(done)} of {len(points)} checkpoints are not complete and are left out.")
    if len(study.seeds.dense) < 3:
        found.append("Fewer than three dense seeds: the noise floor is missing or rests on a single pair.")
    roles: set[str] = {point.role for point in points}
    if any(recipe.schedule.density == 1 for recipe in study.recipes):
        roles.add("dense-control")
    if any(recipe.criterion.name == "random" for recipe in study.recipes):
        roles.add("random")
    for role, name in (("random", "random-mask control"), ("dense-control", "retrained dense control")):
        if study.recipes and role not in roles:
            found.append(f"There is no {name}: what pruning did cannot be told from what retraining did.")
    return found
