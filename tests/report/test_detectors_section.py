"""The section on what units detect: what the probe `dissection` recorded, beside the dense networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile_study import RECIPE, run
from tabs import CONTRAST, NEEDED, opened_in, overflow

from prunescope.core.types import Record
from prunescope.report.beside import UnitView
from prunescope.report.build import build_report, render
from prunescope.report.detector_views import detector_views
from prunescope.report.digest import digest
from prunescope.report.measures import headlines
from prunescope.report.places import dense_points, percent, tickets
from prunescope.report.tables import tables
from prunescope.study.results import Results, results

UNIT_BY_UNIT = {"still", "same", "paired_change"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    probes = [
        "performance", {"name": "dissection", "draws": 4},
        {"name": "dissection", "as": "<again>", "at": "stages", "quantile": 0.02, "draws": 4},
    ]  # fmt: skip
    recipes = [
        {"name": RECIPE, "granularity": "filter", "schedule": {"density": 0.3, "rounds": 2}, "rewind": {"to": "init"}},
        {"name": "once", "schedule": {"density": 0.4, "kind": "one-shot"}, "rewind": {"to": "none"}},
    ]
    controls = {"kinds": ["reinit"], "rounds": [2]}
    return run(
        tmp_path_factory.mktemp("detectors") / "study", probes=probes, recipes=recipes, controls=controls
    )  # fmt: skip


@pytest.fixture(scope="module")
def found(root: Path) -> Results:
    return results(root)


def view(found: Results, title: str = RECIPE) -> UnitView:
    return next(item for item in detector_views(found) if item.recipe == title)


def rows(found: Results, title: str, recipe: str = RECIPE) -> dict[str, tuple[str, ...]]:
    table = next(item for item in view(found, recipe).tables if item.title == f"{title}, {recipe}")
    return {name: tuple(cell.text for cell in cells) for name, cells in table.rows}


def share(record: Record, layer: str, array: str) -> float:
    """Of the layer's scored units, by a loop."""
    hits = scored = row = 0
    for name, width in record.info["layers"].items():
        for unit in range(row, row + width):
            if name == layer and not record.arrays["unit.dead"][unit] and not record.arrays["unit.tied"][unit]:
                scored += 1
                hits += int(record.arrays[array][unit])
        row += width
    return hits / scored if scored else np.nan


def records(found: Results, round_: int, recipe: str = RECIPE) -> list[Record]:
    points = dense_points(found) if not round_ else [p for p in tickets(found, recipe) if p.round == round_]
    return [found.record(point, "dissection") for point in points]


def test_a_view_per_probe_and_recipe(found: Results) -> None:
    assert [item.recipe for item in detector_views(found)] == [RECIPE, "once", f"{RECIPE} (<again>)", "once (<again>)"]


@pytest.mark.parametrize(
    ("title", "array"),
    [
        ("Units that detect a concept beyond chance", "unit.beyond"),
        ("Units above the threshold, by chance or not", "unit.detector"),
    ],
)
def test_shares_are_means_over_seeds_with_the_dense_range(found: Results, title: str, array: str) -> None:
    for layer, texts in rows(found, title).items():
        for round_, text in enumerate(texts):
            shares = [share(record, layer, array) for record in records(found, round_)]
            shares = [value for value in shares if np.isfinite(value)]
            expected = percent(float(np.mean(shares))) if shares else "–"
            if not round_ and np.ptp(shares):
                expected += f" ({percent(min(shares))} to {percent(max(shares))})"
            assert text == expected


def test_concepts_of_a_category_are_counted_once_whichever_layer_detects_them(found: Results) -> None:
    table = tables(found)["dissection"]
    table = table[(table["probe"] == "dissection") & (table["layer"] == "all")]
    for point in found.points:
        record = found.record(point, "dissection")
        mine = table[table["checkpoint"] == point.checkpoint].set_index("category")["concepts_beyond"]
        kinds: dict[str, set[int]] = {}
        for unit in np.flatnonzero(record.arrays["unit.beyond"]):
            concept = int(record.arrays["unit.concept"][unit])
            kinds.setdefault(record.info["categories"][concept], set()).add(concept)
        assert {kind: count for kind, count in mine.items() if count and kind != "all"} == {
            kind: len(concepts) for kind, concepts in kinds.items()
        }
        assert mine["all"] == sum(map(len, kinds.values())) == record.metrics["unique_beyond"]


def test_detectors_are_counted_by_category(found: Results) -> None:
    for category, texts in rows(found, "Detectors beyond chance by what they detect").items():
        for round_ in (1, 2):
            counts = []
            for record in records(found, round_):
                concepts = record.arrays["unit.concept"][record.arrays["unit.beyond"]].tolist()
                counts.append(sum(record.info["categories"][concept] == category for concept in concepts))
            assert texts[round_] == f"{np.mean(counts):.1f}".removesuffix(".0")


def test_words_say_what_the_records_say(found: Results) -> None:
    words = view(found).words
    last, dense = records(found, 2), records(found, 0)
    scored = [r.metrics["detectors"] for r in last]
    assert f"scored {percent(float(np.mean(scored)))} overlap with a concept by more than 0.04" in words[0]
    assert f"no image changes {percent(float(np.mean([r.metrics['dead'] for r in last])))} of the units" in words[0]
    count = [int(r.arrays["unit.beyond"].sum()) for r in last]
    assert f" {np.mean(count):.1f}".removesuffix(".0") + " units, " in words[0]
    chance = float(np.mean([r.metrics["detectors_by_chance"] for r in last]))
    assert f"with the labels of other images {percent(chance)} would" in words[0]
    sure = [r.metrics["beyond"] for r in dense]
    low, high = percent(min(sure)), percent(max(sure))
    assert f"{low if low == high else f'{low} to {high}'}), measured on 80 test images and 4 draws" in words[0]
    names = last[0].info["concepts"]

    def concepts(of: list[Record]) -> set[str]:
        return {names[i] for r in of for i in r.arrays["unit.concept"][r.arrays["unit.beyond"]]}

    for name in concepts(dense) - concepts(last):
        if len(concepts(dense) - concepts(last)) <= 8:
            assert name in words[1]
    assert "Too large for a unit that is active at 0.5" in words[2]
    assert words[-1].startswith("Drift from the dense network at 30\u00a0%. ")


def test_drift_has_a_floor_except_unit_by_unit(found: Results) -> None:
    mine = found.drift[found.drift["probe"] == "dissection"]
    assert set(mine[mine["distance"].isin(UNIT_BY_UNIT)]["role"]) == {"ticket"}
    assert {"mean_change", "wasserstein", "spread"} <= set(found.floor["distance"])
    assert not set(found.floor["distance"]) & UNIT_BY_UNIT
    assert not [item for item in headlines(found) if item.probe == "dissection"]
    pooled = found.pooled[(found.pooled["probe"] == "dissection") & (found.pooled["distance"] == "mean_change")]
    assert np.isfinite(pooled[["value", "low", "high", "floor_low", "floor_high"]].to_numpy(float)).all()
    drift = view(found).drift
    assert drift is not None
    assert {line.figure.split("/")[1] for line in drift.lines} == {"dissection"}


def test_the_page_the_digest_and_the_files_have_it(found: Results) -> None:
    page, text = render(found), digest(found)
    assert page.count('<section id="detectors"') == page.count('href="#detectors"') == 1
    assert "Drift of overlaps with concepts from the dense network" in page
    assert "Units that detect a concept beyond chance" in page
    assert text.count("## What units detect, ") == 4
    assert 'id="units"' not in page
    table = tables(found)["dissection"]
    layers, kinds = 3, 7
    assert len(table[table["probe"] == "dissection"]) == len(found.points) * layers * kinds


def test_without_the_probe_there_is_no_section(finished: Path) -> None:
    plain = results(finished)
    assert detector_views(plain) == []
    assert 'id="detectors"' not in render(plain)
    assert "What units detect" not in digest(plain)
    assert tables(plain)["dissection"].empty


@pytest.mark.browser
@NEEDED
@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
def test_in_a_browser(root: Path, tmp_path: Path, browser: Any, scheme: str, width: int) -> None:
    """Hostile names do nothing, everything fits, and text can be read."""
    page = build_report(root, tmp_path / "report.html")
    tab, wrong = opened_in(browser, page, viewport={"width": width, "height": 850}, color_scheme=scheme)
    tab.wait_for_selector("#detectors table.heat")
    assert tab.evaluate("window.broken") is None
    tab.evaluate("document.querySelectorAll('#detectors details').forEach(e => { e.open = true; })")
    assert overflow(tab) <= 0
    assert [bad for bad in tab.evaluate(CONTRAST) if bad[0] in ("TD", "TH", "CAPTION", "SUMMARY")] == []
    tab.click("#detectors table.verdicts button >> nth=0")
    tab.close()
    assert not wrong
