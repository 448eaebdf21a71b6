"""The sections on readable units, selectivity and similarity: what the records say, beside loops over them."""

from __future__ import annotations

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile_nets import IMAGE, LAYER
from hostile_study import RECIPE, run

from prunescope.core.types import Record
from prunescope.metrics.similarity import cka
from prunescope.report.build import render
from prunescope.report.digest import digest
from prunescope.report.game import game
from prunescope.report.heat import HeatTable
from prunescope.report.places import dense_points, number, percent, tickets
from prunescope.report.readable import ReadableView, readable_views
from prunescope.report.representations import selectivity_views, similarity_views
from prunescope.report.tables import tables
from prunescope.study.plan import Point
from prunescope.study.results import Results, results

JUDGES = {"similarity": "colour", "second": {"name": "random", "width": 8}, "controls": ["label"]}


@pytest.fixture(scope="module")
def found(readable: Path) -> Results:
    return results(readable)


def view(found: Results, title: str = RECIPE) -> ReadableView:
    return next(item for item in readable_views(found) if item.title == title)


def table(tables: tuple[HeatTable, ...], title: str) -> dict[str, tuple[str, ...]]:
    shown = next(item for item in tables if item.title.startswith(title))
    return {name: tuple(cell.text for cell in cells) for name, cells in shown.rows}


def values(record: Record, layer: str, array: str) -> np.ndarray:
    """A layer's rows, by a loop."""
    start = 0
    for name, count in record.info["layers"].items():
        if name == layer:
            return record.arrays[array][start : start + count]
        start += count
    raise AssertionError(layer)


def mean(numbers: Any) -> float:
    """Of what is known; NaN of nothing."""
    known = np.asarray(numbers, dtype=float)
    known = known[np.isfinite(known)]
    return float(known.mean()) if len(known) else float("nan")


def last(found: Results, recipe: str) -> list[Point]:
    points = tickets(found, recipe)
    return [point for point in points if point.round == max(p.round for p in points)]


def test_layers_are_means_of_scored_units_over_seeds_with_the_dense_range(found: Results) -> None:
    shown = table(view(found).tables, "MIS of a layer")
    assert list(shown) == [IMAGE, LAYER, "head"]
    for layer, cells in shown.items():
        means = [float(np.nanmean(values(found.record(p, "mis"), layer, "unit.mis"))) for p in dense_points(found)]
        assert cells[0] == f"{number(np.mean(means))} ({number(min(means))} to {number(max(means))})"
        scores = [mean(values(found.record(p, "mis"), layer, "unit.mis")) for p in last(found, RECIPE)]
        assert cells[-1] == number(mean(scores))


def test_units_without_a_score_are_counted_apart(found: Results) -> None:
    shown = table(view(found, "filters").tables, "Units without a score")
    for layer, cells in shown.items():
        shares = [
            float(np.mean(values(record, layer, "unit.dead") | values(record, layer, "unit.tied")))
            for record in (found.record(point, "mis") for point in last(found, "filters"))
        ]
        assert cells[-1] == percent(float(np.mean(shares)))
    assert any(cells[-1] != percent(0) for cells in shown.values())  # whole filters were cut
    record = found.record(last(found, "filters")[0], "mis")
    assert np.isnan(record.arrays["unit.mis"][record.arrays["unit.dead"]]).all()


def test_the_change_is_paired_over_units_that_have_a_score_in_both(found: Results) -> None:
    shown = table(view(found, "filters").tables, "Units that have a score in both")
    for layer, cells in shown.items():
        changes = []
        for point in last(found, "filters"):
            dense = next(p for p in dense_points(found) if p.seed == point.seed)
            before, after = (values(found.record(p, "mis"), layer, "unit.mis") for p in (dense, point))
            changes.append(mean(after - before))
        assert cells == ("–", number(mean(changes)))


def test_alpha_is_that_of_the_first_dense_network_everywhere(found: Results) -> None:
    alphas = {(found.record(p, "mis").info["alpha"], found.record(p, "mis").info["alpha_second"]) for p in found.points}
    assert len(alphas) == 1
    first = next(p for p in dense_points(found) if p.seed == 0)
    assert found.record(first, "mis").metrics["logit_sd"] == pytest.approx(2.2)
    (alpha, second) = alphas.pop()
    told = " ".join(view(found).words)
    assert f"Alpha: {number(alpha)} for colour, {number(second)} for random (width 8)" in told


def test_words_say_what_was_measured(found: Results) -> None:
    told = " ".join(view(found).words)
    runs = found.runs
    now = runs[(runs["recipe"] == RECIPE) & (runs["round"] == 2)]["mis.accuracy"].mean()
    dense = runs[runs["role"] == "dense"]["mis.accuracy"]
    assert f"the judge gets {percent(now)} of the units’ tasks right" in told
    assert f"(dense: {percent(dense.min())} to {percent(dense.max())}; chance: 50\u00a0%)" in told
    assert "class labels alone" in told
    assert "N = 12 of K = 9 references a side" in told
    assert "of 240 train images" in told
    assert "That is a large share" in told
    drift = view(found).drift
    assert drift is not None
    assert {line.figure.split("/")[1] for line in drift.lines} == {"mis"}


def test_a_layer_s_boxes_are_quantiles_of_its_units(found: Results) -> None:
    chart = view(found).figures[f"mis/mis/{RECIPE}/conv"]
    boxes = {trace["name"]: trace for trace in chart["data"]}
    assert next(iter(boxes)) == "dense"
    assert "chance" in boxes
    units = np.concatenate([values(found.record(p, "mis"), LAYER, "unit.mis") for p in dense_points(found)])
    expected = np.nanquantile(units, [0.05, 0.25, 0.5, 0.75, 0.95])
    got = [boxes["dense"][name][1] for name in ("lowerfence", "q1", "median", "q3", "upperfence")]
    np.testing.assert_allclose(got, expected)
    assert chart["table"]["rows"][0][:2] == [IMAGE, "dense"]


def test_similarity_is_cka_with_the_dense_network_beside_other_seeds(found: Results) -> None:
    (shown,) = [item for item in similarity_views(found) if item.title == RECIPE]
    rows = {name: tuple(cell.text for cell in cells) for name, cells in shown.tables[0].rows}

    def features(point: Point) -> np.ndarray:
        return found.record(point, "similarity").arrays["image.features"]

    dense = {point.seed: point for point in dense_points(found)}
    pairs = np.array([cka(features(a), features(b)) for a, b in combinations(dense.values(), 2)])
    tickets_ = [cka(features(dense[p.seed]), features(p)) for p in last(found, RECIPE)]
    own = [mean(column) for column in np.transpose(tickets_)]
    for i, cells in enumerate(rows.values()):
        assert cells[-1] == f"{number(pairs[:, i].min())} to {number(pairs[:, i].max())}"
        assert cells[-2] == number(own[i])
    below = [name for i, name in enumerate(rows) if own[i] < pairs[:, i].min()]
    assert f"{', '.join(below) or 'nowhere'}." in shown.words[1]


def test_selectivity_is_the_mean_of_living_units(found: Results) -> None:
    shown = next(item for item in selectivity_views(found) if item.title == "filters")
    assert len(shown.tables) == len(shown.figures) == 2
    rows = table(shown.tables, "Class selectivity of a layer’s units, from class means")
    for layer, cells in rows.items():
        means = [
            mean(values(found.record(p, "selectivity"), layer, "unit.selectivity")) for p in last(found, "filters")
        ]
        assert cells[-1] == number(mean(means))


def test_the_files_hold_every_layer_of_every_checkpoint(found: Results) -> None:
    made = tables(found)
    for name, layers in (("mis_layers", 3), ("selectivity_layers", 2)):
        assert len(made[name]) == len(found.points) * layers
    assert len(made["similarity_layers"]) == (len(found.points) - 3) * len(
        found.record(found.points[0], "similarity").info["layers"]
    )
    row = made["mis_layers"].iloc[0]
    assert row["accuracy"] == pytest.approx(
        np.nanmean(values(found.record(found.points[0], "mis"), IMAGE, "unit.accuracy"))
    )
    assert np.isnan(made["mis_layers"][made["mis_layers"]["role"] == "dense"]["paired_change"]).all()


def test_the_game_s_tasks_are_those_of_the_records(found: Results) -> None:
    made = game(found)
    assert made["networks"] == ["dense", f"{RECIPE}, {percent(0.25)} kept", f"filters, {percent(0.4)} kept"]
    assert len(set(made["pictures"])) <= len(made["pictures"])
    record = found.record(next(p for p in dense_points(found) if p.seed == 0), "mis")
    mine = [task for task in made["tasks"] if task["network"] == 0]
    assert len(mine) == record.arrays["game.margin"].size
    for task, margin in zip(mine, record.arrays["game.margin"].ravel().tolist(), strict=True):
        assert task["machine"] == (0.5 if margin == 0 else float(margin > 0))
        assert task["sure"] == pytest.approx(1 / (1 + np.exp(-record.info["alpha"] * margin)), abs=1e-3)
        assert task["mis"] == pytest.approx(values(record, task["layer"], "unit.mis")[task["unit"]], abs=0.006)
        assert len(task["up"]) == len(task["down"]) == 10
        assert not set(task["up"]) & set(task["down"])
    assert {task["which"] for task in made["tasks"]} == {"best", "median", "worst"}


def test_the_page_and_the_digest_have_them_once_and_escaped(found: Results) -> None:
    page, text = render(found), digest(found)
    for section in ("readable", "representations"):
        assert page.count(f'<section id="{section}"') == page.count(f'href="#{section}"') == 1
    assert page.count('id="game"') == 1
    data = re.search(r'<script type="application/json" id="game-data">(.*?)</script>', page, re.DOTALL)
    assert data is not None
    assert json.loads(data[1])["tasks"] == game(found)["tasks"]
    assert "</script><script>broken" not in page
    assert text.count("## Units a person could read, ") == 2
    assert " ".join(view(found, "filters").words[0].split()) in text


def test_without_pictures_there_is_no_game_and_without_probes_no_section(tmp_path: Path, finished: Path) -> None:
    changes: dict[str, Any] = {"seeds": {"dense": [0], "tickets": [0]}, "controls": "none"}
    changes["recipes"] = [{"name": "one", "schedule": {"density": 0.4, "kind": "one-shot"}, "rewind": {"to": "none"}}]
    probes = ["performance", {"name": "mis", "shown": 0, **JUDGES, "second": None}]
    alone = results(run(tmp_path / "study", probes=probes, **changes))
    page = render(alone)
    assert 'id="readable"' in page
    assert 'id="game' not in page
    assert game(alone) == {}
    assert "second judge (" not in " ".join(readable_views(alone)[0].words)
    plain = results(finished)
    assert readable_views(plain) == similarity_views(plain) == selectivity_views(plain) == []
    assert 'id="readable"' not in render(plain)
    assert "representations" not in render(plain)
    assert tables(plain)["mis_layers"].empty
