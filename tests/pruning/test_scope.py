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
from prunescope.pruning.scope import Sensitivity, Table, layer_densities, read_scope
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
    sizes = {name: kept.numel() if units == "weight" else len(kept) for name, kept in whole.items()}
    shares = layer_densities(shapes, 0.6, scope, sizes)  # type: ignore[arg-type]
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


@given(SHAPES, st.floats(0.05, 1), st.data())
@settings(max_examples=60, deadline=None)
def test_a_table_is_scaled_until_the_density_comes_out(
    shapes: list[tuple[int, ...]], density: float, data: st.DataObject
) -> None:
    named = {f"layer{i}": shape for i, shape in enumerate(shapes)}
    rates = {name: data.draw(st.floats(0.1, 0.9)) for name in named}
    sizes = {name: prod(shape) for name, shape in named.items()}
    if density * sum(sizes.values()) < len(sizes):
        return  # lower than one weight a layer
    shares = layer_densities(named, density, Table(rates))
    assert sum(shares[name] * sizes[name] for name in named) == pytest.approx(density * sum(sizes.values()))
    factors = [(1 - shares[name]) / rates[name] for name in named if shares[name] * sizes[name] > 1 + 1e-9]
    assert max(factors) - min(factors) < 1e-6  # one factor for all that are not at their end
    for name in named:  # who is at the end would have lost more
        if shares[name] * sizes[name] <= 1 + 1e-9:
            assert all((1 - 1 / sizes[name]) / rates[name] <= factor + 1e-6 for factor in factors)


def test_a_table_s_first_match_counts_and_what_it_does_not_name_stays() -> None:
    model = tiny_net()
    table = Table({"conv1.weight": 0.2, "conv*": 0.6})
    mask = cut(model, Mask.dense(model, PRUNABLE), criterion("magnitude"), keep=0.8, scope=table)
    gone = {name: 1 - float(kept.float().mean()) for name, kept in mask.items()}
    assert gone["head.weight"] == 0
    assert gone["conv2.weight"] / gone["conv1.weight"] == pytest.approx(3, rel=0.05)
    assert mask.kept == pytest.approx(0.8 * mask.total, abs=1)


@pytest.mark.parametrize(("rates", "words"), [
    ({"conv9": 0.5}, "scope.rates: 'conv9' matches no parameter and no module .*; did you mean 'conv2' or 'conv1'"),
    ({"conv1": 1.0}, r"share that goes, in \[0, 1\)"),
    ({"conv1": "much"}, "share that goes"),
    ({}, "not all 0"),
    ({"head": 0.5}, "hold too little: at least"),
])  # fmt: skip
def test_tables_that_cannot_be_are_refused(rates: dict[str, float], words: str) -> None:
    model = tiny_net()
    with pytest.raises(PrunescopeError, match=words):
        cut(model, Mask.dense(model, PRUNABLE), criterion("magnitude"), keep=0.3, scope=Table(rates))


def test_a_scan_must_come_before_its_cut() -> None:
    model = tiny_net()
    with pytest.raises(PrunescopeError, match="must be measured first"):
        cut(model, Mask.dense(model, PRUNABLE), criterion("magnitude"), keep=0.3, scope=Sensitivity())


@pytest.mark.parametrize(("spec", "words"), [
    ("globally", "did you mean 'global'"),
    ({"name": "tabel"}, "did you mean 'table'"),
    ({"name": "sensitivity", "tolerance": 0}, "tolerance is the accuracy"),
    ({"name": "sensitivity", "rates": [0.5, 0.2]}, "rising"),
    ({"name": "sensitivity", "images": -1}, "at least 0"),
    (3, "expected a name or a mapping"),
])  # fmt: skip
def test_scopes_that_cannot_be_read_are_refused(spec: object, words: str) -> None:
    with pytest.raises(PrunescopeError, match=words):
        read_scope(spec, "recipes[0].scope")
