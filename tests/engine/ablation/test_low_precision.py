"""Which worlds low precision may decide: what is measured, and what is doubted."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from prunescope.engine.ablation.deciders import CONTENDERS, doubtful, errors_of_gaps


def test_errors_of_contenders_are_told_from_those_of_all() -> None:
    other = torch.tensor([[9.0, 8, 7, 6, 5, 4, 3, 2, 1, 0]])
    exact = other.clone()
    exact[0, 2] += 0.5  # a contender
    exact[0, 8] -= 2  # far behind
    assert errors_of_gaps(exact, other).tolist() == [0.5, 2]
    exact[0, 0] += 1  # the largest itself: every gap is wrong by it
    assert errors_of_gaps(exact, other).tolist() == [1, 3]


def test_few_classes_are_all_contenders() -> None:
    other = torch.tensor([[1.0, 0, 3]])
    exact = other + torch.tensor([[0.25, 0, 0]])
    assert errors_of_gaps(exact, other).tolist() == [0.25, 0.25]
    assert doubtful(other, torch.tensor([2.0, 100])).tolist() == [True]
    assert doubtful(other, torch.tensor([1.9, 100])).tolist() == [False]


@given(st.integers(2, 20), st.integers(0, 10**6))
def test_where_there_is_no_doubt_errors_within_the_tolerance_change_no_class(classes: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    exact = torch.randn(200, classes, generator=generator)
    other = exact + torch.randn(exact.shape, generator=generator) * 0.2
    sure = ~doubtful(other, errors_of_gaps(exact, other))
    assert (exact.argmax(1) == other.argmax(1))[sure].all()
    order = other.topk(min(CONTENDERS + 2, classes), dim=1).values
    assert not sure[order[:, 0] == order[:, 1]].any()
