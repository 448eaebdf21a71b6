"""Places in a training, written by a user, become steps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunescope.core.errors import PrunescopeError
from prunescope.pruning.pace import Pace, Stretch


@given(st.integers(0, 30), st.integers(0, 60), st.integers(1, 20))
def test_turns_are_counted_one_by_one(begin: int, length: int, every: int) -> None:
    pace = Pace(begin, begin + length, every)
    steps = list(range(begin + every, begin + length + 1, every))
    assert [step for step in range(200) if pace.turn(step)] == steps
    assert [pace.turn(step) for step in steps] == list(range(1, pace.count + 1))


def test_places_become_steps() -> None:
    assert Stretch("1ep", "80%", "5it").pace(10, 100) == Pace(10, 80, 5)
    assert Stretch("1ep", "80%", "5it").pace(10, 100, start=30) == Pace(30, 80, 5)
    assert Stretch("0%", "100%", "1%").pace(3, 9) == Pace(0, 9, 1)  # less than a step is a step


@pytest.mark.parametrize(
    ("places", "message"),
    [
        (("0%", "50%", "0it"), "every must be above 0"),
        (("0%", "101%", "1it"), "101% lies behind the end"),
        (("5ep", "5ep", "1it"), "from 5ep to 5ep there is no step"),
        (("0%", "0it", "1it"), "there is no step"),
        (("soon", "50%", "1it"), "written 1ep"),
    ],
)
def test_what_cannot_be_is_refused(places: tuple[str, str, str], message: str) -> None:
    with pytest.raises(PrunescopeError, match=message):
        Stretch(*places)


@pytest.mark.parametrize(
    ("start", "fits"), [("0it", True), ("4ep", True), ("5ep", False), ("60%", False), ("99it", True)]
)
def test_a_start_behind_the_end_is_refused_when_it_can_be_told(start: str, fits: bool) -> None:
    stretch = Stretch("0%", "50%", "1it")
    if fits:
        stretch.require_inside(start, epochs=10)
    else:
        with pytest.raises(PrunescopeError, match=f"from {start} to 50%"):
            stretch.require_inside(start, epochs=10)


def test_a_training_too_short_is_refused() -> None:
    with pytest.raises(PrunescopeError, match="from step 60 to 50, every 1 steps, there is none: the training has 100"):
        Stretch("0%", "50%", "1it").pace(10, 100, start=60)
    with pytest.raises(PrunescopeError, match="every 90 steps"):
        Stretch("0%", "50%", "90it").pace(10, 100)
