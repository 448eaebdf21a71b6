"""Places in a training, in three units."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunescope.core.errors import PrunescopeError
from prunescope.engine.steps import Step


@pytest.mark.parametrize(
    ("text", "step"), [("1ep", 100), ("0.5ep", 50), ("500it", 500), ("5%", 50), ("0it", 0), (" 2 ep ", 200)]
)
def test_places_in_a_training(text: str, step: int) -> None:
    assert Step.parse(text).at(per_epoch=100, total=1000) == step


@pytest.mark.parametrize("text", ["", "ep", "1", "1 epoch", "-1ep", "1ep2it", "nan%"])
def test_what_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(PrunescopeError, match="written 1ep"):
        Step.parse(text)


def test_a_place_behind_the_end_is_refused() -> None:
    with pytest.raises(PrunescopeError, match="behind the end"):
        Step.parse("11ep").at(per_epoch=100, total=1000)
    assert str(Step.parse("0.50ep")) == "0.5ep"


@given(per_epoch=st.integers(1, 400), epochs=st.integers(1, 50), share=st.integers(0, 100))
def test_the_units_agree(per_epoch: int, epochs: int, share: int) -> None:
    total = per_epoch * epochs
    steps = Step.parse(f"{share}%").at(per_epoch, total)
    assert abs(steps - share * total / 100) <= 0.5
    assert Step.parse(f"{steps}it").at(per_epoch, total) == steps
    assert Step.parse(f"{epochs}ep").at(per_epoch, total) == Step.parse("100%").at(per_epoch, total) == total


@given(amount=st.integers(0, 10**6), unit=st.sampled_from(["ep", "it", "%"]))
def test_what_is_shown_can_be_read(amount: int, unit: str) -> None:
    step = Step(amount / 8, unit)
    assert Step.parse(str(step)) == step
