"""Shares of layers: their sum, their order, and the published algorithms."""

from __future__ import annotations

from math import prod

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_nets import PRUNABLE, tiny_net

from prunescope.core.errors import PrunescopeError
from prunescope.core.mask import Mask
from prunescope.pruning.granularity import granularity
from prunescope.pruning.recipe import Recipe
from prunescope.pruning.scope import layer_densities
from prunescope.pruning.scoring import criterion, cut

SHAPES = st.lists(
    st.one_of(
        st.tuples(st.integers(1, 64), st.integers(1, 64)),
        st.tuples(st.integers(1, 64), st.integers(1, 64), st.integers(1, 5), st.integers(1, 5)),
    ),
    min_size=3,
    max_size=8,
)


def rigl_erk(shapes: list[tuple[int, ...]], density: float) -> list[float]:
    """As in the code of Evci et al. (2020), by zeros and ones: one layer after the other becomes dense."""
    dense: set[int] = set()
    while True:
        divisor, right = 0.0, 0.0
        raw = [sum(shape) / prod(shape) for shape in shapes]
        for i, shape in enumerate(shapes):
            zeros, ones = prod(shape) * (1 - density), prod(shape) * density
            if i in dense:
                right -= zeros
            else:
                right += ones
                divisor += raw[i] * prod(shape)
        epsilon = right / divisor
        largest = max(raw[i] for i in range(len(shapes)) if i not in dense)
        if largest * epsilon <= 1:
            return [1.0 if i in dense else epsilon * raw[i] for i in range(len(shapes))]
        dense |= {i for i in range(len(shapes)) if raw[i] == largest}


@settings(max_examples=100, deadline=None)
@given(SHAPES, st.floats(0.01, 0.99))
def test_erk_is_the_published_algorithm(shapes: list[tuple[int, ...]], density: float) -> None:
    named = {str(i): shape for i, shape in enumerate(shapes)}
    found = layer_densities(named, density, "erk")
    assert list(found.values()) == pytest.approx(rigl_erk(shapes, density), abs=1e-9)


@settings(max_examples=100, deadline=None)
@given(SHAPES, st.floats(0.01, 0.99), st.sampled_from(["layer", "erk", "uniform+"]))
def test_shares_make_up_the_density_and_fall_with_it(shapes: list[tuple[int, ...]], density: float, scope: str) -> None:
    named = {str(i): shape for i, shape in enumerate(shapes)}
    sizes = {name: prod(shape) for name, shape in named.items()}
    least = (sizes["0"] + 0.2 * sizes[str(len(shapes) - 1)]) / sum(sizes.values())
    if scope == "uniform+" and density < least:
        with pytest.raises(PrunescopeError, match=f"{least:.1%}"):
            layer_densities(named, density, scope)
        return
    shares = layer_densities(named, density, scope)  # type: ignore[arg-type]
    assert all(0 <= share <= 1 + 1e-9 for share in shares.values())
    assert sum(shares[name] * sizes[name] for name in sizes) == pytest.approx(density * sum(sizes.values()))
    more = layer_densities(named, (1 + density) / 2, scope)  # type: ignore[arg-type]
    assert all(more[name] >= shares[name] - 1e-9 for name in sizes)


@pytest.mark.parametrize("density", [0.9, 0.5, 0.35])
def test_uniform_plus_spares_the_ends(density: float) -> None:
    shapes = {"first": (16, 3, 3, 3), "a": (32, 16, 3, 3), "b": (32, 32, 1, 1), "last": (100, 64)}
    shares = layer_densities(shapes, density, "uniform+")
    assert shares["first"] == 1
    assert shares["a"] == shares["b"]
    assert shares["last"] == max(0.2, shares["a"])


@pytest.mark.parametrize("units", ["weight", "filter"])
@pytest.mark.parametrize("scope", ["erk", "uniform+"])
def test_cuts_keep_each_layer_s_share_exactly(scope: str, units: str) -> None:
    model, names = tiny_net(), PRUNABLE
    whole = Mask.dense(model, names)
    shapes = {name: kept.shape for name, kept in whole.items()}
    shares = layer_densities(shapes, 0.6, scope)  # type: ignore[arg-type]
    mask = cut(model, whole, criterion("magnitude"), keep=0.6, scope=scope, granularity=granularity(units))  # type: ignore[arg-type]
    for name, kept in mask.items():
        count = kept.numel() if units == "weight" else len(kept)
        stays = int(kept.sum()) if units == "weight" else int(kept.flatten(1).any(1).sum())
        assert stays == round(shares[name] * count)


def test_rounds_nest() -> None:
    model, mask = tiny_net(), Mask.dense(tiny_net(), PRUNABLE)
    for density in (0.7, 0.5, 0.3):
        before = mask
        mask = cut(model, mask, criterion("random"), keep=density, scope="erk", seed=int(100 * density))
        assert mask.nested_in(before)
        assert mask.density == pytest.approx(density, abs=0.5 * len(PRUNABLE) / mask.total)


def test_scopes_are_read_and_refused() -> None:
    assert Recipe("r", scope="erk").scope == "erk"
    with pytest.raises(PrunescopeError, match="did you mean 'uniform\\+'"):
        Recipe("r", scope="uniform")  # type: ignore[arg-type]
    with pytest.raises(PrunescopeError, match="takes three, there are 2"):
        layer_densities({"a": torch.Size((2, 2)), "b": (3, 3)}, 0.5, "uniform+")
