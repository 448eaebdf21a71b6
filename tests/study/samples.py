"""Studies small enough to run in a test."""

from __future__ import annotations

from typing import Any


def tiny(**changes: Any) -> dict[str, Any]:
    """A study of a few hundred 16-pixel images that trains in well under a second a cell."""
    study: dict[str, Any] = {
        "name": "tiny",
        "data": {"name": "shapes", "size": 16, "train": 192, "val": 64, "test": 64},
        "model": "tests.study.nets:little",
        "training": {"epochs": 2, "batch_size": 32, "lr": 0.05, "precision": "32"},
        "seeds": {"dense": [0, 1], "tickets": [0]},
        "recipes": [
            {"name": "late", "schedule": {"density": 0.25, "rounds": 2}, "rewind": {"to": "late", "at": "1ep"}},
        ],
        "controls": {"kinds": ["random", "dense"], "rounds": [2]},
        "probes": ["performance", "gradcam"],
        "execution": {"device": "cpu"},
    }
    return {**study, **changes}
