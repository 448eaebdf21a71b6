"""Weights and sparsity: every number against a loop over the checkpoints, collapse in words, old stores."""

from __future__ import annotations

import html
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hostile_nets import LAYER
from hostile_study import RECIPE
from hypothesis import given
from hypothesis import strategies as st

from prunescope.models.checkpoint import Checkpoint
from prunescope.report import layers as layers_module
from prunescope.report import magnitudes as magnitudes_module
from prunescope.report.build import build_report
from prunescope.report.caveats import caveats
from prunescope.report.figures import figures
from prunescope.report.layers import layers
from prunescope.report.magnitudes import ALL, magnitudes, sizes
from prunescope.report.places import dense_of, percent, tickets, units
from prunescope.report.safe import plotly, safe_json
from prunescope.report.sparsity import COLUMNS, sparsity
from prunescope.report.weights import layer_tables
from prunescope.study.plan import Point
from prunescope.study.results import Results, results


@pytest.fixture(scope="module")
def found(collapsed: Path) -> Results:
    return results(collapsed)


def checkpoint(found: Results, point: Point) -> Checkpoint:
    return Checkpoint.load(found.store.path(point.checkpoint))


def masks(found: Results, recipe: str, number: int) -> list[dict[str, torch.Tensor]]:
    """One per seed."""
    chosen = [point for point in tickets(found, recipe) if point.round == number]
    return [dict(checkpoint(found, point).mask or {}) for point in chosen]


def test_rows_after_every_round(found: Results) -> None:
    rows = [dict(zip(COLUMNS, row, strict=True)) for row in sparsity(found)]
    assert [(row["recipe"], row["round"]) for row in rows] == [(RECIPE, "1"), (RECIPE, "2"), ("units", "1")]
    for row in rows:
        made = masks(found, row["recipe"], int(row["round"]))
        kept = [sum(int(k.sum()) for k in mask.values()) / sum(k.numel() for k in mask.values()) for mask in made]
        dead = [sum(not bool(unit.any()) for k in mask.values() for unit in k) for mask in made]
        empty = sorted({sum(not bool(k.any()) for k in mask.values()) for mask in made})
        count = sum(len(k) for k in made[0].values())
        assert row["weights kept"] == percent(sum(kept) / len(kept))
        assert row["filters without weights"] == percent(sum(dead) / len(dead) / count)
        assert row["empty layers"] == f"{' to '.join(map(str, empty))} of {len(made[0])}"
    assert rows[1]["asked for"] == f"{percent(0.003)} of the weights"
    assert rows[2]["asked for"] == f"{percent(0.5)} of the filters"
    assert rows[1]["empty layers"][0] != "0"


def test_collapse_is_named_with_its_round_and_what_accuracy_did(found: Results) -> None:
    told = [sentence for sentence in caveats(found) if "collapse" in sentence]
    assert len(told) == 1  # cutting half of the filters empties no layer
    assert told[0].startswith(f"Layer collapse with {RECIPE}: at {percent(0.003)} of the weights (round 2), ")
    emptied = {name for mask in masks(found, RECIPE, 2) for name, kept in mask.items() if not kept.any()}
    assert f"{LAYER}.weight" in emptied
    assert LAYER in told[0]
    runs = found.runs[(found.runs["recipe"] == RECIPE) & (found.runs["round"] == 2)]
    live = found.runs[(found.runs["recipe"] == RECIPE)].groupby("round")["effective"].min()
    assert live[1] > 0
    assert ("From round 2 on, no path" in told[0]) == (live[2] == 0)
    assert f"Accuracy there is {percent(runs['performance.top1'].mean())}, " in told[0]


def test_where_no_weights_are_left_there_is_no_curve(
    collapsed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(magnitudes_module, "sizes", lambda values: np.zeros(240, dtype=np.int64))
    assert magnitudes(results(collapsed)) == {}
    text = build_report(collapsed, tmp_path / "report.html").read_text()
    assert "Sparsity after every round" in text
    assert "Size of the weights left" not in text


def test_without_collapse_nothing_is_said(finished: Path) -> None:
    assert not [sentence for sentence in caveats(results(finished)) if "collapse" in sentence]


def test_hostile_layers_are_text(found: Results, collapsed: Path, tmp_path: Path) -> None:
    page = build_report(collapsed, tmp_path / "report.html").read_text().replace(plotly(), "")
    assert LAYER not in page
    assert html.escape(LAYER) in page
    assert LAYER.replace("/", "") not in (tmp_path / "summary.md").read_text()
    made = magnitudes(found)[RECIPE]
    assert LAYER in made
    table = pd.read_parquet(tmp_path / "tables" / "layers.parquet")
    assert set(table["layer"]) == set(found.layers["layer"])


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True, width=32), max_size=50))
def test_bins_count_what_a_loop_counts(values: list[float]) -> None:
    expected = [0] * 240
    for value in filter(math.isfinite, values):
        place = math.floor(15 * (math.log10(max(abs(value), 1e-12)) + 12))
        expected[min(max(place, 0), 239)] += 1
    assert sizes(np.array(values)).tolist() == expected


def test_curves_are_of_the_weights_that_are_left(found: Results) -> None:
    for recipe in (RECIPE, "units"):
        points = tickets(found, recipe, 0)
        networks = [dense_of(found, 0), *points]
        for layer, figure in magnitudes(found)[recipe].items():
            drawn = {trace["name"]: trace for trace in figure["data"]}
            for point, cells in zip(networks, figure["table"]["rows"], strict=True):
                assert point is not None
                weights = checkpoint(found, point).weights
                mask = checkpoint(found, point).mask or {n: torch.ones(w.shape).bool() for n, w in weights.items()}
                names = [n for n in masks(found, recipe, 1)[0] if layer in (ALL, n.removesuffix(".weight"))]
                left = torch.cat([weights[name][mask[name]] for name in names]).abs().double().numpy()
                assert cells[1] == f"{len(left):,}"
                if not len(left):
                    assert cells[0] not in drawn
                    continue
                trace = drawn[cells[0]]
                edges = 10.0 ** (np.round(15 * np.log10(trace["x"]) - 0.5)[:, None] / 15 + [0, 1 / 15])
                counts = [int(((left >= low) & (left < high)).sum()) for low, high in edges]
                assert trace["y"] == pytest.approx([15 * n / len(left) for n in counts], abs=1e-4)
                assert len(trace["x"]) <= 60
                if cells[0] == "dense":
                    assert sum(counts) > 0.98 * len(left)
                assert float(cells[2]) == pytest.approx(float(np.median(left)), rel=0.35)


def test_the_table_of_layers_is_filled_from_the_masks(found: Results) -> None:
    made = layers(found)
    assert list(made.networks) == [RECIPE, "units"]
    assert list(made.networks["units"].values()) == [f"units, round 1 ({percent(0.5)}), seed {s}" for s in (0, 1)]
    for point in [*tickets(found, RECIPE), *tickets(found, "units")]:
        recipe, rows = made.data["networks"][point.checkpoint]
        mask = checkpoint(found, point).mask
        assert mask is not None
        assert recipe == point.recipe
        for (name, kept), shape, row in zip(mask.items(), made.data["shapes"][recipe], rows, strict=True):
            assert shape == [name.removesuffix(".weight"), kept.numel(), kept.shape[0], kept.shape[1]]
            assert row[0] == int(kept.sum()) >= row[1] >= 0
            assert row[2] == sum(not bool(unit.any()) for unit in kept)
            assert row[3] == sum(not bool(kept[:, i].any()) for i in range(kept.shape[1]))


def test_the_page_stays_small(found: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers_module, "_ROWS", 1)
    made = layers(found)
    assert [point.checkpoint for point in tickets(found, RECIPE, 0)] == list(made.networks[RECIPE])
    assert [len(networks) for networks in made.networks.values()] == [2, 2]
    monkeypatch.setattr(magnitudes_module, "_LAYERS", 1)
    shown = magnitudes(found)
    assert [len(charts) for charts in shown.values()] == [3, 3]  # all layers, the first and the last
    for figure in shown[RECIPE].values():
        assert len(safe_json(figure["data"])) < 1500 * len(figure["data"])


def test_heat_tables_mark_what_passes_nothing_on(found: Results) -> None:
    density, dead = layer_tables(found)[:2]
    assert "Red" in density.note
    last = {name: cells[-1] for name, cells in density.rows}
    assert last[LAYER].level == -1
    assert dict(dead.rows)[LAYER][-1].text == percent(1.0)
    assert [table.title for table in layer_tables(found)[2:]] == [
        "Density of every layer, units", "Filters without a kept weight, units",
    ]  # fmt: skip


def test_stores_that_lack_effective_densities_of_layers(collapsed: Path, tmp_path: Path) -> None:
    root = tmp_path / "old"
    shutil.copytree(collapsed, root)
    for file in (root / "cells").glob("*/checkpoint.json"):
        facts = json.loads(file.read_text())
        facts["info"].pop("effective_densities", None)
        file.write_text(json.dumps(facts))
    build_report(root)
    found = results(root)
    assert {row[-1] for row in sparsity(found)} == {"–"}
    assert {row[1] for _, rows in layers(found).data["networks"].values() for row in rows} == {-1}
    assert "no weights left" in " ".join(caveats(found))
    assert "none on a path" not in " ".join(caveats(found))


def test_densities_are_shares_of_what_is_cut(found: Results, collapsed: Path, tmp_path: Path) -> None:
    assert (units(found), units(found, RECIPE), units(found, "units")) == ("weights or filters", "weights", "filters")
    made = figures(found)
    assert made["metric/performance.top1"]["layout"]["xaxis"]["title"]["text"] == "weights or filters kept"
    assert made["effective"]["layout"]["xaxis"]["title"]["text"] == "weights kept"  # measured
    text = build_report(collapsed, tmp_path / "report.html").read_text()
    assert '<th scope="col">filters kept</th>' in text
    assert "columns are the share of filters kept" in text
    assert "| filters kept |" in (tmp_path / "summary.md").read_text()
