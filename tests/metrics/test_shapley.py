"""Shapley values by sampling beside closed forms and the sum over all coalitions; the axioms; the budget."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunescope.core.errors import PrunescopeError
from prunescope.metrics.shapley import shapley


class Game:
    """Counts what is asked for, and refuses more sets at once than agreed."""

    def __init__(self, value: Any, batch: int = 32) -> None:
        self.value, self.batch, self.asked = value, batch, 0

    def __call__(self, sets: np.ndarray) -> np.ndarray:
        assert sets.dtype == np.bool_
        assert len(sets) <= self.batch
        self.asked += len(sets)
        return np.array([self.value(row) for row in sets])


def exactly(value: Any, units: int) -> np.ndarray:
    """Over all orders."""
    total = np.zeros(units)
    orders = list(permutations(range(units)))
    for order in orders:
        present = np.zeros(units, dtype=bool)
        before = value(present)
        for unit in order:
            present[unit] = True
            after = value(present)
            total[unit] += after - before
            before = after
    return total / len(orders)


def random_game(seed: int, units: int) -> Any:
    table = np.random.default_rng(seed).random(2**units)
    return lambda row: table[int(row @ 2 ** np.arange(units))]


def gloves(row: np.ndarray) -> float:
    """Units 0 and 1 hold left gloves, unit 2 a right one; a pair is worth 1. Shapley: 1/6, 1/6, 2/3."""
    return float(min(row[0] + row[1], row[2]))


@pytest.mark.parametrize("antithetic", [False, True])
def test_an_additive_game_needs_one_sample(antithetic: bool) -> None:
    weights = np.array([0.5, -0.25, 0.0, 2.0])
    game = Game(lambda row: 0.1 + row @ weights)
    found = shapley(game, 4, budget=12, seed=0, antithetic=antithetic)
    np.testing.assert_allclose(found.values, weights, atol=1e-12)
    more = shapley(game, 4, budget=200, seed=0, antithetic=antithetic)
    np.testing.assert_allclose(more.values, weights, atol=1e-12)
    np.testing.assert_allclose(more.errors, 0, atol=1e-12)


def test_gloves_within_the_errors_it_states() -> None:
    found = shapley(Game(gloves), 3, budget=6000, seed=0)
    assert (np.abs(found.values - [1 / 6, 1 / 6, 2 / 3]) < 4 * found.errors).all()
    assert (found.errors < 0.01).all()
    assert found.errors[2] == pytest.approx(np.sqrt(2 / 9 / found.samples), rel=0.05)  # the right glove: 1 in 2 of 3


@given(seed=st.integers(0, 99), antithetic=st.booleans())
@settings(max_examples=8, deadline=None)
def test_any_game_approaches_the_sum_over_all_orders(seed: int, antithetic: bool) -> None:
    value = random_game(seed, 5)
    found = shapley(Game(value), 5, budget=6000, seed=seed, antithetic=antithetic)
    assert (np.abs(found.values - exactly(value, 5)) < 5 * found.errors).all()


def test_the_errors_are_as_large_as_the_values_scatter() -> None:
    value = random_game(1, 5)
    runs = [shapley(Game(value), 5, budget=202, seed=seed) for seed in range(200)]
    scatter = np.std([run.values for run in runs], axis=0)
    np.testing.assert_allclose(np.mean([run.errors for run in runs], axis=0), scatter, rtol=0.2)
    np.testing.assert_allclose(np.mean([run.values for run in runs], axis=0), exactly(value, 5), atol=0.02)


@given(seed=st.integers(0, 99), units=st.integers(2, 8), antithetic=st.booleans(), batch=st.integers(2, 9))
@settings(max_examples=40, deadline=None)
def test_the_values_share_out_exactly_what_there_is(seed: int, units: int, antithetic: bool, batch: int) -> None:
    game = Game(random_game(seed, units), batch)
    budget = 2 + 7 * 2 * (units - 1)
    found = shapley(game, units, budget=budget, seed=seed, antithetic=antithetic, batch=batch)
    assert found.values.sum() == pytest.approx(found.whole - found.nothing, abs=1e-12)
    assert game.asked == found.evaluations == budget
    assert (found.samples, found.truncated) == (7 if antithetic else 14, 0)


def test_duplicates_share_the_credit_that_removing_one_would_deny_both() -> None:
    accuracy = lambda row: 0.1 + 0.6 * float(row[0] or row[1]) + 0.2 * row[2]  # noqa: E731
    found = shapley(Game(accuracy), 4, budget=8000, seed=0)
    np.testing.assert_allclose(found.values, [0.3, 0.3, 0.2, 0.0], atol=0.02)
    assert found.values[3] == 0  # a unit that does nothing
    paired = shapley(Game(accuracy), 4, budget=20, seed=0, antithetic=True)  # met once first and once second
    np.testing.assert_allclose(paired.values, [0.3, 0.3, 0.2, 0.0], atol=1e-12)
    np.testing.assert_allclose(paired.errors, 0, atol=1e-12)


def test_the_batch_does_not_change_the_samples() -> None:
    value = random_game(3, 6)
    one, many = (shapley(Game(value), 6, budget=300, seed=4, batch=batch) for batch in (1, 32))
    np.testing.assert_allclose(one.values, many.values, atol=1e-14)
    assert (shapley(Game(value), 6, budget=300, seed=5).values != many.values).any()
    assert (one.samples, one.evaluations) == (many.samples, many.evaluations) == (59, 297)


def test_a_walk_ends_when_nothing_is_left_to_lose() -> None:
    """Chance without unit 0: the walk goes on for `patience` sets after it went, and asks for no more."""
    accuracy = lambda row: 0.9 if row[0] else 0.1  # noqa: E731
    whole = shapley(Game(accuracy), 20, budget=2000, seed=0)
    found = shapley(Game(accuracy), 20, budget=2000, seed=0, tolerance=0.05, patience=3)
    np.testing.assert_allclose(found.values, whole.values, atol=1e-12)
    assert found.values.tolist() == pytest.approx([0.8] + [0] * 19)
    assert found.samples > 1.5 * whole.samples
    assert 0.5 * found.samples < found.truncated <= found.samples
    assert 2000 - 19 < found.evaluations <= 2000


def test_a_short_dip_does_not_end_a_walk() -> None:
    """At chance with 4 and with 2 of 6 units left, and back in between: `patience` 2 goes on, 1 does not."""
    value = lambda row: 0.0 if row.sum() in (0, 2, 4) else float(row.sum())  # noqa: E731
    patient = shapley(Game(value), 6, budget=400, seed=0, tolerance=0.5, patience=2)
    assert patient.truncated == 0
    assert patient.values.sum() == pytest.approx(6)
    hasty = shapley(Game(value), 6, budget=400, seed=0, tolerance=0.5, patience=1)
    assert hasty.truncated == hasty.samples
    assert hasty.evaluations - 2 == 2 * hasty.samples
    assert hasty.values.sum() == pytest.approx(6)  # it ended at the empty set's value


def test_the_global_random_state_is_left_alone() -> None:
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    shapley(Game(gloves), 3, budget=10, seed=0)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


@pytest.mark.parametrize(
    "wrong", [{"units": 1}, {"budget": 3}, {"budget": 5, "antithetic": True}, {"batch": 0}, {"patience": 0}]
)
def test_what_cannot_be_sampled_is_refused(wrong: dict[str, Any]) -> None:
    asked = {"units": 3, "budget": 50, "seed": 0, **wrong}
    with pytest.raises(PrunescopeError, match="Shapley values need"):
        shapley(Game(gloves), **asked)


@pytest.mark.parametrize("answer", [np.zeros(1), np.zeros((2, 1)), np.array([0, np.nan])])
def test_a_value_function_that_does_not_answer_is_refused(answer: np.ndarray) -> None:
    with pytest.raises(PrunescopeError, match="one finite number for each of 2 sets"):
        shapley(lambda sets: answer, 3, budget=10, seed=0)
