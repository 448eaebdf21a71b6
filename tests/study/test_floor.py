"""Noise floor and verdicts, and how often the verdict cries wolf."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest

from prunescope.core.types import Estimate
from prunescope.metrics.statistics import pooled_spread
from prunescope.study.drift import DriftRow
from prunescope.study.floor import equally_accurate, floors, noise_floor, over_seeds, verdict, with_floor


def row(value: float, *, distance: str = "pearson", higher_is_better: bool | None = True) -> DriftRow:
    estimate = Estimate(f"gradcam/x/{distance}", value, value - 0.1, value + 0.1, 9, higher_is_better=higher_is_better)
    return DriftRow("gradcam", "x", distance, "all", "title", estimate)


def test_the_floor_is_the_range_over_pairs() -> None:
    assert noise_floor(np.array([0.8, 0.7, np.nan, 0.75])) == (0.7, 0.8)
    assert noise_floor(np.array([0.8, np.nan])) is None
    assert noise_floor(np.array([])) is None


def test_the_floor_of_a_difference_has_no_direction() -> None:
    assert noise_floor(np.array([0.02, -0.05, 0.01]), higher_is_better=None) == (-0.05, 0.05)
    assert noise_floor(-np.array([0.02, -0.05, 0.01]), higher_is_better=None) == (-0.05, 0.05)


def test_floors_of_rows_go_back_into_rows() -> None:
    pairs = [[row(0.8), row(0.1, distance="energy", higher_is_better=None)],
             [row(0.7), row(-0.2, distance="energy", higher_is_better=None), row(0.5, distance="ssim")]]  # fmt: skip
    found = floors(pairs)
    assert found == {("gradcam", "x", "pearson", "all"): (0.7, 0.8), ("gradcam", "x", "energy", "all"): (-0.2, 0.2)}
    filled = with_floor([row(0.3), row(0.3, distance="ssim")], found)
    assert [one.estimate.floor for one in filled] == [(0.7, 0.8), None]
    assert filled[0].estimate.value == 0.3


def estimate(value: float, half: float, floor: tuple[float, float] | None = (0.6, 0.8)) -> Estimate:
    return Estimate("", value, value - half, value + half, 3, floor=floor)


@pytest.mark.parametrize(
    ("value", "half", "expected"),
    [
        (0.9, 0.01, "within the floor"),
        (0.6, 0.2, "within the floor"),
        (0.55, 0.1, "undecided"),
        (0.45, 0.1, "beyond the floor"),
        (0.45, math.nan, "undecided"),
        (math.nan, math.nan, "no floor"),
    ],
)
def test_verdicts(value: float, half: float, expected: str) -> None:
    assert verdict(estimate(value, half), higher_is_better=True) == expected
    mirrored = estimate(-value, half, (-0.8, -0.6))
    assert verdict(mirrored, higher_is_better=False) == expected
    assert verdict(estimate(value, half, None), higher_is_better=True) == "no floor"


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    ("value", "half", "expected"),
    [(0.04, 0.1, "within the floor"), (0.08, 0.04, "undecided"), (0.08, 0.01, "beyond the floor")],
)
def test_a_difference_can_leave_the_floor_on_both_sides(sign: int, value: float, half: float, expected: str) -> None:
    assert verdict(estimate(sign * value, half, (-0.05, 0.05)), higher_is_better=None) == expected


def test_over_seeds_takes_the_run_as_the_unit() -> None:
    found = over_seeds(np.array([0.5, 0.6, np.nan]), floor=(0.7, 0.8))
    assert (found.value, found.n, found.dropped, found.floor) == (pytest.approx(0.55), 2, 1, (0.7, 0.8))
    assert found.high - found.value == pytest.approx(12.706 * 0.05, rel=1e-3)  # t with one degree of freedom
    borrowed = over_seeds(np.array([0.55]), floor=None, spread=pooled_spread([np.array([0.5, 0.6])] * 5))
    assert math.isfinite(borrowed.low)


def test_equally_accurate_runs_are_marked() -> None:
    assert equally_accurate(np.array([0.9, 0.84, 0.95]), np.array([0.9, 0.88]), margin=0.04).tolist() == [1, 0, 1]


def wolf(dense: int, tickets: int, *, shift: float, studies: int = 400, rounds: int = 6) -> float:
    """Share of made-up studies whose last round is called beyond the floor.

    A pair's drift is a common value less what its two networks and their meeting add. `shift` is the true drift of a
    ticket beyond that of another seed, in standard deviations of one pair.
    """
    generator = np.random.default_rng(0)
    called = 0
    for _ in range(studies):
        own = generator.normal(0, 0.01, size=dense)
        pairs = [own[i] + own[j] + generator.normal(0, 0.01) for i, j in combinations(range(dense), 2)]
        pruned = own[:tickets] + generator.normal(0, 0.01, size=(rounds, tickets)) * math.sqrt(2)
        spread = pooled_spread(list(pruned))
        values = pruned[-1] - shift * math.sqrt(3) * 0.01
        found = over_seeds(values, floor=noise_floor(np.array(pairs)), spread=spread)
        called += verdict(found, higher_is_better=True) == "beyond the floor"
    return called / studies


def test_tickets_like_another_seed_are_seldom_called_beyond_the_floor() -> None:
    assert wolf(3, 2, shift=0) < 0.02
    assert wolf(5, 3, shift=0) < 0.05


def test_tickets_far_from_another_seed_are_called_beyond_the_floor() -> None:
    assert 0.6 < wolf(3, 2, shift=3) < 0.8
    assert wolf(3, 2, shift=4) > 0.9
    assert wolf(5, 3, shift=5) > 0.9
