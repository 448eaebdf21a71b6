"""The probe `similarity` from YAML to page: drift with an interval and a floor, and a heading."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hostile_study import RECIPE, run

from prunescope.report.build import render
from prunescope.study.results import results


def test_a_study_compares_features_with_the_floor(tmp_path: Path) -> None:
    recipes = [{"name": RECIPE, "schedule": {"density": 0.3, "kind": "one-shot"}, "rewind": {"to": "none"}}]
    root = run(tmp_path / "study", probes=["performance", "similarity"], recipes=recipes, controls="none")
    found = results(root)
    rows = found.pooled[(found.pooled["probe"] == "similarity") & (found.pooled["recipe"] == RECIPE)]
    assert set(rows["distance"]) == {"cka"}
    assert set(rows["subset"]) == {"all", "both_right"}
    rows = rows[rows["subset"] == "all"]  # too few images are right in both of the dense networks
    assert np.isfinite(rows[["value", "floor_low", "floor_high"]].to_numpy(dtype=float)).all()
    assert "Features of layers" in render(found)
