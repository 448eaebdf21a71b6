"""How our exact cut relates to that of open_lth, the reference code of the lottery tickets with late rewinding.

Written from a description of its counting: of the `remaining` weights over all prunable tensors (ignored ones
included), n = ceil(f x remaining); the threshold is the n-th (0-based) smallest magnitude among the survivors that
are not ignored; what lies strictly above it stays. So the threshold entry goes too (n + 1 weights without ties), and
with it everything equal to it. We keep exactly round(density x total).
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from prunescope.core.mask import Mask, keep_top
from prunescope.models.layers import prunable
from prunescope.models.zoo import build_model
from prunescope.pruning.criteria.magnitude import Magnitude
from prunescope.pruning.scoring import cut

Weights = dict[str, np.ndarray]


def open_lth(weights: Weights, masks: Weights, fraction: float, ignored: tuple[str, ...] = ()) -> Weights:
    """One level, in plain numpy and loops."""
    remaining = sum(int(mask.sum()) for mask in masks.values())
    n = math.ceil(fraction * remaining)
    survivors = []
    for name, mask in masks.items():
        if name not in ignored:
            survivors += [abs(float(w)) for w, m in zip(weights[name].ravel(), mask.ravel(), strict=True) if m]
    threshold = sorted(survivors)[n]
    return {
        name: mask if name in ignored else np.where(np.abs(weights[name].astype(float)) > threshold, mask, False)
        for name, mask in masks.items()
    }


def random_weights(seed: int, shapes: list[tuple[int, ...]]) -> Weights:
    """Distinct magnitudes: a permutation of 1 ... N with random signs."""
    generator = np.random.default_rng(seed)
    total = sum(int(np.prod(shape)) for shape in shapes)
    flat = (generator.permutation(total) + 1.0) * generator.choice([-1, 1], total)
    pieces = np.split(flat, np.cumsum([int(np.prod(shape)) for shape in shapes])[:-1])
    return {f"w{i}": piece.reshape(shape) for i, (piece, shape) in enumerate(zip(pieces, shapes, strict=True))}


def as_mask(masks: Weights) -> Mask:
    return Mask({name: torch.from_numpy(mask.astype(bool)) for name, mask in masks.items()})


def as_scores(weights: Weights) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(w).abs() for name, w in weights.items()}


def ones(weights: Weights) -> Weights:
    return {name: np.ones(w.shape, dtype=bool) for name, w in weights.items()}


@given(
    st.integers(0, 10**6),
    st.lists(st.sampled_from([(3, 4), (2, 3, 2, 2), (7, 5), (40,)]), min_size=1, max_size=4),
    st.floats(0.05, 0.6),
    st.integers(1, 3),
)
@settings(max_examples=60, deadline=None)
def test_with_its_count_and_no_ties_our_mask_is_its_mask(
    seed: int, shapes: list[tuple[int, ...]], fraction: float, levels: int
) -> None:
    masks = ones(random_weights(seed, shapes))
    for level in range(levels):
        weights = random_weights(seed + level, shapes)  # as retrained in between
        before = as_mask(masks)
        removed = math.ceil(fraction * before.kept) + 1
        if removed > before.kept:
            return  # open_lth has no threshold left to take
        masks = open_lth(weights, masks, fraction)
        theirs = as_mask(masks)
        assert before.kept - theirs.kept == removed
        assert keep_top(as_scores(weights), before, before.kept - removed) == theirs


@given(st.integers(0, 10**6), st.floats(0.05, 0.6))
@settings(max_examples=60, deadline=None)
def test_at_the_same_fraction_we_keep_the_same_and_one_or_two_more(seed: int, fraction: float) -> None:
    weights = random_weights(seed, [(3, 5), (2, 3, 2, 2), (30,)])
    theirs = as_mask(open_lth(weights, ones(weights), fraction))
    ours = keep_top(as_scores(weights), as_mask(ones(weights)), round((1 - fraction) * theirs.total))
    assert theirs.nested_in(ours)
    assert 1 <= ours.kept - theirs.kept <= 2  # the threshold entry, and one when its ceil and our round differ
    extra = [abs(weights[n][(ours[n] & ~theirs[n]).numpy()]) for n in ours]
    lowest_of_theirs = min(abs(weights[n][theirs[n].numpy()]).min() for n in ours if theirs[n].any())
    assert max(values.max() for values in extra if values.size) < lowest_of_theirs


def test_ties_at_the_threshold_all_go_there_and_by_position_here() -> None:
    weights = {"w": np.array([5.0, 1.0, -1.0, 1.0, 2.0, 1.0, -3.0, 4.0, 1.0, 6.0])}
    theirs = as_mask(open_lth(weights, ones(weights), 0.2))
    assert theirs["w"].tolist() == [True, False, False, False, True, False, True, True, False, True]
    ours = keep_top(as_scores(weights), as_mask(ones(weights)), 8)
    assert ours["w"].tolist() == [True, True, True, True, True, False, True, True, False, True]


def test_ignored_layers_count_as_remaining_so_the_others_lose_more() -> None:
    weights = random_weights(3, [(10, 10), (5, 20)])
    theirs = as_mask(open_lth(weights, ones(weights), 0.2, ignored=("w1",)))
    assert theirs["w1"].all()
    assert int(theirs["w0"].sum()) == 100 - (math.ceil(0.2 * 200) + 1)  # 59, although 20 % of w0 would leave 80
    only = Mask({"w0": torch.ones(10, 10, dtype=torch.bool)})
    assert keep_top(as_scores(weights), only, 59)["w0"].equal(theirs["w0"])


@pytest.mark.parametrize("fraction", [0.2, 0.1])
def test_over_the_levels_its_density_falls_behind_by_a_few_weights_ours_does_not(fraction: float) -> None:
    weights = random_weights(0, [(100, 100), (50, 20, 3, 3)])
    masks, ours = ones(weights), as_mask(ones(weights))
    total = ours.total
    for level in range(1, 13):
        masks = open_lth(weights, masks, fraction)
        ours = keep_top(as_scores(weights), ours, round((1 - fraction) ** level * total))
        behind = (1 - fraction) ** level * total - as_mask(masks).kept
        assert 1 <= behind <= sum(2 * (1 - fraction) ** i for i in range(level))  # 1 to 2 a level, then shrunk too
        assert abs(ours.kept - (1 - fraction) ** level * total) <= 0.5


def test_on_a_network_the_two_agree_through_three_levels() -> None:
    model = build_model("resnet8", classes=10, channels=3, seed=0)
    names = prunable(model)
    kinds = {type(model.get_submodule(name.rpartition(".")[0])) for name in names}
    assert kinds <= {nn.Conv2d, nn.Linear}  # what open_lth prunes: no batch norm, no biases
    parameters = dict(model.named_parameters())
    weights = {name: parameters[name].detach().numpy() for name in names}
    masks = ones(weights)
    ours = Mask.dense(model, names)
    for level in (1, 2, 3):
        masks = open_lth(weights, masks, 0.2)
        ours = cut(model, ours, Magnitude(), keep=0.8**level)
        theirs = as_mask(masks)
        assert theirs.nested_in(ours)
        assert 1 <= ours.kept - theirs.kept <= 2 * level + 1
