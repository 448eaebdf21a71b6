"""Races that are cut short find the winner of the whole race: always, or as often as they say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from prunescope.core.errors import PrunescopeError
from prunescope.metrics.racing import can_win, radius, unbeaten

CHECKS = (50, 100, 200, 400, 800)


def race(images: int, candidates: int, seed: int, best: float = 0.9, others: float = 0.88) -> np.ndarray:
    """Decisions without each candidate: a common network's, with a few turned; one candidate is planted to win."""
    generator = np.random.default_rng(seed)
    common = generator.random(images) < 0.95
    stays = np.full((candidates, 1), others)
    stays[generator.integers(candidates)] = best
    turned = generator.random((candidates, images)) > stays
    return common ^ turned


def winner(correct: np.ndarray) -> int:
    return int(correct.sum(axis=1).argmax())  # of equal ones the lowest index


@given(images=st.integers(1, 40), candidates=st.integers(1, 6), seed=st.integers(0, 9999), certified=st.floats(0, 1))
@settings(max_examples=150, deadline=None)
def test_the_exact_race_never_loses_the_winner(images: int, candidates: int, seed: int, certified: float) -> None:
    """Candidates drop out on the way and are then evaluated no more; some decisions are certified beforehand."""
    generator = np.random.default_rng(seed)
    correct = generator.random((candidates, images)) < generator.random()
    known = generator.random((candidates, images)) < certified
    alive = np.ones(candidates, dtype=bool)
    for step in range(images + 1):
        alive &= can_win((correct & known).sum(axis=1), (~known).sum(axis=1))
        if step < images:
            known[alive, step] = True
    best = correct.sum(axis=1)
    assert alive[winner(correct)]
    assert set(np.flatnonzero(alive)) == set(np.flatnonzero(best == best.max()))


def test_the_exact_race_drops_what_cannot_win_any_more() -> None:
    assert can_win(np.array([7, 4, 5]), np.array([0, 2, 2])).tolist() == [True, False, True]


def run(correct: np.ndarray, delta: float, by: Any) -> tuple[np.ndarray, int]:
    """Who is left, and how many decisions were needed."""
    alive, seen, used = np.arange(len(correct)), 0, 0
    for now in (*CHECKS, correct.shape[1]):
        used, seen = used + len(alive) * (now - seen), now
        left = unbeaten(
            correct[alive, :now], correct.shape[1], delta=delta, candidates=len(correct), checks=len(CHECKS), by=by
        )
        alive = alive[left]
    return alive, used


@pytest.mark.parametrize(("by", "saved"), [("sign", 0.5), ("bernstein", 0.1)])
def test_a_clear_winner_is_found_early(by: str, saved: float) -> None:
    correct = race(2000, 12, seed=0, best=0.99, others=0.6)
    alive, used = run(correct, 0.05, by)
    assert alive.tolist() == [winner(correct)]
    assert used < (1 - saved) * correct.size


@pytest.mark.parametrize("by", ["sign", "bernstein"])
def test_the_winner_is_lost_no_oftener_than_promised(by: str) -> None:
    """300 close races with much to err about (delta = 0.2); 3.5 sigma above 20 % would be 28 %."""
    lost = 0
    for seed in range(300):
        correct = race(1000, 8, seed, best=0.9, others=0.89)
        lost += winner(correct) not in run(correct, 0.2, by)[0]
    assert lost / 300 <= 0.2


def test_a_single_comparison_errs_as_often_as_its_share() -> None:
    """Two equally good candidates, one check, everything spent on it: the sign test is near its 20 %, not beyond."""
    generator = np.random.default_rng(0)
    lost = []
    for _ in range(4000):
        flips = generator.permutation(np.repeat([1, -1, 0], [60, 60, 280]))[:100]
        correct = np.stack([flips >= 0, flips <= 0])
        lost.append(not unbeaten(correct, 400, delta=0.2, candidates=2, checks=1)[0])
    assert 0.02 < np.mean(lost) <= 0.1  # delta / (candidates checks)


@pytest.mark.parametrize("by", ["sign", "bernstein"])
def test_comparisons_with_the_leader_equal_a_loop(by: Any) -> None:
    generator = np.random.default_rng(1)
    turned = generator.random((200, 300)) < np.linspace(0.0, 0.75, 200)[:, None] ** 2
    correct = (generator.random(300) < 0.95) ^ turned
    leader, share = correct[winner(correct)], 0.2 / (250 * 4)
    expected = []
    for row in correct:
        differences = leader.astype(float) - row
        if by == "sign":
            flips = int(np.abs(differences).sum())
            p = stats.binomtest(int((differences > 0).sum()), flips, alternative="greater").pvalue if flips else 1.0
            expected.append(p > share)
        else:
            expected.append(differences.mean() <= radius(differences.var(), 300, 400, delta=share))
    found = unbeaten(correct, 400, delta=0.2, candidates=250, checks=4, by=by)
    assert found.tolist() == expected
    assert 1 < found.sum() < 200


@pytest.mark.parametrize("by", ["sign", "bernstein"])
def test_when_all_images_are_seen_the_answer_is_exact(by: Any) -> None:
    correct = np.array([[1, 1, 0, 1], [1, 0, 1, 1], [1, 1, 0, 0]], dtype=bool)
    asked = {"delta": 1e-9, "candidates": 3, "checks": 1, "by": by}
    assert unbeaten(correct, 4, **asked).tolist() == [True, True, False]
    assert unbeaten(correct, 5, **asked).tolist() == [True, True, True]


def test_the_radius_holds_and_shrinks_to_nothing() -> None:
    """Means of samples drawn without replacement from a population of -1, 0 and 1."""
    generator = np.random.default_rng(0)
    population = np.repeat([1.0, -1.0, 0.0], [60, 20, 920])
    beyond = []
    for _ in range(2000):
        sample = generator.permutation(population)[:600]
        beyond.append(sample.mean() - population.mean() > radius(sample.var(), 600, 1000, delta=0.3))
    assert np.mean(beyond) <= 0.3
    radii = [float(radius(np.array(0.08), seen, 1000, delta=0.3)) for seen in (10, 100, 500, 501, 900, 999, 1000)]
    assert radii == sorted(radii, reverse=True)
    assert radii[-1] == 0


def test_the_radius_is_the_published_formula() -> None:
    variance, m, n, delta = 0.25, 40, 100, 0.05
    log = np.log(5 / delta)
    expected = np.sqrt(variance) * np.sqrt(2 * (1 - 39 / 100) * log / m) + (7 / 3 + 3 / np.sqrt(2)) * 2 * log / m
    assert radius(np.array(variance), m, n, delta=delta) == pytest.approx(expected)
    late = np.sqrt(2 * variance * (1 - 80 / 100) * (1 + 1 / 80) * log / 80) + (7 / 3 + 3 / np.sqrt(2)) * log / 80
    assert radius(np.array(variance), 80, n, delta=delta, span=1) == pytest.approx(late)


def test_the_sign_test_is_no_bolder_than_the_hypergeometric() -> None:
    """What it rests on: drawn without replacement from as many gains as losses, a majority that large is rarer."""
    for half, drawn in ((5, 6), (20, 15), (100, 150)):
        losses = np.arange(drawn // 2 + 1, drawn + 1)
        exact = stats.hypergeom.sf(losses - 1, 2 * half, half, drawn)
        assert (exact <= stats.binom.sf(losses - 1, drawn, 0.5) + 1e-12).all()


@pytest.mark.parametrize("wrong", [{"delta": 0.0}, {"delta": 0.5}, {"candidates": 1}, {"checks": 0}, {"images": 3}])
def test_impossible_races_are_refused(wrong: dict[str, Any]) -> None:
    asked = {"images": 10, "delta": 0.05, "candidates": 2, "checks": 1, **wrong}
    with pytest.raises(PrunescopeError, match="a race needs"):
        unbeaten(np.ones((2, 4), dtype=bool), **asked)
