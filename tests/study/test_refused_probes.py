"""What probes cannot measure is an error of the study's first cell, not of the first trained network."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from samples import tiny

from prunescope.core.errors import PrunescopeError
from prunescope.study.config import read_study
from prunescope.study.execute import execute
from prunescope.study.plan import make_plan

BARE = {"name": "tests.study.nets:bare"}


@pytest.mark.parametrize(
    ("data", "probe", "message"),
    [
        (BARE, "dissection", "dissection needs labels of pixels, and split 'test' has none"),
        (BARE, "tcav", "probe 'tcav' needs concept labels, and data 'bare' has none"),
        ({}, {"name": "mis", "split": "val", "tasks": 20}, r"need 2 N \(K \+ 1\) = 400 images, the split has 64"),
        ({}, {"name": "tcav", "layers": ["nowhere"]}, "nowhere"),
        ({}, {"name": "tcav", "layers": ["head:input"]}, "name a layer with a non-linearity behind it"),
        ({}, {"name": "tcav", "concepts": ["reddish"]}, "unknown concept 'reddish' in tcav"),
        ({}, {"name": "car", "layers": ["nowhere"]}, "nowhere"),
        ({}, {"name": "attribution", "as": "maps", "method": {"name": "saliency"}}, "captum"),
        ({}, {"name": "mis", "similarity": "lpips"}, "lpips"),
        ({}, {"name": "sanity", "method": {"name": "gradcam", "layer": "nowhere"}}, "nowhere"),
    ],
)
def test_what_probes_cannot_measure_is_refused_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: dict[str, Any], probe: object, message: str
) -> None:
    for package in ("captum", "captum.attr", "lpips"):
        monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    study = tiny(probes=[probe], **({"data": data} if data else {}))
    with pytest.raises(PrunescopeError, match=message):
        execute(make_plan(read_study(study)), tmp_path)
    assert not list((tmp_path / "cells").glob("train*"))
