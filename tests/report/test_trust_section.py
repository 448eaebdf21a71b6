"""The section on trust, and heat maps of several probes, from YAML to page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hostile_study import RECIPE, run
from tabs import NEEDED, opened_in, overflow

from prunescope.report.build import build_report, render
from prunescope.report.digest import digest
from prunescope.report.gallery import galleries
from prunescope.report.measures import headlines, measures
from prunescope.report.pictures import heat_uri
from prunescope.report.places import number, percent
from prunescope.report.trust import TrustView, trust_views
from prunescope.study.results import Results, results

PROBES = [
    "performance",
    {"name": "attribution", "as": "<pixels>", "method": "input_x_gradient"},
    {"name": "attribution", "method": "layercam"},
    {"name": "sanity", "method": "saliency", "images": 12, "stages": 3},
    {"name": "sanity", "as": "<edges>", "method": "edges", "images": 12, "stages": 3},
    {"name": "faithfulness", "method": "input_x_gradient", "images": 20, "steps": 4, "shares": [0.3]},
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipes = [{"name": RECIPE, "schedule": {"density": 0.3, "rounds": 2}, "rewind": {"to": "init"}}]
    return run(tmp_path_factory.mktemp("trust") / "study", probes=PROBES, recipes=recipes, controls="none")


@pytest.fixture(scope="module")
def found(root: Path) -> Results:
    return results(root)


def view(found: Results, key: str) -> TrustView:
    return next(item for item in trust_views(found) if any(f"/{key}/" in place for place in item.figures))


def test_two_methods_have_drift_with_interval_and_floor_each(found: Results) -> None:
    for key in ("<pixels>", "attribution"):
        rows = found.pooled[(found.pooled["probe"] == key) & (found.pooled["distance"] == "spearman")]
        rows = rows[(rows["array"] == "image.reference") & (rows["subset"] == "all")]
        assert len(rows) == 2
        assert np.isfinite(rows[["value", "floor_low", "floor_high"]].to_numpy(dtype=float)).all()
    subjects = {item.subject for item in headlines(found) if item.family == "maps"}
    assert subjects == {"heat maps (<pixels>)", "heat maps (attribution)"}


def test_faithfulness_drifts_but_is_no_reason(found: Results) -> None:
    mine = {item.distance for item in measures(found) if item.probe == "faithfulness"}
    assert mine == {"deletion", "insertion", "road"}
    assert not [item for item in headlines(found) if item.probe == "faithfulness"]


def test_words_and_cells_say_what_the_records_say(found: Results) -> None:
    dense = [point for point in found.points if point.role == "dense"]
    last = [point for point in found.points if point.role == "ticket" and point.round == 2]
    edges, saliency, faithful = (view(found, key) for key in ("<edges>", "sanity", "faithfulness"))
    assert "left: the maps hardly hang on the weights" in edges.words[0]
    assert "a rank correlation of 1.000 (1.000 to 1.000) is left" in edges.words[1]
    assert edges.title.endswith("(<edges>)")
    left = np.mean([found.record(point, "sanity").metrics["left"] for point in dense])
    assert f"a rank correlation of {number(float(left))} (" in saliency.words[0]
    assert saliency.table.columns == ("dense", "54.8\u00a0%", "30\u00a0%")
    assert saliency.table.rows[0][1][0].text == number(float(left))
    for row, name in zip(faithful.table.rows, ("deletion", "insertion", "road"), strict=False):
        for cell, points in ((row[1][0], dense), (row[1][-1], last)):
            own, control = (
                np.mean([found.record(point, "faithfulness").metrics[f"{prefix}{name}"] for point in points])
                for prefix in ("", "random.")
            )
            assert cell.text == f"{number(float(own))} ({number(float(control))})"
    assert faithful.table.rows[3][1][0].text == percent(0)
    assert f"the tickets with {percent(0.3)}" in faithful.words[1]
    records = [found.record(point, "faithfulness").arrays for point in dense]
    gain = np.mean([r["image.random.deletion"] - r["image.deletion"] for r in records])
    assert f"deletion by {number(float(gain))} (" in faithful.words[0]


def test_curves_are_means_over_seeds(found: Results) -> None:
    figure = next(iter(view(found, "sanity").figures.values()))
    dense = [found.record(p, "sanity").arrays["stage.cascading"][:, 0] for p in found.points if p.role == "dense"]
    np.testing.assert_allclose(figure["data"][0]["y"], [1.0, *np.mean(dense, axis=0)])
    deletion = view(found, "faithfulness").figures[f"trust/faithfulness/{RECIPE}/deletion"]
    names = [trace["name"] for trace in deletion["data"]]
    assert names == ["dense", "dense, random order", "54.8\u00a0%", "30\u00a0%", "30\u00a0%, random order"]
    curves = [found.record(p, "faithfulness").arrays["curve.deletion"] for p in found.points if p.role == "dense"]
    np.testing.assert_allclose(deletion["data"][0]["y"], np.mean(curves, axis=0))


def test_the_page_the_digest_and_the_tables_hold_it(root: Path, found: Results, tmp_path: Path) -> None:
    page, text = build_report(root, tmp_path / "report.html").read_text(), digest(found)
    assert page.count('<section id="trust"') == page.count('href="#trust"') == 1
    assert "(&lt;edges&gt;)" in page
    assert "<edges>" not in page
    assert text.count("## Can these maps be trusted?") == 3
    table = pd.read_csv(tmp_path / "tables" / "sanity.csv")
    assert len(table) == len(found.points) * 2 * 3
    point = found.points[0]
    mine = table[(table["checkpoint"] == point.checkpoint) & (table["probe"] == "sanity")]
    np.testing.assert_allclose(mine["cascading"], found.record(point, "sanity").arrays["stage.cascading"][:, 0])


@pytest.mark.browser
@NEEDED
def test_a_browser_draws_it(browser: Any, root: Path, tmp_path: Path) -> None:
    tab, wrong = opened_in(
        browser, build_report(root, tmp_path / "report.html"), viewport={"width": 390, "height": 800}
    )
    tab.evaluate("document.getElementById('trust').scrollIntoView()")
    for y in range(0, tab.evaluate("document.documentElement.scrollHeight"), 400):
        tab.evaluate(f"window.scrollTo(0, {y})")
        tab.wait_for_timeout(20)
    tab.wait_for_function("Array.from(document.querySelectorAll('#trust .plot')).every(e => e.querySelector('svg'))")
    assert tab.evaluate("document.querySelectorAll('#trust .plot').length") == 4
    assert overflow(tab) == 0
    assert not wrong
    tab.close()


def test_the_gallery_has_a_menu_of_probes(found: Results) -> None:
    shown = galleries(found)
    assert [item.title.rpartition(", ")[2] for item in shown] == ["<pixels>"] * 2 + ["attribution"] * 2
    assert shown[0].how == "input_x_gradient"
    assert shown[-1].how.startswith("layercam at ")
    assert len({item.key for item in shown}) == 4


def test_pictures_that_a_probe_has_not_seen_are_left_out(tmp_path: Path) -> None:
    recipes = [{"name": "once", "schedule": {"density": 0.4, "kind": "one-shot"}, "rewind": {"to": "none"}}]
    probes = ["performance", {"name": "attribution", "method": "saliency", "images": 12}]
    found = results(run(tmp_path / "study", probes=probes, recipes=recipes, controls="none", seeds=1))
    ids = found.record(found.points[0], "attribution").ids
    assert ids is not None
    rows = [row.image for item in galleries(found) for rows in item.groups.values() for row in rows]
    assert rows
    assert set(rows) <= set(ids.tolist())
    assert 'id="trust"' not in render(found)


def test_fine_maps_are_averaged() -> None:
    from test_gallery import opened

    assert opened(heat_uri(np.random.default_rng(0).random((224, 112)))).size == (28, 56)
