"""Figures: what they draw, and that they say the same in words and as a table."""

from __future__ import annotations

import math
from itertools import pairwise

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunescope.report.charts import bump_chart, drift_curve, metric_curve, training_curves
from prunescope.report.places import number, percent
from prunescope.report.style import COLOURS, Look, plain, series
from prunescope.report.traces import density_axis, numbers, span

LOOKS = {("late", "ticket"): Look(COLOURS[0], "solid", "circle"), ("late", "random"): Look("#111111", "dot", "x")}


def runs() -> pd.DataFrame:
    rows = [("dense", "", seed, 0, 1.0, value) for seed, value in enumerate((0.80, 0.90, 0.82))]
    rows += [("ticket", "late", seed, r, 0.5**r, 0.9 - 0.1 * r + 0.02 * seed) for r in (1, 2) for seed in (0, 1)]
    rows += [("random", "late", 0, 2, 0.25, math.nan)]
    return pd.DataFrame(rows, columns=["role", "recipe", "seed", "round", "target", "p.top1"])


def test_metric_curve() -> None:
    figure = metric_curve(runs(), "p.top1", looks=LOOKS, title="Accuracy", unit="share", chance=0.1)
    named = {(trace["name"], trace["mode"]): trace for trace in figure["data"]}
    line = named["late", "lines+markers"]
    assert line["x"] == [0.5, 0.25]
    assert line["y"] == pytest.approx([0.81, 0.71])
    assert named["late", "markers"]["y"] == pytest.approx([0.8, 0.82, 0.7, 0.72])
    assert set(named["dense, 3 seeds", "lines"]["y"]) == {0.8, 0.9}
    assert named["chance", "lines"]["y"] == [0.1, 0.1]
    assert "late: random mask" not in {name for name, _ in named}  # no value, no line
    assert figure["alt"] == "Accuracy: late from 0.810 at 50\u00a0% to 0.710 at 25\u00a0%; dense 0.800 to 0.900."
    assert figure["table"]["rows"][1] == ["late", "50\u00a0%", "0.810", "0.800, 0.820"]


def pooled(floor: float = 0.7) -> tuple[pd.DataFrame, pd.DataFrame]:
    shared = {"role": "ticket", "recipe": "late", "title": "same decision", "unit": "share", "higher_is_better": True}
    rows = [
        {**shared, "round": r, "density": 0.5**r, "value": 0.9, "low": 0.8, "high": 1.0, "floor_low": floor,
         "floor_high": floor + 0.1, "verdict": "within the floor"}
        for r in (1, 2)
    ]  # fmt: skip
    dots = [{**shared, "density": 0.5**r, "seed": 0, "value": 0.9, "n": 8, "dropped": 1} for r in (1, 2)]
    return pd.DataFrame(rows), pd.DataFrame(dots)


def test_drift_curve_has_intervals_and_the_floor() -> None:
    figure = drift_curve(*pooled(), looks=LOOKS)
    band, line, dots = figure["data"]
    assert band["name"].startswith("noise floor")
    assert sorted(set(band["y"])) == pytest.approx([0.7, 0.8])
    assert line["error_y"]["array"] == pytest.approx([0.1, 0.1])
    assert line["error_y"]["arrayminus"] == pytest.approx([0.1, 0.1])
    assert dots["text"][0] == "seed 0, 8 items, 1 without a value"
    assert figure["note"] == "Higher is more alike."
    assert figure["table"]["rows"][0] == ["late", "50\u00a0%", "0.900", "0.800 to 1.000", "within the floor"]


def test_without_a_floor_there_is_no_band() -> None:
    assert [trace["name"] for trace in drift_curve(*pooled(math.nan), looks=LOOKS)["data"]] == ["late", "late"]


def test_training_curves_are_means_over_seeds() -> None:
    history = pd.DataFrame(
        {"role": "dense", "round": [0, 0, 0, 0], "seed": [0, 1, 0, 1], "epoch": [1, 1, 2, 2], "v": [0.1, 0.3, 0.5, 0.7]}
    )
    figure = training_curves(history, {0: "dense"}, "v", title="T", unit="u")
    assert figure["data"][0]["x"] == [1.0, 2.0]
    assert figure["data"][0]["y"] == pytest.approx([0.2, 0.6])


def test_bump_chart_breaks_where_a_concept_is_not_listed() -> None:
    figure = bump_chart({"red": [1.0, None, 2.0]}, ["dense", "50 %", "25 %"], title="T", top=5)
    assert figure["data"][0]["y"] == [1.0, None, 2.0]
    assert figure["table"]["rows"] == [["red", "1", "–", "2"]]


@given(st.lists(st.floats(0.001, 0.999), min_size=1, max_size=30))
def test_labels_of_densities_never_touch_and_points_lie_inside(densities: list[float]) -> None:
    ends = span([1.0, *densities])
    axis = density_axis(densities, ends)
    left, right = axis["range"]
    assert left > right
    assert all(right < math.log10(d) < left for d in densities)
    places = [math.log10(tick) for tick in axis["tickvals"]]
    gaps = [a - b for a, b in pairwise(places[1:])]
    assert all(gap >= 0.0699 * (left - right) for gap in gaps)
    assert len(axis["tickvals"]) == len(axis["ticktext"])


@given(st.text())
def test_names_cannot_be_markup_or_templates(name: str) -> None:
    shown = plain(name)
    assert "<" not in shown
    assert "%{" not in shown


def test_series_leave_the_dense_out_and_put_tickets_first() -> None:
    assert series(runs()) == [("late", "ticket"), ("late", "random")]
    assert series(pd.DataFrame()) == []


def test_numbers_in_words() -> None:
    assert numbers([1, math.nan, math.inf]) == [1.0, None, None]
    assert [percent(v) for v in (0.5, 0.1219, 0.0004, -0.01, math.nan)] == [
        "50\u00a0%", "12.2\u00a0%", "0.040\u00a0%", "−1\u00a0%", "–",
    ]  # fmt: skip
    assert [number(v) for v in (0.5, 1234.4, math.nan)] == ["0.500", "1234", "–"]
