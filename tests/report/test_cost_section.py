"""The section on cost: what the probe recorded, beside the dense networks."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hostile_study import RECIPE, run
from torch import nn

from prunescope.core.types import Record
from prunescope.probes import cost as probe
from prunescope.report.build import render
from prunescope.report.cost import CostCell, CostTable, amount, cost_tables, size
from prunescope.report.facts import metrics
from prunescope.study.plan import Point
from prunescope.study.results import Results, results


def smaller(model: nn.Module, shape: Sequence[int]) -> nn.Module | None:
    """Half of the filters before the head; the dense networks stay whole."""
    if not (model.conv2.weight == 0).any():  # type: ignore[union-attr, operator]
        return None
    network = copy.deepcopy(model)
    network.conv2, network.head = nn.Conv2d(8, 6, 3, padding=1, stride=2), nn.Linear(6, 4)
    return network


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Results]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probe, "shrunk", smaller)
        timed = {"name": "cost", "latency": True, "repeats": 6, "batch_sizes": [1, 4]}
        counted = {"name": "cost", "as": "<counted>", "batch_sizes": [1]}
        probes, seeds = ["performance", timed, counted], {"dense": [0, 1], "tickets": [0, 1]}
        root = run(tmp_path_factory.mktemp("cost") / "study", probes=probes, seeds=seeds, controls="none")
        yield results(root)


def table(found: Results, recipe: str = RECIPE, key: str = "cost") -> CostTable:
    title = recipe if key == "cost" else f"{recipe} ({key})"
    return next(item for item in cost_tables(found) if item.title == title)


def cells(found: Results, title: str, note: str, key: str = "cost") -> tuple[CostCell, ...]:
    lines = [line for line in table(found, key=key).lines if (line.title, line.note) == (title, note)]
    assert len(lines) == 1
    return lines[0].cells


def mean(found: Results, column: str, number: int) -> float:
    runs = found.runs
    rows = runs[(runs["recipe"] == RECIPE) & (runs["role"] == "ticket") & (runs["round"] == number)]
    assert len(rows) == 2
    return float(rows[f"cost.{column}"].mean())


def test_a_table_per_recipe_and_probe(found: Results) -> None:
    assert [item.title for item in cost_tables(found)] == [RECIPE, "once", f"{RECIPE} (<counted>)", "once (<counted>)"]
    assert table(found).columns == ("dense", "50\u00a0%", "25\u00a0%")
    assert all(len(line.cells) == 3 for line in table(found).lines)


def test_counts_are_means_over_seeds_beside_dense(found: Results) -> None:
    assert {cell.text for cell in cells(found, "Parameters", "zeros included")} == {"1.16\u00a0k"}
    dense, _, last = cells(found, "Nonzero parameters", "")
    kept = mean(found, "nonzero", 2)
    assert last.text == amount(kept)
    assert dense.detail == ""
    assert float(last.detail.split()[0]) == pytest.approx(100 * kept / 1160, abs=3)
    packed = cells(found, "File, packed", "mask and kept weights")
    assert packed[2].text == size(mean(found, "packed_bytes", 2))


def test_masked_networks_take_what_the_dense_one_takes(found: Results) -> None:
    for title, note in (("Peak memory", "4 images"), ("File", "safetensors")):
        assert len(set(cells(found, title, note))) == 1


def test_latency_has_the_interval_over_all_seeds(found: Results) -> None:
    runs = found.runs[found.runs["role"] == "dense"]
    first = cells(found, "Latency", "4 images")[0]
    told = [float(text.removesuffix("\u00a0ms")) for text in (first.text, *first.detail.split(" to "))]
    low, high = runs["cost.latency.4.low"].min(), runs["cost.latency.4.high"].max()
    assert told == pytest.approx([runs["cost.latency.4"].mean(), low, high], rel=0.005, abs=0.005)  # three digits


def test_what_is_removed_is_shown_where_something_was(found: Results) -> None:
    dense, first, last = cells(found, "Parameters, channels removed", "zeros included")
    assert dense == CostCell("–", "")
    assert first == last == CostCell(amount(mean(found, "shrunk.parameters", 1)), "")
    assert [cell.text == "–" for cell in cells(found, "Times as fast, channels removed", "1 image")] == [
        True, False, False,
    ]  # fmt: skip


def test_the_page_says_it_honestly(found: Results) -> None:
    page = render(found)
    assert page.count('<section id="cost"') == page.count('href="#cost"') == 1
    assert page.count("multiplies with zeros at the same speed") == 1
    assert page.count("Latency: median of 6 passes on cpu, torch threads: 1, channels last") == 1
    assert "(&lt;counted&gt;)" in page
    assert not [column for column in metrics(found) if column.startswith(("cost", "<counted>"))]


def test_the_table_says_why_no_channels_are_removed(found: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    sentence = "Some weight still reads every channel"
    assert not any(sentence in note for note in table(found).notes)
    plain = found.record

    def told(removal: str) -> str:
        def record(point: Point, key: str) -> Record:
            known = plain(point, key)
            return replace(known, info={**known.info, "removal": removal})

        monkeypatch.setattr(found, "record", record)
        return " ".join(table(found).notes)

    assert sentence in told("none")
    assert "removed is not known: it branches." in told("not known: it branches")
    assert "removed is" not in told("channels")


def test_without_the_probe_there_is_no_section(finished: Path) -> None:
    assert cost_tables(results(finished)) == []
    assert 'id="cost"' not in render(results(finished))


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (999, "999"), (999.6, "1.00 k"), (12345, "12.3 k"), (999_600, "1.00 M"), (5e15, "5000 T")],
)
def test_amounts(value: float, text: str) -> None:
    assert amount(value) == text.replace(" ", "\u00a0")
    assert size(value).startswith(text.split()[0])
