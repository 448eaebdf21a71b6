"""What CAR says of whole layers, beside loops over units; and what drift makes of it."""

from __future__ import annotations

from operator import eq, lt

import numpy as np
import pytest
import torch
from torch import nn

from prunescope.core.types import Record
from prunescope.data.split import Dataset
from prunescope.engine.ablation.ablate import ablate
from prunescope.engine.untouched import fixed_rng
from prunescope.metrics.families import FAMILIES
from prunescope.probes.base import Subject, probe
from prunescope.probes.car import Car
from prunescope.probes.unit_layers import dead_units, layer_arrays
from prunescope.study.drift import DriftRow, drift
from prunescope.testing.samples import tiny_data

DEAD = {"2": [1, 4]}
UNIT_BY_UNIT = ("order", "top_tenth")


def network(seed: int = 0) -> nn.Module:
    """Two convolutions; of the second some filters are pruned away, biases and all."""
    with fixed_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Conv2d(5, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            nn.Linear(8, 3),
        )  # fmt: skip
    with torch.no_grad():
        model[6].weight.mul_(20)  # type: ignore[operator, union-attr]
        for name, channels in DEAD.items():
            layer = model.get_submodule(name)
            layer.weight[channels], layer.bias[channels] = 0, 0  # type: ignore[index, operator]
    return model.eval()


def measured(model: nn.Module, data: Dataset) -> Record:
    return probe("car").measure(Subject(model, data))


def moved(model: nn.Module) -> nn.Module:
    """The same function with the units of each layer in another order."""
    first, second = torch.tensor([3, 1, 0, 4, 2]), torch.tensor([7, 0, 1, 6, 2, 4, 5, 3])
    with torch.no_grad():
        for layer, out, given in ((model[0], first, None), (model[2], second, first), (model[6], None, second)):  # type: ignore[index]
            weight = layer.weight if out is None else layer.weight[out]
            layer.weight.copy_(weight if given is None else weight[:, given])
            layer.bias.copy_(layer.bias if out is None else layer.bias[out])
    return model


def test_the_arrays_equal_loops_over_units() -> None:
    data, model = tiny_data(), network()
    arrays, split = measured(model, data).arrays, data.test
    found = ablate(model, split, layers=["0", "2"])
    table = found.reductions(split)
    dead = np.array([False] * 5 + [i in DEAD["2"] for i in range(8)])
    assert np.array_equal(arrays["unit.dead"], dead)
    assert arrays["layer.car"].shape == arrays["layer.place"].shape == (2, 8)
    total = sum(int(losses.sum()) for losses in table.losses)
    assert total > 0
    for row, units in enumerate((range(5), range(5, 13))):
        alive = [i for i in units if not dead[i]]
        keys = {i: (round(table.car[i] * table.images), round(float(table.mean_drop[i]), 5)) for i in alive}
        for column in range(8):
            unit = units[column] if column < len(units) else None
            lives = unit in alive
            assert np.isfinite(arrays["layer.car"][row, column]) == np.isfinite(arrays["layer.place"][row, column])
            assert np.isfinite(arrays["layer.car"][row, column]) == lives
            if unit is not None and lives:
                assert arrays["layer.car"][row, column] == table.car[unit]
                below, equal = (sum(compare(keys[i], keys[unit]) for i in alive) for compare in (lt, eq))
                assert arrays["layer.place"][row, column] == below + (equal - 1) / 2
        assert arrays["layer.harm"][row] == sum(int(table.losses[i].sum()) for i in units) / total
        np.testing.assert_allclose(arrays["layer.classes"][row], sum(table.class_car[i] for i in units))
        for image in range(len(split)):
            hangs = any(bool(found.predicted[i, image] != found.dense[image]) for i in units)
            assert arrays["image.flipped"][image, row] == hangs


def test_pruned_units_are_apart() -> None:
    record = measured(network(), tiny_data())
    living = ~record.arrays["unit.dead"]
    assert record.metrics["dead"] == 2 / 13
    assert record.metrics["harmful"] == (record.arrays["unit.car"] < 0)[living].mean()
    assert record.metrics["mattering"] == (record.arrays["unit.p_holm"] < 0.05)[living].mean()
    assert not record.arrays["unit.car"][~living].any()


def test_a_network_of_which_all_is_pruned_away_has_no_shares() -> None:
    model = network()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    record = measured(model, tiny_data())
    assert record.metrics["dead"] == 1
    assert np.isnan([record.metrics["mattering"], record.metrics["harmful"]]).all()
    assert np.isnan(record.arrays["layer.car"]).all()
    assert np.isnan(record.arrays["layer.place"]).all()
    assert np.isnan(record.arrays["layer.harm"]).all()


def test_units_of_which_none_matters_have_no_order() -> None:
    model = network()
    with torch.no_grad():
        model[6].weight.zero_()  # type: ignore[operator, union-attr]
    arrays = measured(model, tiny_data()).arrays
    assert np.unique(arrays["layer.place"][0, :5]).tolist() == [2]
    found = rows(model, model, same_start=True)
    assert np.isnan([found["layer.place", name].estimate.value for name in UNIT_BY_UNIT]).all()


def test_heads_and_channels_that_are_named_alone() -> None:
    model = nn.ModuleDict({"a": nn.Conv2d(2, 3, 1), "b": nn.MultiheadAttention(4, 2)})
    with torch.no_grad():
        model["a"].weight[2] = 0  # type: ignore[operator, index]
        model["b"].in_proj_weight.zero_()  # type: ignore[operator, union-attr]
    found = dead_units(model, {"a": np.array([0, 2]), "b": np.array([0, 1])})
    assert found.tolist() == [False, True, False, False]


def rows(one: nn.Module, other: nn.Module, same_start: bool) -> dict[tuple[str, str], DriftRow]:
    data = tiny_data()
    records = [{"car": measured(model, data)} for model in (one, other)]
    found = drift(*records, {"car": Car.distances}, same_start=same_start, draws=20)
    return {(row.array, row.distance): row for row in found}


def test_what_stands_beside_the_noise_floor_does_not_see_the_order_of_units() -> None:
    found = rows(network(), moved(network()), same_start=True)
    for (array, distance), row in found.items():
        item = next(d for d in FAMILIES[Car.distances[array]] if d.name == distance)
        same = 1.0 if item.higher_is_better else 0.0
        if item.unit_by_unit:
            assert row.estimate.value < 1, array
        else:
            assert row.estimate.value == pytest.approx(same, abs=1e-12), array


def test_units_are_compared_one_by_one_only_where_they_are_the_same_ones() -> None:
    together, apart = (rows(network(), network(seed), start) for seed, start in ((0, True), (1, False)))
    only = {("layer.place", name) for name in UNIT_BY_UNIT}
    assert set(together) - set(apart) == only
    assert all(together[key].estimate.value == 1 for key in only)
    assert {row.subset for row in together.values()} == {"all"}


def test_a_class_without_images_has_no_profile() -> None:
    data = tiny_data()
    few = data.test.subset(torch.arange(len(data.test))[data.test.labels != 0])
    found = ablate(network(), few, layers=["0", "2"])
    channels = {name: part.numpy() for name, part in found.layers.items()}
    flipped = (found.predicted != found.dense).numpy()
    arrays = layer_arrays(found.reductions(few), channels, np.zeros(13, dtype=bool), flipped)
    assert np.isnan(arrays["layer.classes"][:, 0]).all()
    assert np.isfinite(arrays["layer.classes"][:, 1:]).all()
