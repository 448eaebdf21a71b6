"""CAR beside direct loops, and the planted cases."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from prunescope.core.bits import unpack
from prunescope.core.errors import PrunescopeError
from prunescope.core.seeds import torch_generator
from prunescope.data.split import Normalisation, Split
from prunescope.data.subsets import stratified
from prunescope.engine.untouched import fixed_rng
from prunescope.probes.base import Probe, Subject, probe
from prunescope.probes.car import UnitTable, car
from prunescope.testing.probes import ProbeContract
from prunescope.testing.samples import tiny_data, tiny_network

CLASSES = 3


class TestCarContract(ProbeContract):
    probe = probe("car")


class TestCarFastContract(ProbeContract):
    probe: Probe = probe("car", precision="bf16", screen=True)
    atol = 0.05  # drops in log-probability, summed over a class, are as exact as the precision
    counts = ("full_passes", "again_in_float32", "surprises", "audited", "wrong")


def split(count: int = 60) -> Split:
    """Class k has a bright channel k."""
    generator = torch_generator(0, "car")
    labels = torch.arange(count) % CLASSES
    images = torch.randint(0, 120, (count, CLASSES, 6, 6), generator=generator, dtype=torch.uint8)
    images[torch.arange(count), labels] += 100
    ids = np.arange(count).astype(str)
    return Split(images, labels, ids, ("a", "b", "c"), normalisation=Normalisation((0.0,), (1.0,)))


def planted(filters: list[list[float]], head: list[list[float]]) -> nn.Module:
    """1x1 filters of the three channels, ReLU, mean, a linear head."""
    with fixed_rng():
        model = nn.Sequential(
            nn.Conv2d(CLASSES, len(filters), 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            nn.Linear(len(filters), CLASSES, bias=False),
        )  # fmt: skip
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor(filters)[:, :, None, None])  # type: ignore[operator, union-attr]
        model[0].bias.zero_()  # type: ignore[operator, union-attr]
        model[4].weight.copy_(torch.tensor(head).t())  # type: ignore[operator, union-attr]
    return model.eval()


EYE = torch.eye(CLASSES).tolist()


def test_a_filter_that_feeds_one_class_costs_that_class() -> None:
    found = car(planted(EYE, EYE), split()).reductions
    assert found.right.tolist() == [20, 20, 20]
    assert (np.diag(found.class_car) > 0.9).all()
    assert (found.class_car[~np.eye(CLASSES, dtype=bool)] <= 0).all()


def test_a_dead_filter_costs_nothing_at_all() -> None:
    found = car(planted([*EYE, [0.0, 0.0, 0.0]], [*EYE, [5.0, -5.0, 5.0]]), split())
    assert found.reductions.car[3] == 0
    assert found.reductions.drops is not None
    assert not found.reductions.drops[3].any()
    assert found.ranking.order[0] == 3


def test_of_a_pair_of_twins_each_costs_little_until_the_other_goes() -> None:
    model = planted([EYE[0], *EYE], [EYE[0], *EYE])
    with torch.no_grad():
        model[4].weight[0] *= 0.9  # type: ignore[index, union-attr]
    both = car(model, split()).reductions.car
    with torch.no_grad():
        model[0].weight[0] = 0  # type: ignore[index, union-attr]
    alone = car(model, split()).reductions.car
    assert max(abs(both[:2])) < 0.05
    assert alone[1] > 0.3


def table_by_loops(model: nn.Module, data: Split) -> Any:
    """(units, images) of every convolution, with a copy of the network for each unit: small nets whose convolutions are
    followed by a ReLU have the channel zeroed by zeroing its filter and bias."""
    x = torch.cat([x for _, x, _ in data.batches(1000)])
    rows = []
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            for channel in range(module.out_channels):
                other = copy.deepcopy(model).eval()
                with torch.no_grad():
                    layer = other.get_submodule(name)
                    layer.weight[channel] = layer.bias[channel] = 0  # type: ignore[index, operator, union-attr]
                    rows.append(other(x).argmax(1) == data.labels)
    return torch.stack(rows).numpy()


def random_net() -> nn.Module:
    with fixed_rng():
        torch.manual_seed(1)
        return nn.Sequential(
            nn.Conv2d(CLASSES, 7, 3), nn.ReLU(), nn.Conv2d(7, 5, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            nn.Linear(5, CLASSES),
        )  # fmt: skip


def test_the_table_is_that_of_direct_loops() -> None:
    model, data = random_net(), split()
    found = car(model, data)
    correct = table_by_loops(model, data)
    assert found.units == (*(("0", i) for i in range(7)), *(("2", i) for i in range(5)))
    assert np.array_equal(found.correct, correct)
    with torch.no_grad():
        whole = float((model(torch.cat([x for _, x, _ in data.batches(99)])).argmax(1) == data.labels).double().mean())
    assert found.reductions.car == pytest.approx(whole - correct.mean(1))
    assert (found.reductions.class_car * found.reductions.shares).sum(1) == pytest.approx(found.reductions.car)


def test_the_record_holds_the_table() -> None:
    data = tiny_data()
    record = probe("car").measure(Subject(tiny_network(), data))
    found = car(tiny_network(), data.test)
    assert np.array_equal(record.arrays["unit.car"], found.reductions.car)
    assert np.array_equal(unpack(record.arrays["unit.correct"], len(data.test)), found.correct)
    assert sum(record.info["layers"].values()) == len(found.units) == record.metrics["units"]
    told = {"full_passes": "redone", "again_in_float32": "screened", "surprises": "surprises", "wrong": "wrong"}
    assert {key: record.info[key] for key in told} == {key: getattr(found.ablation, name) for key, name in told.items()}


def test_the_record_says_how_many_predictions_were_made_again() -> None:
    network = tiny_network()
    with torch.no_grad():
        network.head.weight[1] = network.head.weight[0]  # type: ignore[index, union-attr]
        network.head.weight[2] = -network.head.weight[0] - 9  # type: ignore[index, operator, union-attr]
    plain = probe("car").measure(Subject(network, tiny_data()))  # two classes tie in every world
    assert plain.info["full_passes"] > plain.metrics["units"]
    assert plain.info["again_in_float32"] == 0
    low = probe("car", precision="bf16").measure(Subject(network, tiny_data()))
    assert low.info["again_in_float32"] > 0


def test_layers_can_be_named() -> None:
    model, data = random_net(), split()
    whole: UnitTable = car(model, data)
    some = car(model, data, layers=["2"])
    assert some.units == tuple(("2", i) for i in range(5))
    assert np.array_equal(some.reductions.car, whole.reductions.car[7:])
    with pytest.raises(PrunescopeError, match="layers"):
        car(model, data, layers=["nothing"])


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        (["3"], r"layers: '3' is a ReLU: units are outputs of convolutions and linear layers"),
        (["2", "4"], r"layers: '4' is an AdaptiveAvgPool2d: units are"),
        (["[35]"], r"layers: '3' is a ReLU: units are"),
        (["6"], r"layers: '6' is a Linear: its outputs are the classes, or nothing within the network reads them"),
        (["7"], r"layers: '7' matches no parameter and no module"),
    ],
)
def test_modules_without_units_are_refused_with_the_reason(layers: list[str], said: str) -> None:
    with pytest.raises(PrunescopeError, match=said):
        car(random_net(), split(), layers=layers)
    assert len(car(random_net(), split(), layers=["[23]"]).units) == 5  # one of the two has units


def test_memory_is_in_megabytes() -> None:
    subject = Subject(tiny_network(), tiny_data())
    assert probe("car").memory == 512  # type: ignore[attr-defined]
    with pytest.raises(PrunescopeError, match=r"memory of 3,145,728 bytes is too little.*allow at least"):
        probe("car", memory=3).check(subject)
    with pytest.raises(PrunescopeError, match="car: memory must be 1 MB or more, got 0"):
        probe("car", memory=0)
    whole, tight = (probe("car", memory=memory).measure(subject) for memory in (512, 49))
    assert np.array_equal(whole.arrays["unit.correct"], tight.arrays["unit.correct"])


def test_what_cannot_be_measured_is_refused() -> None:
    data = split()
    with pytest.raises(PrunescopeError, match="no convolution with readers"):
        car(nn.Sequential(nn.Flatten(), nn.Linear(108, 4), nn.ReLU(), nn.Linear(4, 3)), data)
    with pytest.raises(PrunescopeError, match="car: split"):
        probe("car", split="training")
    few = data.subset(torch.tensor([0, 1]))  # class c has no image
    found = car(random_net(), few).reductions
    assert found.empty == ("c",)
    assert np.isnan(found.class_car[:, 2]).all()
    assert np.isfinite(found.car).all()


def test_fewer_images_keep_the_shares_of_classes() -> None:
    data = tiny_data()
    some = probe("car", images=10).measure(Subject(tiny_network(), data))
    few = car(tiny_network(), data.test.subset(stratified(data.test.labels, 10, seed=0)))
    assert min(few.reductions.counts) >= 3
    assert some.info["images"] == 10
    assert np.array_equal(some.arrays["unit.losses"], few.reductions.losses)
