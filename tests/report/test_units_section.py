"""The section on units: what the probe `car` recorded, layer by layer and class by class, beside the dense networks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hostile_study import RECIPE, run

from prunescope.report.beside import UnitView
from prunescope.report.build import render
from prunescope.report.digest import digest
from prunescope.report.heat import HeatTable
from prunescope.report.measures import headlines
from prunescope.report.places import dense_points, percent, tickets
from prunescope.report.tables import tables
from prunescope.report.unit_views import unit_views
from prunescope.study.plan import Point
from prunescope.study.results import Results, results

UNIT_BY_UNIT = {"order", "top_tenth"}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Results:
    probes = ["performance", {"name": "car", "images": 20}, {"name": "car", "as": "<again>", "images": 12}]
    recipes = [
        {"name": RECIPE, "granularity": "filter", "schedule": {"density": 0.3, "rounds": 2}, "rewind": {"to": "init"}},
        {"name": "once", "schedule": {"density": 0.4, "kind": "one-shot"}, "rewind": {"to": "none"}},
    ]
    controls = {"kinds": ["reinit", "dense"], "rounds": [2]}
    root = run(tmp_path_factory.mktemp("units") / "study", probes=probes, recipes=recipes, controls=controls)
    return results(root)


def view(found: Results, title: str = RECIPE) -> UnitView:
    return next(item for item in unit_views(found) if item.recipe == title)


def table(found: Results, title: str, recipe: str = RECIPE) -> HeatTable:
    return next(item for item in view(found, recipe).tables if item.title == f"{title}, {recipe}")


def living(found: Results, point: Point, layer: str) -> np.ndarray:
    """CAR of the layer's living units, by a loop."""
    record, values, row = found.record(point, "car"), [], 0
    for name, count in record.info["layers"].items():
        for _ in range(count):
            if name == layer and not record.arrays["unit.dead"][row]:
                values.append(record.arrays["unit.car"][row])
            row += 1
    return np.array(values)


def test_a_view_per_probe_and_recipe(found: Results) -> None:
    assert [item.recipe for item in unit_views(found)] == [RECIPE, "once", f"{RECIPE} (<again>)", "once (<again>)"]
    assert table(found, "Mean CAR of a layer's units").columns == ("dense", "54.8\u00a0%", "30\u00a0%")


def test_layers_are_means_over_seeds_with_the_dense_range(found: Results) -> None:
    for name, cells in table(found, "Mean CAR of a layer's units").rows:
        for number, cell in enumerate(cells):
            points = dense_points(found) if not number else [p for p in tickets(found, RECIPE) if p.round == number]
            means = [living(found, point, name).mean() for point in points if len(living(found, point, name))]
            expected = percent(float(np.mean(means))) if means else "–"
            if not number and np.ptp(means):
                expected += f" ({percent(min(means))} to {percent(max(means))})"
            assert cell.text == expected


def test_pruned_units_are_counted_apart(found: Results) -> None:
    rows = dict(table(found, "Units that are pruned away").rows)
    for name, cells in rows.items():
        points = [point for point in tickets(found, RECIPE) if point.round == 2]
        counts = [found.record(point, "car").info["layers"][name] for point in points]
        gone = [1 - len(living(found, point, name)) / n for point, n in zip(points, counts, strict=True)]
        assert cells[2].text == percent(float(np.mean(gone)))
        assert cells[0].text == percent(0)
    assert any(cells[2].text != percent(0) for cells in rows.values())
    assert not [item for item in view(found, "once").tables if item.title.startswith("Units that are pruned away")]


def test_classes_are_means_over_living_units(found: Results) -> None:
    rows = dict(table(found, "What a class loses without a unit", "once").rows)
    means: dict[str, list[float]] = {name: [] for name in rows}
    for point in tickets(found, "once"):
        record = found.record(point, "car")
        for k, name in enumerate(record.info["classes"]):
            net = (record.arrays["unit.losses"] - record.arrays["unit.gains"])[~record.arrays["unit.dead"], k]
            means[name].append(float(net.mean() / record.arrays["class.count"][k]))
    assert {name: cells[1].text for name, cells in rows.items()} == {
        name: percent(float(np.mean(values))) for name, values in means.items()
    }


def test_units_are_paired_only_where_networks_began_alike(found: Results) -> None:
    mine = found.drift[found.drift["probe"] == "car"]
    paired = mine[mine["distance"].isin(UNIT_BY_UNIT)]
    assert set(paired["role"]) == {"ticket", "dense-control"}
    assert set(mine["role"]) == {"ticket", "dense-control", "reinit"}
    assert not set(found.floor["distance"]) & UNIT_BY_UNIT
    assert {"wasserstein", "share", "profile", "overlap"} <= set(found.floor["distance"])
    judged = found.pooled[found.pooled["distance"].isin(UNIT_BY_UNIT)]
    assert set(judged["verdict"]) == {"no floor"}
    assert not [item for item in headlines(found) if item.probe == "car"]


def test_words_say_what_the_tables_say(found: Results) -> None:
    words = view(found).words
    assert "measured on 20 test images" in words[0]
    assert words[-1].startswith("Drift from the dense network at 30\u00a0%. ")
    for recipe in (RECIPE, "once"):
        told = found.pooled[(found.pooled["recipe"] == recipe) & (found.pooled["role"] == "ticket")]
        told = told[(told["distance"] == "order") & (told["probe"] == "car")].sort_values("round")
        known = bool(np.isfinite(told["value"].iloc[-1]))  # there is none where no unit matters any more
        kind = "unit by unit, for which other seeds are no measure: " if known else "with nothing to compare: "
        assert "order of a layer's units" in view(found, recipe).words[-1].lower().split(kind)[1]
    dense = [[living(found, p, n) for n in found.record(p, "car").info["layers"]] for p in dense_points(found)]
    means = [float(np.concatenate(parts).mean()) for parts in dense]
    assert f"(dense: {percent(min(means))} to {percent(max(means))})" in words[0]
    drift = view(found).drift
    assert drift is not None
    assert {line.figure.split("/")[1] for line in drift.lines} == {"car"}
    assert len({line.title for line in drift.lines}) == 6


def test_the_page_and_the_digest_have_it_once(found: Results) -> None:
    page, text = render(found), digest(found)
    assert page.count('<section id="units"') == page.count('href="#units"') == 1
    assert "(&lt;again&gt;)" in page
    assert page.count("Drift of CAR from the dense network") == 4
    assert text.count("## Which units matter, ") == 4
    assert " ".join(view(found, "once").words[0].split()) in text


def test_the_files_hold_every_checkpoint(found: Results) -> None:
    made = tables(found)
    layers, classes = made["unit_layers"], made["unit_classes"]
    assert len(layers) == len(found.points) * 2 * len(found.record(found.points[0], "car").info["layers"])
    assert len(classes) == len(found.points) * 2 * len(found.data["classes"])
    first = layers[(layers["checkpoint"] == found.points[0].checkpoint) & (layers["probe"] == "car")]
    for row in first.itertuples():
        assert row.car == pytest.approx(living(found, found.points[0], row.layer).mean())


def test_without_the_probe_there_is_no_section(finished: Path) -> None:
    plain = results(finished)
    assert unit_views(plain) == []
    assert 'id="units"' not in render(plain)
    assert "Which units matter" not in digest(plain)
    assert tables(plain)["unit_layers"].empty
