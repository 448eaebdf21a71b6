from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prunescope.core.errors import PrunescopeError
from prunescope.data.subsets import stratified

labels = st.lists(st.integers(0, 4), min_size=1, max_size=60).map(torch.tensor)


@given(labels, st.data(), st.integers(0, 5))
def test_counts_shares_and_nesting(labels: torch.Tensor, data: st.DataObject, seed: int) -> None:
    n = len(labels)
    count = data.draw(st.integers(1, n))
    chosen = stratified(labels, count, seed=seed)
    assert chosen.tolist() == sorted(set(chosen.tolist()))
    assert len(chosen) == count
    there = labels.unique()
    for label in there:
        got, whole = int((labels[chosen] == label).sum()), int((labels == label).sum())
        assert abs(got - whole * count / n) <= len(there)
        assert got >= 1 or count < len(there)
    if count > 1:
        assert set(stratified(labels, count - 1, seed=seed).tolist()) < set(chosen.tolist())


def test_which_images_depends_on_the_seed_only() -> None:
    labels = torch.arange(200) % 4
    a, b, c = (stratified(labels, 40, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert torch.bincount(labels[a]).tolist() == [10] * 4


@pytest.mark.parametrize("count", [0, 6])
def test_impossible_counts_are_refused(count: int) -> None:
    with pytest.raises(PrunescopeError, match=r"1 \.\. 5"):
        stratified(torch.zeros(5), count, seed=0)
