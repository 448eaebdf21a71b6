"""Orders of removal, curves along them, Shapley values and diversity: beside loops over hooked copies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import permutations
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_greedy import SIZES, images, logits_without, net, planted
from torch import Tensor

from prunescope.core.errors import PrunescopeError
from prunescope.core.mask import Mask
from prunescope.engine.ablation.ablate import Ablator
from prunescope.engine.without import predictions
from prunescope.metrics.ablation import order
from prunescope.pruning.diversity import diversity
from prunescope.pruning.granularity import granularity
from prunescope.pruning.greedy import greedy
from prunescope.pruning.removals import car_table, one_shot, removal_curve, removal_order
from prunescope.pruning.scoring import criterion, cut
from prunescope.pruning.shapley import shapley_values

UNITS = [(layer, channel) for layer, count in SIZES.items() for channel in range(count)]


def gone_of(order: Sequence[tuple[str, int]]) -> dict[str, list[int]]:
    return {layer: [c for name, c in order if name == layer] for layer in dict.fromkeys(name for name, _ in order)}


def accuracy(model: Any, split: Any, gone: Any) -> float:
    return float((logits_without(model, split, gone).argmax(1) == split.labels).double().mean())


def batches() -> Iterator[tuple[Tensor, Tensor]]:
    split = images(40)
    for _, x, y in split.batches(16):
        yield x, y


# Many sets in one pass


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sets(st.sampled_from(UNITS), max_size=8), max_size=5), st.integers(0, 99))
def test_sets_of_channels_are_taken_out_as_hooks_do(sets: list[set[tuple[str, int]]], seed: int) -> None:
    """Neighbours may differ in any way: channels come back, layers change places."""
    model, split = net(seed), images(11, seed)
    ablator = Ablator(model, split)
    ablator.batch_size = 4
    found = predictions(ablator, split, [gone_of(sorted(one)) for one in sets])
    assert found.shape == (len(sets), 11)
    for row, one in zip(found, sets, strict=True):
        assert row.tolist() == logits_without(model, split, gone_of(sorted(one))).argmax(1).tolist()


def test_images_of_another_shape_and_unknown_channels_are_refused() -> None:
    ablator = Ablator(net(), images())
    with pytest.raises(PrunescopeError, match="captured for images"):
        predictions(ablator, planted()[1], [{}])
    with pytest.raises(PrunescopeError, match="two has channels 0 to 3, each once; got \\[4\\]"):
        predictions(ablator, images(), [{"two": [4]}])
    with pytest.raises(PrunescopeError, match="unknown layer with units 'head'"):
        predictions(ablator, images(), [{"head": [0]}])


@pytest.mark.parametrize("seed", [0, 1, 3])
def test_a_curve_is_accuracy_and_recall_without_all_that_went(seed: int) -> None:
    model, split, chosen = net(seed), images(70, seed, "reported"), images(seed=seed)
    removals = [UNITS[i] for i in np.random.default_rng(seed).permutation(len(UNITS))[:9]]
    found = removal_curve(Ablator(model, chosen), split, removals)
    assert found.accuracy.shape == (10,)
    for steps in range(10):
        said = logits_without(model, split, gone_of(removals[:steps])).argmax(1)
        right = (said == split.labels).double().numpy()
        assert found.accuracy[steps] == pytest.approx(right.mean())
        for c in range(3):
            of_class = right[split.labels.numpy() == c]
            assert found.recall[steps, c] == pytest.approx(of_class.sum() / len(of_class))


def test_the_curve_of_a_greedy_order_is_the_greedy_run_s() -> None:
    model, split, other = net(3), images(seed=3), images(50, 3, "reported")
    run = greedy(model, split, report=other, per_layer=False)
    ablator = Ablator(model, split)
    np.testing.assert_allclose(
        removal_curve(ablator, split, run.order).accuracy, [run.accuracy, *(step.accuracy for step in run.steps)]
    )
    np.testing.assert_allclose(
        removal_curve(ablator, other, run.order).accuracy, [run.report, *(step.report for step in run.steps)]
    )
    with pytest.raises(PrunescopeError, match="each once"):
        removal_curve(ablator, split, [("one", 1), ("one", 1)])


def test_a_class_without_images_has_no_recall() -> None:
    split = images(30)
    part = split.subset(torch.nonzero(split.labels != 1).flatten())
    found = removal_curve(Ablator(net(), part), part, [("one", 0)])
    assert np.isnan(found.recall[:, 1]).all()
    assert np.isfinite(found.recall[:, [0, 2]]).all()


# Orders


def test_one_shot_ranks_once_by_car() -> None:
    model, split = net(4), images(seed=4)
    dense = accuracy(model, split, {})
    cars = {unit: dense - accuracy(model, split, {unit[0]: [unit[1]]}) for unit in UNITS}
    found = one_shot(Ablator(model, split))
    assert [cars[unit] for unit in found] == sorted(cars[unit] for unit in found)
    assert len(found) == len(UNITS) - len(SIZES)
    table = car_table(Ablator(model, split))
    np.testing.assert_allclose(table.car, list(cars.values()))
    shares = np.bincount(split.labels.numpy(), minlength=3) / len(split)
    np.testing.assert_allclose(np.nansum(table.class_car * shares, axis=1), table.car, atol=1e-12)
    last = dict(UNITS[i] for i in order(table).order)
    assert set(last.items()) == set(UNITS) - set(found)


@pytest.mark.parametrize(
    ("name", "options"),
    [("magnitude", {"p": 1}), ("magnitude", {"p": 2}), ("random", {}), ("taylor-gate", {}), ("apoz", {})],
)
@pytest.mark.parametrize("layers", [["two"], ["three", "one"]])
def test_an_order_is_the_one_in_which_cuts_of_filters_take_them(name: str, options: Any, layers: list[str]) -> None:
    model, by, units = net(), criterion(name, **options), granularity("filter")
    found = removal_order(by, model, layers, batches=batches, seed=3)
    whole = Mask.dense(model, [f"{layer}.weight" for layer in layers])
    total = sum(SIZES[layer] for layer in layers)
    for count in range(len(found) + 1):
        left = cut(model, whole, by, keep=(total - count) / total, granularity=units, batches=batches, seed=3)
        gone = {(name.removesuffix(".weight"), c) for name, kept in left.items()
                for c in (~kept.flatten(1).any(1)).nonzero().flatten().tolist()}  # fmt: skip
        if any(len({c for layer, c in gone if layer == name}) == SIZES[name] for name in layers):
            break  # a cut may take the last one, an order does not
        assert gone == set(found[:count])
    assert count >= 2


def test_equal_scores_go_as_in_a_cut_the_last_first() -> None:
    model = net()
    with torch.no_grad():
        model.two.weight.fill_(0.1)
    assert removal_order(criterion("magnitude"), model, ["two"]) == (("two", 3), ("two", 2), ("two", 1))


@pytest.mark.parametrize(("members", "p"), [("outgoing", 1), ("outgoing", 2), ("both", 1)])
def test_weights_that_read_a_channel_are_those_of_a_loop(members: Any, p: int) -> None:
    model = net()
    w = {name: parameter.detach().abs() ** p for name, parameter in model.named_parameters()}
    # across adds the channels of `two` to those of `three`, so that the same weights read both.
    readers = {
        "one": [w["two.weight"][:, c] for c in range(5)],
        "two": [torch.cat([w["three.weight"][:, c].flatten(), w["hidden.weight"][:, c]]) for c in range(4)],
        "hidden": [w["head.weight"][:, c] for c in range(3)],
    }
    for layer, read in readers.items():
        own = [w[f"{layer}.weight"][c].flatten() for c in range(SIZES[layer])]
        parts = [
            torch.cat([r.flatten(), o]) if members == "both" else r.flatten() for r, o in zip(read, own, strict=True)
        ]
        wanted = torch.stack([part.mean() for part in parts]).argsort()[:-1]
        found = removal_order(criterion("magnitude", p=p), model, [layer], members=members, shape=(3, 6, 6))
        assert [channel for _, channel in found] == wanted.tolist()


def test_orders_leave_the_network_alone_and_refuse_what_is_not_there() -> None:
    model = net()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    removal_order(criterion("taylor-gate"), model, ["one"], batches=batches)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with pytest.raises(PrunescopeError, match="unknown layer with weights 'tow'; did you mean 'two'"):
        removal_order(criterion("magnitude"), model, ["tow"])
    with pytest.raises(PrunescopeError, match="nothing reads the channels of 'head'"):
        removal_order(criterion("magnitude"), model, ["head"], members="outgoing", shape=(3, 6, 6))
    with pytest.raises(PrunescopeError, match="needs training data"):
        removal_order(criterion("taylor-gate"), model, ["one"])


# Shapley values


def test_enough_orders_come_to_the_mean_over_all_of_them() -> None:
    model, split = net(3), images(60, 3)
    units = [("two", c) for c in range(4)] + [("hidden", 1)]
    value = {}
    for mask in range(2 ** len(units)):
        gone = [unit for i, unit in enumerate(units) if mask >> i & 1]
        value[mask] = accuracy(model, split, gone_of(gone))
    exact, walks = np.zeros(len(units)), list(permutations(range(len(units))))
    for walk in walks:
        gone = 0
        for unit in walk:
            exact[unit] += value[gone] - value[gone | 1 << unit]
            gone |= 1 << unit
    exact /= len(walks)
    found = shapley_values(Ablator(model, split), {"two": range(4), "hidden": [1]}, budget=2 + 4 * 1200, seed=0)
    assert found.units == tuple(units)
    assert found.found.samples == 1200
    assert found.found.values.sum() == pytest.approx(value[0] - value[2 ** len(units) - 1])
    assert (np.abs(found.found.values - exact) <= 4 * found.found.errors + 1e-12).all()
    assert np.ptp(exact) > 20 * found.found.errors.max()  # else the line above would say little
    assert [dict(zip(units, found.found.values, strict=True))[unit] for unit in found.order] == sorted(
        found.found.values
    )


def test_truncation_ends_walks_and_nothing_is_asked_beyond_the_budget() -> None:
    model, split = planted()
    ablator = Ablator(model, split)
    found = shapley_values(ablator, ["0"], budget=200, seed=1, antithetic=True)
    assert found.found.evaluations <= 200
    assert found.found.values[0] == pytest.approx(found.found.values[3], abs=0.06)  # twins share
    assert found.found.values[4] == pytest.approx(0)
    assert found.found.values[2] == pytest.approx(1 / 3)
    short = shapley_values(ablator, ["0"], budget=200, seed=1, tolerance=0.01, patience=1)
    assert short.found.truncated > 0
    with pytest.raises(PrunescopeError, match="budget of at least 6 sets"):
        shapley_values(ablator, ["0"], budget=5, seed=1)


# Diversity


def test_diversity_falls_when_the_last_of_a_kind_goes() -> None:
    model, split = planted()
    noise = torch.randint(0, 9, split.images.shape, generator=torch.Generator().manual_seed(0))  # type: ignore[arg-type]
    split.images.sub_(noise.to(torch.uint8))  # type: ignore[attr-defined]
    found = diversity(model, split, [("0", 4), ("0", 0), ("0", 2), ("0", 3)], maps={"0": "1"})["0"]
    assert found.order.tolist() == [4, 0, 2, 3]
    assert found.clusters.tolist() == [0, 1, 2, 0, -1]
    assert found.kept.tolist() == pytest.approx([1, 1, 1, 2 / 3, 1 / 3])
    assert np.isnan(found.redundancy[0])
    assert found.redundancy[1] == pytest.approx(1)
    assert (found.redundancy[2:] < 0).all()


def test_diversity_of_layers_is_read_where_one_says() -> None:
    model, split = net(), images(40)
    removals = one_shot(Ablator(model, split), ["one", "two"])
    found = diversity(model, split, removals, maps={"two": "second"})
    assert list(found) == list(dict.fromkeys(layer for layer, _ in removals))
    maps: dict[str, Tensor] = {}
    model.one.register_forward_hook(lambda _m, _i, out: maps.update(one=out.detach().clone()))
    model.second.register_forward_hook(lambda _m, _i, out: maps.update(two=out.detach().clone()))
    with torch.no_grad():
        model(split.normalisation(split.images))
    for layer, one in found.items():
        values = maps[layer].transpose(0, 1).flatten(1).double().numpy()
        (left,) = {*range(SIZES[layer])} - {*one.order.tolist()}
        assert one.redundancy[-1] == pytest.approx(np.corrcoef(values[[one.order[-1], left]])[0, 1], abs=1e-5)
        assert one.kept[0] == 1
