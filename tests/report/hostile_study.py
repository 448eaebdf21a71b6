"""A tiny study whose every name tries to break out of the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prunescope.study.config import read_study
from prunescope.study.execute import execute
from prunescope.study.folder import open_folder
from prunescope.study.plan import make_plan

RECIPE = "<script>alert('late')</script>"


def study(**changes: Any) -> dict[str, Any]:
    """A study of 16-pixel images that trains in well under a second a cell."""
    made: dict[str, Any] = {
        "name": "<i>tiny & mean</i>".replace("/", "|"),
        "data": {"name": "tests.report.hostile_data:evil"},
        "model": "tests.study.nets:little",
        "training": {"epochs": 1, "batch_size": 32, "lr": 0.05, "precision": "32"},
        "seeds": {"dense": [0, 1, 2], "tickets": [0, 1]},
        "recipes": [
            {"name": RECIPE, "schedule": {"density": 0.25, "rounds": 2}, "rewind": {"to": "init"}},
            {"name": "once", "schedule": {"density": 0.4, "kind": "one-shot"}, "rewind": {"to": "none"}},
        ],
        "controls": {"kinds": ["random"], "rounds": [2]},
        "probes": ["performance", "gradcam", {"name": "concepts", "min_auroc": 0.5, "bootstrap": 4}],
        "execution": {"device": "cpu"},
    }
    return {**made, **changes}


def run(root: Path, **changes: Any) -> Path:
    """Run it; the folder."""
    plan = make_plan(read_study(study(**changes)))
    open_folder(root, plan)
    outcome = execute(plan, root)
    assert not outcome.failed
    return root
