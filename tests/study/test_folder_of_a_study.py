"""A study folder may grow; it may not become another study."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from samples import tiny

from prunescope.core.errors import PrunescopeError
from prunescope.study.config import read_study
from prunescope.study.folder import open_folder, read_folder
from prunescope.study.plan import make_plan


def plan(**changes: Any) -> Any:
    return make_plan(read_study(tiny(**changes)))


def begun(root: Path) -> Path:
    """A study folder of which one cell is computed."""
    open_folder(root, plan())
    (root / "cells" / "data-0").mkdir(parents=True)
    (root / "cells" / "data-0" / "cell.json").write_text("{}")
    return root


def test_what_is_opened_can_be_read(tmp_path: Path) -> None:
    root = tmp_path / "study"
    open_folder(root, plan())
    study, points, floor = read_folder(root)
    assert study == read_study(tiny())
    assert points == plan().points
    assert floor == plan().floor


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"execution": {"threads": 2}},
        {"data": {**tiny()["data"], "cache": "/elsewhere"}},
        {"probes": ["performance", "gradcam", "concepts"]},
        {"seeds": {"dense": [0, 1, 2], "tickets": [0, 1]}},
        {"recipes": [*tiny()["recipes"], {"name": "more"}]},
    ],
)
def test_the_same_study_may_grow(tmp_path: Path, change: dict[str, Any]) -> None:
    open_folder(begun(tmp_path / "study"), plan(**change))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"training": {**tiny()["training"], "lr": 0.5}}, "training.lr: 0.05 there, 0.5 here"),
        (
            {"training": {k: v for k, v in tiny()["training"].items() if k != "lr"}},
            "training.lr: 0.05 there, default here",
        ),
        ({"model": "small_cnn"}, "model.name"),
        ({"data": {**tiny()["data"], "size": 20}}, "data.size: 16 there, 20 here"),
        ({"recipes": [{**tiny()["recipes"][0], "scope": "layer"}]}, "recipes.late.scope"),
        ({"seeds": {"dense": [1, 2], "tickets": [1]}}, "seeds.dense"),
        ({"recipes": []}, "recipes.late"),
    ],
)
def test_another_study_is_refused_and_told_what_differs(tmp_path: Path, change: dict[str, Any], named: str) -> None:
    begun(tmp_path / "study")
    before = (tmp_path / "study" / "study.yaml").read_bytes()
    with pytest.raises(PrunescopeError) as caught:
        open_folder(tmp_path / "study", plan(**change))
    assert named in str(caught.value)
    assert (tmp_path / "study" / "study.yaml").read_bytes() == before


def test_a_first_try_that_computed_nothing_may_be_corrected(tmp_path: Path) -> None:
    open_folder(tmp_path / "study", plan(model="small_cnn"))
    open_folder(tmp_path / "study", plan())
    assert read_folder(tmp_path / "study")[0] == read_study(tiny())


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("...")
    with pytest.raises(PrunescopeError, match="not a study folder"):
        open_folder(tmp_path, plan())


def test_no_study_and_a_damaged_plan_are_named(tmp_path: Path) -> None:
    with pytest.raises(PrunescopeError, match="no study in"):
        read_folder(tmp_path)
    open_folder(tmp_path / "study", plan())
    for damage in (b"{", b"{}", b"\x81\xff"):
        (tmp_path / "study" / "plan.json").write_bytes(damage)
        with pytest.raises(PrunescopeError, match=r"plan\.json is damaged.*run the study again"):
            read_folder(tmp_path / "study")


@pytest.mark.parametrize("damage", [b"\x81\xff", b"[", b"- a list"])
def test_a_damaged_config_of_a_begun_study_is_refused(tmp_path: Path, damage: bytes) -> None:
    (begun(tmp_path / "study") / "study.yaml").write_bytes(damage)
    with pytest.raises(PrunescopeError, match=r"study\.yaml is (damaged|not valid YAML)"):
        open_folder(tmp_path / "study", plan())
