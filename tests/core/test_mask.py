"""The exact cut: counts, ties, nesting, and weights that never come back."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from prunescope.core.errors import PrunescopeError
from prunescope.core.mask import Mask, keep_top


@st.composite
def cuts(draw: st.DrawFn) -> tuple[dict[str, torch.Tensor], Mask, int]:
    """Scores with many ties, a mask with holes, and a count it can satisfy."""
    shapes = draw(st.lists(st.sampled_from([(3,), (2, 4), (2, 1, 3, 3), (1,)]), min_size=1, max_size=4))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    levels = draw(st.sampled_from([1, 2, 5, 1000]))
    scores, alive = {}, {}
    for i, shape in enumerate(shapes):
        scores[f"w{i}"] = torch.randint(levels, shape, generator=generator).float()
        alive[f"w{i}"] = torch.rand(shape, generator=generator) < 0.8
    mask = Mask(alive)
    return scores, mask, draw(st.integers(0, mask.kept))


def naive_keep_top(scores: dict[str, torch.Tensor], mask: Mask, count: int) -> dict[str, torch.Tensor]:
    """The definition, one weight at a time: by score, then by position, among those alive."""
    candidates = []
    position = 0
    for name, alive in mask.items():
        for i in range(alive.numel()):
            if alive.flatten()[i]:
                candidates.append((-scores[name].flatten()[i].item(), position, name, i))
            position += 1
    kept = {name: torch.zeros(alive.numel(), dtype=torch.bool) for name, alive in mask.items()}
    for _, _, name, i in sorted(candidates)[:count]:
        kept[name][i] = True
    return {name: flat.view_as(mask[name]) for name, flat in kept.items()}


@given(cuts())
@settings(max_examples=150, deadline=None)
def test_cut_equals_the_definition(case: tuple[dict[str, torch.Tensor], Mask, int]) -> None:
    scores, mask, count = case
    cut = keep_top(scores, mask, count)
    assert cut.kept == count
    assert cut.nested_in(mask)
    assert cut == Mask(naive_keep_top(scores, mask, count))


def test_all_scores_equal_keeps_the_first() -> None:
    mask = Mask({"a": torch.ones(4, dtype=torch.bool), "b": torch.ones(4, dtype=torch.bool)})
    cut = keep_top({"a": torch.zeros(4), "b": torch.zeros(4)}, mask, 5)
    assert cut["a"].all()
    assert cut["b"].tolist() == [True, False, False, False]


def test_nan_scores_of_dead_weights_do_not_matter_but_of_live_ones_do() -> None:
    mask = Mask({"w": torch.tensor([True, False, True])})
    assert keep_top({"w": torch.tensor([1.0, float("nan"), 2.0])}, mask, 1)["w"].tolist() == [False, False, True]
    with pytest.raises(PrunescopeError, match="NaN"):
        keep_top({"w": torch.tensor([float("nan"), 0.0, 1.0])}, mask, 1)


@pytest.mark.parametrize("count", [-1, 4])
def test_impossible_counts_are_refused(count: int) -> None:
    with pytest.raises(PrunescopeError, match="cannot keep"):
        keep_top({"w": torch.ones(3)}, Mask({"w": torch.ones(3, dtype=torch.bool)}), count)


def test_scores_of_another_shape_are_refused() -> None:
    with pytest.raises(PrunescopeError, match=r"shape \(3,\).*'w'"):
        keep_top({"w": torch.ones(2)}, Mask({"w": torch.ones(3, dtype=torch.bool)}), 1)


def test_apply_writes_positive_zero_also_over_nan() -> None:
    model = nn.Linear(3, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[-3.0, float("nan"), 2.0]]))
    Mask({"weight": torch.tensor([[False, False, True]])}).apply_(model)
    assert model.weight.tolist() == [[0.0, 0.0, 2.0]]
    assert not torch.signbit(model.weight).any()


def test_apply_refuses_another_network() -> None:
    with pytest.raises(PrunescopeError, match="no such parameter"):
        Mask({"other": torch.ones(3, dtype=torch.bool)}).apply_(nn.Linear(3, 1))


def test_a_mask_does_not_share_memory_with_what_it_was_made_of() -> None:
    tensor = torch.ones(2, dtype=torch.bool)
    mask = Mask({"w": tensor})
    tensor[0] = False
    assert mask.kept == 2


def test_intersection_and_nesting() -> None:
    a = Mask({"w": torch.tensor([True, True, False])})
    b = Mask({"w": torch.tensor([False, True, True])})
    assert (a & b)["w"].tolist() == [False, True, False]
    assert (a & b).nested_in(a)
    assert not a.nested_in(b)
    with pytest.raises(PrunescopeError, match="different parameters"):
        a.nested_in(Mask({"v": torch.ones(3, dtype=torch.bool)}))


def test_zeros_of_a_network_spell_its_mask() -> None:
    model = nn.Linear(3, 1)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.0, 1.0, -0.0]]))
    assert Mask.of_zeros(model, ["weight"])["weight"].tolist() == [[False, True, False]]


def test_only_booleans_make_a_mask() -> None:
    with pytest.raises(PrunescopeError, match="boolean"):
        Mask({"w": torch.ones(3)})
