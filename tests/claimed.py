"""Results of studies that never ran: tables of runs with planted truths."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from prunescope.study.config import read_study
from prunescope.study.results import MEASURE, Results
from prunescope.study.store import Store

RATES = (0.2, 0.5, 0.8)
MAPS = "gradcam/image.reference/spearman/both_right"


def study(**changes: Any) -> dict[str, Any]:
    """Weights and filters at three rates, a control that cuts nothing, and three seeds."""
    cut = {"schedule": {"kind": "one-shot", "each": [1 - rate for rate in RATES]}, "rewind": {"to": "none"}}
    made: dict[str, Any] = {
        "name": "claimed", "data": "shapes", "model": "small_cnn", "seeds": 3, "controls": ["unretrained"],
        "recipes": [
            {"name": "weights", **cut}, {"name": "<filters>", "granularity": "filter", **cut},
            {"name": "nothing", "schedule": {"density": 1}, "rewind": {"to": "none"}},
        ],
        "probes": ["performance", "gradcam", "mis"],
    }  # fmt: skip
    return {**made, **changes}


def results_of(root: Path, *, seeds: int = 3, noise: float = 0.001, drift: float = 0.0, **changes: Any) -> Results:
    """Planted: filters lose 0.1 accuracy at every rate, weights nothing; MIS falls by 0.05 from rate 0.2 to 0.8 in
    both, from another level; heat maps move by `drift` more than the control's."""
    rng = np.random.default_rng(0)
    rows = [("dense", "", s, 0, 1.0, 0.9, 0.6) for s in range(seeds)]
    rows += [("ticket", "nothing", s, 1, 1.0, 0.9, 0.6) for s in range(seeds)]
    for role in ("ticket", "unretrained"):
        for recipe, lost, level in (("weights", 0.0, 0.6), ("<filters>", 0.1, 0.7)):
            for number, rate in enumerate(RATES, start=1):
                mis = level - 0.05 * (rate - 0.2) / 0.6
                rows += [(role, recipe, s, number, 1 - rate, 0.9 - lost, mis) for s in range(seeds)]
    names = ["role", "recipe", "seed", "round", "target", "performance.top1", "mis.mis"]
    runs = pd.DataFrame(rows, columns=names)
    for column in names[-2:]:
        runs[column] += rng.normal(0, noise, len(runs)) + 0.01 * runs["seed"]
    runs["density"], runs["checkpoint"] = runs["target"], "x"
    moved = runs[(runs["role"] == "ticket")].copy()
    moved["value"] = 0.8 - drift * (moved["recipe"] != "nothing") + rng.normal(0, noise, len(moved))
    for column, part in zip(MEASURE, MAPS.split("/"), strict=True):
        moved[column] = part
    moved["title"] = "rank correlation of heat maps"
    empty = pd.DataFrame()
    return Results(
        study=read_study(study(**changes)), store=Store(root), data={}, points=[], runs=runs, drift=moved,
        floor=empty, pooled=empty, history=empty, layers=empty,
    )  # fmt: skip
