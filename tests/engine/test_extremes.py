"""The most extreme images of every channel, beside a sort of all activations at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from prunescope.core.errors import PrunescopeError
from prunescope.data.split import Normalisation, Split
from prunescope.engine.extremes import NOWHERE, ExtremesGatherer, Ranked, extremes
from prunescope.engine.rank_keys import lots_of, rank_keys, values_of
from prunescope.engine.sweep import sweep


def whole_numbers(seed: int, side: int = 8) -> nn.Sequential:
    """Weights and images of small whole numbers: sums are exact in whatever order, and ties are common."""
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(2, 5, 3, stride=2), nn.ReLU(inplace=True), nn.Conv2d(5, 4, 2), nn.Flatten(),
        nn.Linear(4 * ((side - 1) // 2 - 1) ** 2, 3),
    )  # fmt: skip
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randint(-1, 2, parameter.shape, generator=generator))
    return model


def images(n: int, seed: int = 0, high: int = 3) -> Split:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, high, (n, 2, 8, 8), generator=generator, dtype=torch.uint8)
    return Split(
        pixels, torch.zeros(n), np.arange(n).astype(str), ("a",), Normalisation((0.0, 0.0), (1 / 255, 1 / 255))
    )


def maps_of(model: nn.Sequential, split: Split, layer: int) -> Tensor:
    """(N, C, h, w) of one layer, by calling the layers one after the other."""
    x = split.normalisation(split.images[:])
    for module in list(model)[: layer + 1]:
        x = F.relu(x) if isinstance(module, nn.ReLU) else module(x)
    return x.detach() if x.ndim == 4 else x.detach()[:, :, None, None]


def naive(maps: Tensor, k: int, pool: str, sign: int) -> tuple[list[list[Any]], ...]:
    """Sort every image of every channel by value, then image; its place is the first that has the value."""
    values, found, rows, columns = [], [], [], []
    n, channels, h, w = maps.shape
    for channel in range(channels):
        entries = []
        for image in range(n):
            places = [(maps[image, channel, r, c].item(), r, c) for r in range(h) for c in range(w)]
            if pool == "max":
                value, r, c = max(places, key=lambda p: (p[0], -p[1], -p[2]))
            elif pool == "centre":
                value, r, c = next(p for p in places if p[1:] == (h // 2, w // 2))
            else:
                value, r, c = sum(p[0] for p in places) / len(places), NOWHERE, NOWHERE
            entries.append((sign * value, image, r, c))
        entries = sorted(entries)[:k]
        for column, into in enumerate((values, found, rows, columns)):
            into.append([sign * entry[column] if column == 0 else entry[column] for entry in entries])
    return values, found, rows, columns


def same(ranked: Ranked, expected: tuple[list[list[Any]], ...]) -> None:
    np.testing.assert_allclose(ranked.values, expected[0], rtol=1e-6)
    for got, want in zip((ranked.images, ranked.rows, ranked.columns), expected[1:], strict=True):
        assert got.tolist() == want


@pytest.mark.parametrize("pool", ["max", "mean", "centre"])
@pytest.mark.parametrize("batch_size", [1, 7, 20])
def test_equal_to_a_sort_of_all_activations(pool: Any, batch_size: int) -> None:
    model, split = whole_numbers(1), images(20)
    found = extremes(model, split, ["0", "2", "4"], k=6, pool=pool, batch_size=batch_size)
    ties = 0
    for layer, item in found.items():
        maps = maps_of(model, split, int(layer))
        same(item.top, naive(maps, 6, pool, -1))
        same(item.bottom, naive(maps, 6, pool, 1))
        ties += int((np.diff(item.top.values) == 0).sum())
    assert pool == "mean" or ties > 5


@given(n=st.integers(1, 12), k=st.integers(1, 14), batch_size=st.integers(1, 13), seed=st.integers(0, 50))
@settings(max_examples=25, deadline=None)
def test_any_number_of_images_in_any_batches(n: int, k: int, batch_size: int, seed: int) -> None:
    model, split = whole_numbers(seed), images(n, seed, high=2)
    item = extremes(model, split, ["0"], k=k, batch_size=batch_size)["0"]
    maps = maps_of(model, split, 0)
    same(item.top, naive(maps, k, "max", -1))
    same(item.bottom, naive(maps, k, "max", 1))
    assert item.top.values.shape == (5, min(n, k))


def test_dead_is_what_no_image_changes() -> None:
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, bias=True), nn.ReLU(), nn.Conv2d(4, 2, 3, padding=1), nn.Flatten()
    )
    with torch.no_grad():
        model[0].weight[0] = 0  # constant: its bias
        model[0].weight[1], model[0].bias[1] = -1, -5  # varies, and never passes the ReLU
        model[0].weight[2:], model[0].bias[2:] = 1, 0
        model[0].bias[3] = -20  # behind the ReLU its smallest activation is 0 in every image, its largest varies
        model[2].weight[0] = 0
        model[2].weight[0, 0] = 1  # reads the constant only: varies towards the border, with no image
        model[0].bias[0] = 2
    found = extremes(model, images(5), ["0", "1", "2"])
    assert found["0"].dead.tolist() == [True, False, False, False]
    assert found["1"].dead.tolist() == [True, True, False, False]
    assert found["1"].bottom.values[3].min() > 0
    assert extremes(model, images(5), ["1"], pool="centre")["1"].bottom.values[3].min() == 0
    assert found["2"].dead.tolist() == [True, False]
    assert extremes(model, images(1), ["0"])["0"].dead.tolist() == [True, False, False, False]


def test_a_channel_that_reaches_both_bounds_in_every_image_is_not_dead() -> None:
    model = nn.Sequential(nn.Conv2d(2, 1, 1), nn.Hardtanh(0, 1), nn.Flatten())
    with torch.no_grad():
        model[0].weight[:], model[0].bias[:] = 2, 0
    found = extremes(model, images(5), ["1"])["1"]
    assert found.top.values.tolist() == [[1.0] * 5]
    assert not found.dead.any()


def test_the_record_holds_what_was_found() -> None:
    gatherer = ExtremesGatherer(["0", "2"], k=2, split="val")
    (record,) = sweep(whole_numbers(0), {"val": images(4)}, [gatherer])
    assert record.info == {"k": 2, "pool": "max", "split": "val"}
    assert len(record.arrays) == 2 * (2 + 2 * 4)
    assert record.arrays["2/bottom.columns"].tolist() == gatherer.found["2"].bottom.columns.tolist()
    assert record.arrays["0/dead"].tolist() == [False] * 5


def test_what_cannot_be_ranked_is_refused() -> None:
    model, split = whole_numbers(0), images(3)
    with pytest.raises(PrunescopeError, match="k must be at least 1 image, got 0"):
        extremes(model, split, ["0"], k=0)
    with pytest.raises(PrunescopeError, match="unknown pool 'maximum' in extremes"):
        extremes(model, split, ["0"], pool="maximum")  # type: ignore[arg-type]
    with pytest.raises(PrunescopeError, match="unknown layer '9'"):
        extremes(model, split, ["9"])
    with pytest.raises(PrunescopeError, match="no images"):
        extremes(model, images(0), ["0"])
    with pytest.raises(PrunescopeError, match=r"layer '0' gives \(3, 2, 64\)"):
        extremes(nn.Sequential(nn.Flatten(2), nn.Linear(64, 3)), split, ["0"])
    with torch.no_grad():
        model[0].weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(PrunescopeError, match="layer '0' are not finite"):
        extremes(model, split, ["0"])


def test_a_seed_draws_among_equal_images_whatever_the_batches() -> None:
    """Beside a sort by value and lot of all images at once; and every image has the same chance."""
    model, split = whole_numbers(1), images(40, high=2)
    first, again, other = (
        extremes(model, split, ["2"], k=6, seed=seed, batch_size=size)["2"] for seed, size in ((0, 7), (0, 40), (1, 7))
    )
    for end in ("top", "bottom"):
        a, b, c = (getattr(item, end) for item in (first, again, other))
        assert a.images.tolist() == b.images.tolist() != c.images.tolist()
        np.testing.assert_array_equal(a.values, c.values)  # only which of equal images, never which value
    values = maps_of(model, split, 2).flatten(2).max(2).values.numpy()
    for channel, chosen in enumerate(first.top.images):
        np.testing.assert_array_equal(values[chosen, channel], first.top.values[channel])
        assert len(set(chosen.tolist())) == 6


def test_equal_images_are_drawn_evenly_and_never_at_both_ends() -> None:
    model = nn.Sequential(nn.Conv2d(2, 300, 1), nn.Flatten())
    with torch.no_grad():
        model[0].weight.zero_()  # type: ignore[union-attr, operator]
    item = extremes(model, images(20), ["0"], k=10, pool="mean", seed=3)["0"]
    assert item.tied.all()
    counts = np.bincount(item.top.images.ravel(), minlength=20)  # binomial: 150 +- 8.7
    assert np.abs(counts - 150).max() < 40
    assert len({tuple(row) for row in item.top.images.tolist()}) == 300
    for top, bottom in zip(item.top.images, item.bottom.images, strict=True):
        assert not set(top) & set(bottom)


def test_lots_of_a_channel_are_all_different_and_even() -> None:
    lots = lots_of(torch.arange(20_000)[:, None].expand(-1, 3), seed=12345)
    for column in lots.T:
        assert len(column.unique()) == 20_000
        counts = torch.bincount(column >> 28, minlength=16)  # binomial: 1250 +- 34
        assert (counts - 1250).abs().max() < 140
    between = np.corrcoef(lots.T.numpy())[np.triu_indices(3, 1)]
    assert np.abs(between).max() < 4 / np.sqrt(20_000)


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=2, max_size=20))
def test_keys_go_by_value_and_then_by_lot(numbers: list[float]) -> None:
    values = torch.tensor(numbers)
    lots = torch.arange(len(numbers))
    keys = rank_keys(values, lots)
    order = sorted(range(len(numbers)), key=lambda i: (-numbers[i], i))
    assert keys.argsort(descending=True).tolist() == order
    assert torch.equal(values_of(keys), values)


def test_tied_is_where_an_image_left_out_equals_the_last_one_taken() -> None:
    model, split = whole_numbers(3), images(20)
    for k in (1, 4, 20, 30):
        for layer, item in extremes(model, split, ["0", "2", "4"], k=k, batch_size=6).items():
            values = np.sort(maps_of(model, split, int(layer)).flatten(2).max(2).values.numpy(), axis=0)
            expected = [k < 20 and (column[k - 1] == column[k] or column[-k] == column[-k - 1]) for column in values.T]
            assert item.tied.tolist() == expected


def test_pooled_layers_are_ranked_by_the_mean() -> None:
    model, split = whole_numbers(2), images(15)
    plain = extremes(model, split, ["0", "4"], k=5, pool="mean", seed=0)
    pooled = extremes(model, split, ["0:pooled", "4:pooled"], k=5, seed=0)
    for layer, item in plain.items():
        np.testing.assert_allclose(pooled[f"{layer}:pooled"].top.values, item.top.values, rtol=1e-6)
        np.testing.assert_allclose(pooled[f"{layer}:pooled"].bottom.values, item.bottom.values, rtol=1e-6)
