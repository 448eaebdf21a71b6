"""study.yaml: read, overridden, written back, and refused with every mistake named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from samples import tiny

from prunescope.core.errors import PrunescopeError
from prunescope.study.config import read_study
from prunescope.study.plan import make_plan
from prunescope.study.study import Controls, Study

ROOT = Path(__file__).parent.parent.parent


def test_what_is_read_is_written_and_read_again() -> None:
    study = read_study(tiny())
    assert read_study(study.as_mapping()) == study
    assert yaml.safe_load(yaml.safe_dump(study.as_mapping())) == study.as_mapping()


@pytest.mark.parametrize("path", [*sorted((ROOT / "examples").glob("*.yaml")), ROOT / "src/prunescope/study/demo.yaml"])
def test_shipped_studies_are_valid(path: Path) -> None:
    study = read_study(path)
    assert read_study(study.as_mapping()) == study
    assert len(study.seeds.dense) >= 3
    uncut = any(recipe.schedule.density == 1 for recipe in study.recipes)
    by_chance = any(recipe.criterion.name == "random" for recipe in study.recipes)
    assert "dense" in study.controls.kinds or uncut
    assert "random" in study.controls.kinds or by_chance


def test_a_recipe_may_set_back_what_the_study_changed() -> None:
    recipe = {"name": "r", "training": {"epochs": 10}}  # 10 is Training's own default, 2 is this study's
    study = read_study(tiny(recipes=[recipe]))
    assert study.recipes[0].training is not None
    assert study.recipes[0].training.epochs == 10
    assert study.recipes[0].training.lr == 0.05
    assert read_study(study.as_mapping()) == study


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"recipies": []}, "unknown key 'recipies' in the study; did you mean 'recipes'?"),
        ({"training": {"epochs": "many"}}, "training.epochs: input should be a valid number"),
        ({"training": {"learning_rate": 1}}, "training.learning_rate: unknown key"),
        ({"training": [1]}, "training: expected a mapping"),
        ({"recipes": {"name": "r"}}, "recipes: expected a list"),
        ({"recipes": ["r"]}, "recipes[0]: expected a mapping"),
        ({"recipes": [{"name": "r", "criterion": "magnitud"}]}, "did you mean 'magnitude'?"),
        ({"recipes": [{"name": "r", "schedule": {"densty": 0.1}}]}, "did you mean 'density'?"),
        ({"recipes": [{"name": "r", "rewind": {"to": "back"}}]}, "recipes[0].rewind.to"),
        ({"recipes": [{"name": "r"}, {"name": "r"}]}, "the name 'r' is used twice"),
        ({"recipes": [{"name": "r", "schedule": {"density": 0}}]}, "recipes[0].schedule: density is the share"),
        ({"recipes": [{"name": "r", "schedule": {"density": 1.5}}]}, "above 0 and at most 1, got 1.5"),
        ({"recipes": [{"name": "r", "epochs_per_round": [2]}]}, "recipes[0]: epochs_per_round names 1 retrainings"),
        (
            {"recipes": [{"name": "r", "schedule": {"rounds": 2}, "epochs_per_round": [2, 1]}]},
            "recipes[0]: rewinding at 1ep leaves nothing to train: the training has 1 epochs",
        ),
        (
            {"recipes": [{"name": "r", "schedule": {"rounds": 2}, "epochs_per_round": [2, -1]}]},
            "recipes[0]: epochs must be above 0",
        ),
        (
            {"recipes": [{"name": "r", "schedule": {"kind": "cubic", "every": "0it"}}]},
            "schedule: every must be above 0",
        ),
        ({"recipes": [{"name": "r", "schedule": {"kind": "cubic", "end": "1ep"}}]}, "recipes[0]: from 1ep to 1ep"),
        ({"recipes": [{"name": "r", "regrow": {"by": "gradiant"}}]}, "recipes[0].regrow.by"),
        ({"recipes": [{"name": "r", "regrow": {}, "granularity": "kernel"}]}, "regrow exchanges single weights"),
        ({"recipes": [{"name": "r", "distill": {"weight": 2}}]}, "recipes[0].distill: weight is the share"),
        (
            {"recipes": [{"name": "r", "schedule": {"kind": "one-shot", "when": "before-training"}}]},
            "write rewind: {to: init}, not late",
        ),
        ({"probes": ["gradcamm"]}, "did you mean 'gradcam'?"),
        ({"probes": ["gradcam", "gradcam"]}, "listed twice"),
        ({"seeds": {"dense": [0], "tickets": [1]}}, "must be among the dense seeds"),
        ({"controls": {"recipes": ["lat"]}}, "did you mean 'late'?"),
        ({"controls": ["randm"]}, "controls.kinds[0]"),
        ({"name": "a/b"}, "name: expected a word"),
        ({"execution": {"threads": 0}}, "execution: threads"),
        ({"data": 7}, "data: expected a name"),
    ],
)
def test_mistakes_are_named(change: dict[str, Any], expected: str) -> None:
    with pytest.raises(PrunescopeError) as caught:
        read_study(tiny(**change))
    assert expected in str(caught.value)


def test_all_mistakes_at_once() -> None:
    with pytest.raises(PrunescopeError) as caught:
        read_study(tiny(training={"lr": "fast"}, probes=["gradcamm"], recipies=[]))
    assert len(str(caught.value).splitlines()) == 3


@pytest.mark.parametrize("text", ["", "- a\n- b", "name: [", "just words"])
def test_what_is_no_study_is_refused(text: str) -> None:
    with pytest.raises(PrunescopeError):
        read_study(text)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PrunescopeError, match=r"no study file at .*x\.yaml"):
        read_study(tmp_path / "x.yaml")


def test_yaml_cannot_run_code() -> None:
    with pytest.raises(PrunescopeError, match="not valid YAML"):
        read_study("name: !!python/object/apply:os.system ['true']")


def test_overrides() -> None:
    study = read_study(
        tiny(), ["data.root=/x", "training.lr=0.5", "recipes.0.schedule.rounds=1", "model.width=3", "seeds.tickets=[]"]
    )
    assert study.data["root"] == "/x"
    assert study.training.lr == 0.5
    assert study.recipes[0].schedule.rounds == 1
    assert study.model == {"name": "tests.study.nets:little", "width": 3}
    assert study.seeds.tickets == ()


@pytest.mark.parametrize(
    "text", ["data.root", "=3", "recipes.9.name=x", "recipes.x=1", "name.sub.x=1", "seeds.dense.x.y=1"]
)
def test_impossible_overrides_are_refused(text: str) -> None:
    with pytest.raises(PrunescopeError):
        read_study(tiny(), [text])


@pytest.mark.parametrize(
    ("given", "dense", "tickets"),
    [
        (3, (0, 1, 2), (0, 1)),
        ([5, 6], (5, 6), (5, 6)),
        ({"dense": 4, "tickets": 1}, (0, 1, 2, 3), (0,)),
        (1, (0,), (0,)),
    ],
)
def test_ways_to_give_seeds(given: Any, dense: tuple[int, ...], tickets: tuple[int, ...]) -> None:
    study = read_study(tiny(seeds=given))
    assert (study.seeds.dense, study.seeds.tickets) == (dense, tickets)


@pytest.mark.parametrize(("given", "kinds"), [("none", ()), (["reinit"], ("reinit",)), ({}, Controls().kinds)])
def test_ways_to_give_controls(given: Any, kinds: tuple[str, ...]) -> None:
    assert read_study(tiny(controls=given)).controls.kinds == kinds


def test_performance_is_always_measured() -> None:
    study: Study = read_study(tiny(probes=["gradcam"]))
    assert list(study.probes) == ["performance", "gradcam"]


@pytest.mark.parametrize("spec", ["filter", {"name": "block", "rows": 2, "columns": 2}])
def test_granularity_is_read_written_and_part_of_a_cut_s_key(spec: Any) -> None:
    recipe = {**tiny()["recipes"][0], "granularity": spec}
    study = read_study(tiny(recipes=[recipe]))
    assert study.recipes[0].granularity.name in ("filter", "block")
    assert read_study(study.as_mapping()) == study
    keys, before = (
        {cell.key for cell in make_plan(item).cells.values() if cell.kind == "prune"}
        for item in (study, read_study(tiny()))
    )
    assert not keys & before


def test_a_granularity_that_cannot_reach_the_densities_is_refused() -> None:
    with pytest.raises(PrunescopeError, match=r"recipes\[0\].*density: 0.5, kind: one-shot"):
        read_study(tiny(recipes=[{**tiny()["recipes"][0], "granularity": "n:m"}]))


def test_a_combination_that_makes_no_sense_is_refused_where_it_stands() -> None:
    with pytest.raises(PrunescopeError, match=r"recipes\[0\].*'fpgm' scores whole filters.*write granularity: filter"):
        read_study(tiny(recipes=[{**tiny()["recipes"][0], "criterion": "fpgm"}]))
