"""The section on TCAV and concept regions, its table, and its drift with floor and interval: from YAML to page."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hostile_study import RECIPE, run

from prunescope.report.build import render
from prunescope.report.concepts import concept_tables
from prunescope.report.digest import digest
from prunescope.report.measures import headlines
from prunescope.report.places import dense_of, percent, tickets
from prunescope.report.tables import tables
from prunescope.report.tcav_views import TcavView, tcav_views
from prunescope.study.results import Results, results


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Results:
    scores = {
        "repeats": 4,
        "random": 12,
        "min_auroc": 0.6,
        "alpha": 0.8,
    }  # so that something is found in networks that learnt little
    probes = ["performance", {"name": "tcav", **scores}, {"name": "concept_regions", "shuffles": 2, "min_auroc": 0.6}]
    recipes = [{"name": RECIPE, "schedule": {"density": 0.3, "kind": "one-shot"}, "rewind": {"to": "none"}}]
    root = run(
        tmp_path_factory.mktemp("tcav") / "study",
        probes=probes,
        recipes=recipes,
        controls="none",
        model={"name": "small_cnn", "width": 6},
    )
    return results(root)


def view(found: Results, start: str) -> TcavView:
    return next(item for item in tcav_views(found) if item.title.startswith(start))


def test_a_view_per_probe(found: Results) -> None:
    assert [item.title for item in tcav_views(found)] == [f"TCAV, {RECIPE}", f"Concept regions, {RECIPE}"]


def test_drift_has_a_floor_and_an_interval(found: Results) -> None:
    for probe, distances in (("tcav", {"difference", "same_side", "same_found"}), ("concept_regions", {"difference"})):
        rows = found.pooled[(found.pooled["probe"] == probe) & (found.pooled["recipe"] == RECIPE)]
        assert set(rows["distance"]) == distances
        first = rows[rows["distance"] == "difference"]
        assert np.isfinite(first[["value", "low", "high", "floor_low", "floor_high"]].to_numpy(dtype=float)).all()
        assert set(first["verdict"]) <= {"within the floor", "beyond the floor", "undecided"}
    assert [item.subject for item in headlines(found) if item.probe != "performance"] == [
        "sensitivities to concepts", "images within concept regions",
    ]  # fmt: skip


def test_cells_are_means_over_seeds_and_marks_are_agreed(found: Results) -> None:
    shown, marks = view(found, "TCAV").tables[:-1], 0
    points = tickets(found, RECIPE)
    dense = [dense_of(found, point.seed) for point in points]
    records = [[found.record(p, "tcav") for p in kind if p is not None] for kind in (dense, points)]
    first = records[0][0]
    for table in shown:
        layer = next(k for k, name in enumerate(first.info["layers"]) if f"at {name}," in table.title)
        for row, (name, cells) in enumerate(table.rows):
            kind, k = records[row % 2], row // 2
            assert name.startswith(first.info["classes"][k])
            for concept, cell in zip(table.columns, cells, strict=True):
                i = first.info["concept_names"].index(concept)
                scores = [r.arrays["class.tcav"][k, layer, i] for r in kind]
                known = [score for score in scores if np.isfinite(score)]
                signs = {float(np.nan_to_num(r.arrays["class.found"][k, layer, i])) for r in kind}
                mark = {1.0: " ▲", -1.0: " ▼"}.get(signs.pop(), "") if len(signs) == 1 else ""
                assert cell.text == percent(float(np.mean(known)) if known else np.nan) + mark
                assert bool(cell.level) <= bool(mark)
                marks += bool(mark)
    assert marks
    assert len(shown) == len(first.info["layers"]) - len(first.info["refused"])


def test_words(found: Results) -> None:
    words = view(found, "TCAV").words
    points = tickets(found, RECIPE)
    counts = [np.nansum(np.abs(found.record(p, "tcav").arrays["class.found"])) for p in points]
    assert words[0].startswith(f"With 30\u00a0% of the weights, {np.mean(counts):.0f} of ")
    refused = [told for told in words if "TCAV says nothing" in told]
    assert len(refused) == len(found.record(points[0], "tcav").info["refused"]) > 0
    assert "the gradient of a class's logit is the same" in refused[0]
    assert any(
        told.startswith("Drift from the dense network at 30\u00a0%: difference of TCAV scores") for told in words
    )
    regions = view(found, "Concept regions").words
    assert "linear vectors" in regions[0]


def test_the_page_the_digest_and_the_table(found: Results) -> None:
    page, text = render(found), digest(found)
    assert page.count('<section id="tcav"') == page.count('href="#tcav"') == 1
    assert "window.broken=1</script>0" not in page.split('<section id="tcav"')[1].split("</section>")[0]
    assert text.count("## Concepts, ") == 2
    table = tables(found)["tcav"]
    record = found.record(found.points[0], "tcav")
    size = record.arrays["class.tcav"].size
    assert len(table) == 2 * size * len(found.points)
    mine = table[(table["checkpoint"] == found.points[0].checkpoint) & (table["probe"] == "tcav")]
    np.testing.assert_array_equal(
        mine["score"].to_numpy().reshape(len(record.info["layers"]), len(record.info["classes"]), -1),
        record.arrays["class.tcav"].transpose(1, 0, 2),
    )
    regions = table[table["probe"] == "concept_regions"]
    assert regions["score"].notna().any()
    assert regions["p_holm"].isna().all()


def test_without_the_probes_there_is_no_section(finished: Path) -> None:
    plain = results(finished)
    assert tcav_views(plain) == []
    assert 'id="tcav"' not in render(plain)
    assert "## Concepts, " not in digest(plain)
    assert tables(plain)["tcav"].empty


def test_completeness_is_told_with_the_concepts(tmp_path: Path) -> None:
    recipes = [{"name": RECIPE, "schedule": {"density": 0.3, "kind": "one-shot"}, "rewind": {"to": "none"}}]
    probes = ["performance", {"name": "concepts", "min_auroc": 0.5, "bootstrap": 2}]
    root = run(
        tmp_path / "study", probes=probes, recipes=recipes, controls="none", model={"name": "small_cnn", "width": 8},
        seeds={"dense": [0], "tickets": [0]},
        training={"epochs": 6, "batch_size": 32, "lr": 0.05, "precision": "32"},
    )  # fmt: skip
    found = results(root)
    notes = [note for table in concept_tables(found) for note in table.notes if "above chance" in note]
    record = next(found.record(p, "concepts") for p in found.points if p.role == "dense" and p.seed == 0)
    value = record.metrics["completeness"]
    assert np.isfinite(value)
    assert notes[0].startswith(
        f"Dense: rebuilt from the scores of its concepts alone, the network keeps {percent(value)}"
    )
    assert f"random directions: {percent(record.metrics['random_completeness'])}" in notes[0]
