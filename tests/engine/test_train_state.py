"""Whose a training state is."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from prunescope.engine.train_state import identity

PARTS = st.lists(st.one_of(st.integers(), st.text(), st.none(), st.tuples(st.text(), st.integers())))


@given(a=PARTS, b=PARTS)
def test_equal_parts_and_no_others_have_the_same_identity(a: list[object], b: list[object]) -> None:
    assert (identity(*a) == identity(*b)) == (a == b)


def test_tuples_are_not_flattened() -> None:
    assert len({identity("a", 1), identity(("a", 1)), identity(("a",), 1), identity("a1")}) == 4


@given(bits=st.lists(st.booleans(), min_size=1), data=st.data())
def test_every_element_of_a_tensor_counts(bits: list[bool], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(bits) - 1))
    other = [not bit if i == place else bit for i, bit in enumerate(bits)]
    assert identity(("w", torch.tensor(bits))) == identity(("w", torch.tensor(bits)))
    assert identity(("w", torch.tensor(bits))) != identity(("w", torch.tensor(other)))
