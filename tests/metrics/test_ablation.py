"""The table of ablations beside loops over units and classes, and its identities."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunescope.core.errors import PrunescopeError
from prunescope.metrics import paired
from prunescope.metrics.ablation import Reductions, most_harmed, order, reductions

NAMES = ("ant", "bee", "cat", "dog")


def case(seed: int = 0, units: int = 6, images: int = 60) -> dict[str, Any]:
    """Random decisions; class `cat` has no images."""
    generator = np.random.default_rng(seed)
    return {
        "correct": generator.random((units, images)) < 0.7,
        "whole": generator.random(images) < 0.8,
        "labels": generator.choice([0, 1, 3], size=images, p=[0.6, 0.3, 0.1]),
        "classes": NAMES,
        "drop": generator.normal(size=(units, images)).astype(np.float32),
    }


@given(seed=st.integers(0, 999), units=st.integers(1, 5), images=st.integers(1, 30))
@settings(max_examples=60, deadline=None)
def test_the_table_equals_loops_over_units_and_classes(seed: int, units: int, images: int) -> None:
    given_ = case(seed, units, images)
    found = reductions(**given_)
    for unit in range(units):
        alone, whole = given_["correct"][unit], given_["whole"]
        assert found.car[unit] == pytest.approx(whole.mean() - alone.mean(), abs=1e-12)
        assert found.mean_drop[unit] == pytest.approx(given_["drop"][unit].mean(dtype=np.float64), abs=1e-12)
        for label in range(4):
            of = given_["labels"] == label
            assert found.counts[label] == of.sum()
            assert found.right[label] == whole[of].sum()
            assert found.losses[unit, label] == sum(w and not a for w, a in zip(whole[of], alone[of], strict=True))
            assert found.gains[unit, label] == sum(a and not w for w, a in zip(whole[of], alone[of], strict=True))
            if of.any():
                assert found.class_car[unit, label] == pytest.approx(whole[of].mean() - alone[of].mean(), abs=1e-12)
                expected = given_["drop"][unit, of].mean(dtype=np.float64)
                assert found.class_drop[unit, label] == pytest.approx(expected, abs=1e-12)
            else:
                assert np.isnan([found.class_car[unit, label], found.class_drop[unit, label]]).all()


@given(seed=st.integers(0, 999))
@settings(max_examples=40, deadline=None)
def test_car_is_the_weighted_mean_of_the_class_cars(seed: int) -> None:
    found = reductions(**case(seed))
    for unit in range(len(found.car)):
        lost = sum(
            Fraction(int(found.counts[c]), found.images)
            * Fraction(int(found.losses[unit, c] - found.gains[unit, c]), int(found.counts[c]))
            for c in range(4)
            if found.counts[c]
        )
        net = int((found.losses[unit] - found.gains[unit]).sum())
        assert lost == Fraction(net, found.images)
        assert found.car[unit] == net / found.images
    np.testing.assert_allclose(found.car, np.nansum(found.shares * found.class_car, axis=1), atol=1e-15)
    assert found.shares.sum() == pytest.approx(1)


def test_a_dead_unit_costs_exactly_nothing() -> None:
    given_ = case()
    given_["correct"][2], given_["drop"][2] = given_["whole"], 0
    found = reductions(**given_)
    assert found.car[2] == found.mean_drop[2] == found.error()[2] == 0
    assert found.p()[2] == found.p(mid=True)[2] == 1
    assert found.interval()[0][2] < 0 < found.interval()[1][2]


def test_a_unit_that_feeds_one_class_harms_that_class() -> None:
    given_ = case()
    given_["correct"][:] = given_["whole"] = np.ones(60, dtype=bool)
    given_["correct"][4, given_["labels"] == 3] = False
    found = reductions(**given_)
    assert found.class_car[4, [0, 1, 3]].tolist() == [0, 0, 1]
    assert most_harmed(found, 1)[4].tolist() == [3]
    assert found.class_p()[4, 3] == pytest.approx(2 * 0.5 ** found.counts[3])
    assert found.class_p()[4, 0] == 1


def test_units_that_do_harm_stay_below_zero() -> None:
    given_ = case()
    given_["whole"][:], given_["correct"][1] = False, True
    found = reductions(**given_)
    assert found.car[1] == -1
    assert (found.class_car[1, [0, 1, 3]] == -1).all()
    assert order(found).order[0] == 1


def test_intervals_and_tests_are_those_of_the_flips() -> None:
    found = reductions(**case())
    losses, gains = found.losses.sum(axis=1), found.gains.sum(axis=1)
    np.testing.assert_array_equal(found.interval(level=0.9), paired.interval(losses, gains, 60, level=0.9))
    np.testing.assert_array_equal(found.p(mid=True), paired.mcnemar(losses, gains, mid=True))
    np.testing.assert_array_equal(found.error(), paired.standard_error(losses, gains, 60))
    for c in (0, 1, 3):
        n = int(found.counts[c])
        ends = paired.interval(found.losses[:, c], found.gains[:, c], n)
        np.testing.assert_array_equal([end[:, c] for end in found.class_interval()], ends)
        np.testing.assert_array_equal(found.class_p()[:, c], paired.mcnemar(found.losses[:, c], found.gains[:, c]))
        expected = paired.standard_error(found.losses[:, c], found.gains[:, c], n)
        np.testing.assert_array_equal(found.class_error()[:, c], expected)


def test_classes_without_images_are_named_and_told_apart() -> None:
    found = reductions(**case())
    assert found.empty == ("cat",)
    tables = (found.class_car, found.class_error(), *found.class_interval(), found.class_p(), found.class_drop)
    for table in tables:
        assert np.isnan(table[:, 2]).all()
        assert np.isfinite(table[:, [0, 1, 3]]).all()
    assert not (most_harmed(found) == 2).any()
    assert np.isfinite(found.car).all()


def test_ties_go_by_the_drop_and_then_by_index() -> None:
    whole = np.ones(4, dtype=bool)
    correct = np.array([[1, 1, 1, 0], [1, 1, 1, 1], [0, 1, 1, 1], [1, 0, 1, 1], [0, 0, 1, 1]], dtype=bool)
    drop = np.array([0.5, 0, 0.25, 0.5, 9.0])[:, None].repeat(4, axis=1)
    labels = np.array([0, 0, 1, 1])
    found = order(reductions(correct, whole, labels, NAMES[:2], drop=drop))
    assert found.order.tolist() == [1, 2, 0, 3, 4]
    assert (found.tied, found.undecided) == (3, 2)
    without = order(reductions(correct, whole, labels, NAMES[:2]))
    assert without.order.tolist() == [1, 0, 2, 3, 4]
    assert (without.tied, without.undecided) == (3, 3)


@given(seed=st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_the_order_is_that_of_sorted(seed: int) -> None:
    found = reductions(**case(seed, units=12, images=8))
    keys = [(int((found.losses - found.gains)[u].sum()), float(found.mean_drop[u]), u) for u in range(12)]
    assert order(found).order.tolist() == [key[2] for key in sorted(keys)]
    expected = [
        sorted((0, 1, 3), key=lambda c, u=u: (-found.class_car[u, c], -found.class_drop[u, c], c)) for u in range(12)
    ]
    if set(found.empty) == {"cat"}:
        assert most_harmed(found).tolist() == expected
        assert most_harmed(found, 2).tolist() == [row[:2] for row in expected]


def test_labels_need_no_order_and_units_do_not_know_each_other() -> None:
    given_ = case()
    shuffled = np.random.default_rng(1).permutation(60)
    moved = {k: v[..., shuffled] if isinstance(v, np.ndarray) else v for k, v in given_.items()}
    some = {**given_, "correct": given_["correct"][[4, 1]], "drop": given_["drop"][[4, 1]]}
    whole = reductions(**given_)
    for other, rows in ((reductions(**moved), slice(None)), (reductions(**some), [4, 1])):
        np.testing.assert_array_equal(other.losses, whole.losses[rows])
        np.testing.assert_array_equal(other.gains, whole.gains[rows])
        np.testing.assert_allclose(other.class_drop, whole.class_drop[rows], atol=1e-12)


def test_without_drops_there_are_none() -> None:
    found = reductions(**{**case(), "drop": None})
    assert isinstance(found, Reductions)
    assert np.isnan(found.mean_drop).all()
    assert np.isnan(found.class_drop).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"correct": np.ones((6, 60))}, "booleans"),
        ({"whole": np.ones(59, dtype=bool)}, "same images"),
        ({"labels": np.zeros(61, dtype=int)}, "same images"),
        ({"labels": np.full(60, 4)}, "labels must be 0 to 3"),
        ({"labels": np.full(60, -1)}, "labels must be 0 to 3"),
        ({"labels": np.zeros(60)}, "labels must be 0 to 3, got float64"),
        ({"correct": np.ones((6, 0), bool), "whole": np.ones(0, bool), "labels": np.zeros(0, int)}, "one image"),
        ({"drop": np.ones((5, 60))}, "one per unit and image"),
        ({"drop": np.where(np.arange(360).reshape(6, 60) == 125, np.nan, 0.0)}, "NaN at unit 2, image 5"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(PrunescopeError, match=message):
        reductions(**{**case(), **changes})


def test_drops_that_rounding_tells_apart_are_equal_and_chains_of_them_too() -> None:
    whole, labels = np.ones(4, dtype=bool), np.array([0, 0, 1, 1])
    correct = np.tile(whole, (6, 1))
    correct[5, 0] = False
    drop = np.repeat(np.array([[3e-8], [2e-8], [1e-8], [0.5], [-0.2], [-0.3]]), 4, axis=1)
    found = reductions(correct, whole, labels, NAMES[:2], drop=drop)
    assert order(found).order.tolist() == [4, 2, 1, 0, 3, 5]
    ranked = order(found, rounding=1.5e-8)
    assert ranked.order.tolist() == [4, 0, 1, 2, 3, 5]
    assert (ranked.tied, ranked.undecided) == (5, 3)
    assert order(found, rounding=0.5e-8).undecided == 0
