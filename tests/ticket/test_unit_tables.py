"""`units.csv` beside counts by hand; who may report on what."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

import prunescope as ps
from prunescope.core.errors import PrunescopeError
from prunescope.metrics.paired import interval
from prunescope.probes.car import UnitTable
from prunescope.testing import tiny_data, tiny_network
from prunescope.ticket.contest import Contest
from prunescope.ticket.units import Question, by_layer, overall, rows

DATA = tiny_data()
WORST = ["worst_class", "worst_car", "worst_low", "worst_high", "worst_p"]


@pytest.fixture(scope="module")
def table() -> UnitTable:
    return ps.car(tiny_network(), DATA.test)


def test_the_class_that_loses_most(table: UnitTable) -> None:
    found, labels = rows(table), DATA.test.labels.numpy()
    assert list(found)[: -len(WORST)] == list(overall(table))
    assert list(found)[-len(WORST) :] == WORST
    whole, harmed = table.ablation.dense.numpy() == labels, 0
    for row, right in zip(found.to_dict("records"), table.correct, strict=True):
        losses, gains, counts = (
            np.bincount(labels[turned], minlength=3) for turned in (whole & ~right, ~whole & right, labels >= 0)
        )
        car = (losses - gains) / counts
        if car.max() <= 0:
            assert all(pd.isna(row[name]) for name in WORST)
            continue
        harmed += 1
        worst = DATA.classes.index(row["worst_class"])
        assert row["worst_car"] == pytest.approx(car.max()) == pytest.approx(car[worst])
        assert row["loses_most"].startswith(f"{row['worst_class']} ")
        low, high = interval(losses[worst], gains[worst], int(counts[worst]))
        assert (row["worst_low"], row["worst_high"]) == pytest.approx((float(low), float(high)))
        assert row["worst_low"] < row["worst_car"] < row["worst_high"]
        p = binomtest(int(losses[worst]), int(losses[worst] + gains[worst])).pvalue
        assert row["worst_p"] == pytest.approx(p)
    assert 0 < harmed < len(found)


def test_classes_without_images_lose_nothing() -> None:
    few = DATA.test.subset(np.flatnonzero(DATA.test.labels.numpy() > 0))
    found = rows(ps.car(tiny_network(), few))
    assert set(found["worst_class"].dropna()) <= {"green", "blue"}


def test_a_summary_of_each_layer(table: UnitTable) -> None:
    found = overall(table)
    for told in by_layer(table):
        own = found[found["layer"] == told["layer"]].sort_values("place")
        assert told["least"] == own["channel"].tolist()[:3]
        assert [channel for channel, _ in told["most"]] == own["channel"].tolist()[::-1][:3]


def asked(**options: object) -> Question:
    return Question({"name": "small_cnn"}, {"name": "shapes"}, **options)  # type: ignore[arg-type]


def test_images_that_choose_or_are_trained_on_report_nothing() -> None:
    Contest(report="train").require_for(asked())
    Contest(report="test", epochs=1).require_for(asked(split="train"))
    with pytest.raises(PrunescopeError, match=r"trains on the split train.* --report-split val, or leave"):
        Contest(report="train", epochs=0.5).require_for(asked())
    with pytest.raises(PrunescopeError, match=r"both choose and report.*--split val"):
        Contest(report="test").require_for(asked())
    with pytest.raises(PrunescopeError, match="with removal 'zero' only; got 'mean'"):
        Contest(report="val").require_for(asked(effort=ps.Effort(removal="mean")))


def test_pictures_need_a_look() -> None:
    with pytest.raises(PrunescopeError, match="maximise needs a look of 1 or more"):
        asked(maximise=5, look=0)
    with pytest.raises(PrunescopeError, match=r"maximise must be 0 \(no pictures are made\) or more steps, got -1"):
        asked(maximise=-1)
