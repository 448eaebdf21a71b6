"""Densities of the rounds, and the step at which retraining enters its schedule."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunescope.core.errors import PrunescopeError
from prunescope.pruning.schedule import Kind, Rewind, Schedule


def test_geometric_rounds_keep_the_same_share_each_time() -> None:
    densities = Schedule(density=0.8**5, rounds=5).densities()
    assert densities == pytest.approx([0.8, 0.64, 0.512, 0.4096, 0.32768], rel=1e-12)


def test_linear_rounds_remove_the_same_number_each_time() -> None:
    assert Schedule(density=0.2, rounds=4, kind="linear").densities() == pytest.approx([0.8, 0.6, 0.4, 0.2])


def test_one_shot_is_one_round() -> None:
    assert Schedule(density=0.3, rounds=9, kind="one-shot").densities() == (0.3,)


@given(st.floats(1e-4, 0.999), st.integers(1, 60), st.sampled_from(["geometric", "linear"]))
def test_densities_fall_strictly_and_end_exactly(density: float, rounds: int, kind: Kind) -> None:
    densities = Schedule(density, rounds, kind).densities()
    assert len(densities) == rounds
    assert densities[-1] == density
    assert all(1 > a > b for a, b in pairwise(densities))


@pytest.mark.parametrize("kind", ["geometric", "linear", "one-shot"])
def test_density_one_keeps_everything_in_one_round(kind: Kind) -> None:
    assert Schedule(density=1, rounds=6, kind=kind).densities() == (1,)


@pytest.mark.parametrize("density", [0.0, -0.1, 1.000001, 1.5, float("nan"), float("inf")])
def test_densities_that_are_no_share_are_refused(density: float) -> None:
    with pytest.raises(PrunescopeError, match="density is the share of weights kept"):
        Schedule(density=density)


@pytest.mark.parametrize("kind", ["geometric", "linear"])
def test_before_training_there_is_one_cut(kind: Kind) -> None:
    assert Schedule(0.2, kind="one-shot", when="before-training").densities() == (0.2,)
    with pytest.raises(PrunescopeError, match=f"write kind: one-shot, not {kind}"):
        Schedule(0.2, 3, kind, when="before-training")
    with pytest.raises(PrunescopeError, match="unknown time of the cut 'before'"):
        Schedule(when="before")  # type: ignore[arg-type]


@pytest.mark.parametrize("rounds", [0, -1, 2.5])
def test_rounds_are_whole_and_positive(rounds: float) -> None:
    with pytest.raises(PrunescopeError, match="rounds must be"):
        Schedule(rounds=rounds)  # type: ignore[arg-type]


def test_unknown_kinds_name_what_there_is() -> None:
    with pytest.raises(PrunescopeError, match="unknown schedule 'geometrical'; did you mean 'geometric'"):
        Schedule(kind="geometrical")  # type: ignore[arg-type]
    with pytest.raises(PrunescopeError, match="unknown rewinding 'initial'"):
        Rewind(to="initial")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rewind", "start", "keeps"),
    [
        (Rewind("init"), 0, False),
        (Rewind("none"), 0, True),
        (Rewind("late", "1ep"), 40, False),
        (Rewind("late", "0.5ep"), 20, False),
        (Rewind("late", "7it"), 7, False),
        (Rewind("lr", "5%"), 20, True),
        (Rewind("lr", "0ep"), 0, True),
    ],
)
def test_where_retraining_starts(rewind: Rewind, start: int, keeps: bool) -> None:
    assert rewind.start(per_epoch=40, total=400) == start
    assert rewind.keeps_weights is keeps


def test_late_to_step_zero_is_called_by_its_name() -> None:
    with pytest.raises(PrunescopeError, match="write to: init"):
        Rewind("late", "0it")


@pytest.mark.parametrize("to", ["init", "none"])
def test_a_step_that_would_be_ignored_is_refused(to: str) -> None:
    with pytest.raises(PrunescopeError, match="has no step"):
        Rewind(to, "500it")  # type: ignore[arg-type]


@pytest.mark.parametrize("to", ["late", "lr"])
def test_a_step_behind_the_end_is_refused(to: str) -> None:
    with pytest.raises(PrunescopeError, match="nothing to train"):
        Rewind(to, "100%")  # type: ignore[arg-type]
    rewind = Rewind(to, "10ep")  # type: ignore[arg-type]
    with pytest.raises(PrunescopeError, match="nothing to train"):
        rewind.start(per_epoch=40, total=400)
    with pytest.raises(PrunescopeError, match="the training has 10 epochs"):
        rewind.require_inside(10)
    rewind.require_inside(10.5)


def test_a_step_is_written_in_one_of_three_ways() -> None:
    with pytest.raises(PrunescopeError, match="written 1ep"):
        Rewind(at="3 epochs")
