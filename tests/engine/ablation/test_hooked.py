"""Networks that torch.fx cannot follow: the same answers as loops of hooks, and as a twin that it can follow."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from ablation_nets import SHAPE, conv
from eager_ablation import Read, eager
from test_replacing import images_of, split
from test_slow_ablation import ByFunction, HalfFixed
from torch import Tensor, nn

from prunescope.core.errors import PrunescopeError, PrunescopeWarning
from prunescope.engine.ablation.ablate import Ablator, ablate
from prunescope.engine.ablation.answers import Effort
from prunescope.engine.ablation.hooked import Hooked
from prunescope.engine.ablation.nodes import Untraceable
from prunescope.engine.untouched import fixed_rng
from prunescope.engine.without import predictions
from prunescope.probes.car import car
from prunescope.pruning.greedy import greedy
from prunescope.pruning.race import Race
from prunescope.pruning.removals import one_shot, removal_curve
from random_nets import lively

UNITS = {"one": 4, "two": 5}
by_hooks = pytest.warns(PrunescopeWarning, match="full forward passes with hooks")


class Straight(nn.Module):
    """What torch.fx can follow."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.head = conv(3, 4), conv(4, 5), nn.Linear(5, 3)
        self.a, self.b = Read({"one": 0}), Read({"two": 0})

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.one(x)), 2)
        return self.head(self.b(F.relu(self.two(self.a(x)))).mean((2, 3)))


class Branching(Straight):
    """The same function with control flow on values, which it cannot."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(-x if x.mean() > 1e9 else x)


def network(kind: type[nn.Module] = Branching) -> nn.Module:
    with fixed_rng():
        torch.manual_seed(0)
        model = lively(kind())
    with torch.no_grad():
        model.head.weight.mul_(3 / model(images_of(split())).std(0)[:, None])  # type: ignore[operator, union-attr]
        model.head.bias.zero_()  # type: ignore[operator, union-attr]
        model.head.bias.sub_(model(images_of(split())).mean(0))  # type: ignore[operator, union-attr]
    return model


def test_every_prediction_is_that_of_a_loop_of_hooks() -> None:
    model, data = network(), split()
    with by_hooks:
        found = ablate(model, data, batch_size=4)
    x = images_of(data)
    assert {name: len(channels) for name, channels in found.layers.items()} == UNITS
    assert found.redone == found.worlds == 9 * len(data)
    before = eager(model, x, {}).log_softmax(1).gather(1, data.labels[:, None])[:, 0]
    for layer, count in UNITS.items():
        for channel in range(count):
            logits, row = eager(model, x, {layer: [channel]}), found.rows(layer).start + channel
            assert torch.equal(found.predicted[row].long(), logits.argmax(1))
            after = logits.log_softmax(1).gather(1, data.labels[:, None])[:, 0]
            wanted = torch.zeros(3).index_add_(0, data.labels, before - after)
            torch.testing.assert_close(found.drop[row], wanted.double(), atol=1e-3, rtol=1e-3)
    assert float(found.drop.abs().max()) > 1
    assert (found.predicted != found.dense).any()


@pytest.mark.parametrize("effort", [Effort("bf16"), Effort(screen=True)], ids=["bf16", "screen"])
def test_what_would_be_faster_is_left_out(effort: Effort) -> None:
    data = split()
    with by_hooks:
        found = ablate(network(), data, effort=effort)
    assert torch.equal(found.predicted, ablate(network(Straight), data).predicted)
    assert found.passed == found.screened == 0


def test_what_is_gone_is_gone_in_everything() -> None:
    model, data, gone = network(), split(), {"one": [2], "two": [0, 4]}
    with by_hooks:
        ablator = Ablator(model, data)
    found, x = ablator.run(["one"], gone=gone), images_of(data)
    assert torch.equal(found.dense.long(), eager(model, x, gone).argmax(1))
    for channel in range(4):
        out = {**gone, "one": [2, channel]}
        assert torch.equal(found.predicted[channel].long(), eager(model, x, out).argmax(1))
    plain = ablator.run(["one"])
    assert torch.equal(plain.dense.long(), model(x).argmax(1))


def test_sets_of_channels() -> None:
    model, data = network(), split()
    sets: list[dict[str, list[int]]] = [{}, {"one": [0, 1]}, {"two": [3], "one": [1]}, {}]
    with by_hooks:
        found = predictions(Ablator(model, data, batch_size=4), data, sets)
    for row, units in zip(found, sets, strict=True):
        assert torch.equal(row.long(), eager(model, images_of(data), units).argmax(1))


@pytest.mark.parametrize("race", [None, Race("exact", images=4)], ids=["all", "race"])
def test_greedy_and_its_company_go_the_same_way_as_on_a_twin(race: Any) -> None:
    data = split(30)
    with by_hooks:
        found = greedy(network(), data, race=race, per_layer=False)
    other = greedy(network(Straight), data, race=race, per_layer=False)
    assert found.order == other.order
    assert [step.accuracy for step in found.steps] == [step.accuracy for step in other.steps]
    with by_hooks:
        ablator = Ablator(network(), data)
    twin = Ablator(network(Straight), data)
    assert one_shot(ablator) == one_shot(twin)
    curve, expected = (removal_curve(item, data, found.order) for item in (ablator, twin))
    assert curve.accuracy.tolist() == expected.accuracy.tolist()


def test_car_names_what_it_costs() -> None:
    data = split()
    with pytest.warns(PrunescopeWarning, match=r"cannot follow Branching.* 9 for each image if all are asked about"):
        found = car(network(), data)
    assert found.reductions.car.tolist() == car(network(Straight), data).reductions.car.tolist()


def test_memory_bounds_how_many_images_go_at_once() -> None:
    model, data = network(), split()
    each = Hooked(model, SHAPE).bytes_per_image()
    assert each >= 2 * 4 * 8 * 8 * 4  # the first layer's maps
    with by_hooks:
        ablator = Ablator(model, data, effort=Effort(memory=3 * each))
    assert ablator.batch_size == 3
    with by_hooks:
        whole = ablate(model, data)
    assert torch.equal(ablator.run().predicted, whole.predicted)
    with by_hooks, pytest.raises(PrunescopeError, match=f"allow at least {each:,}"):
        Ablator(model, data, effort=Effort(memory=each - 1))


def test_hooks_can_be_declined_and_cannot_do_all() -> None:
    model, data = network(), split()
    with pytest.raises(Untraceable, match=r"torch\.fx cannot follow Branching"):
        ablate(model, data, effort=Effort(hooks=False))
    with pytest.raises(Untraceable, match="can only be made zero, not removed by 'mean'"):
        ablate(model, data, effort=Effort(removal="mean"))
    with pytest.raises(Untraceable, match=r"hooks cannot take units out either: .*does not run"):
        Ablator(nn.Sequential(nn.Conv2d(5, 4, 3), nn.Flatten(), nn.Linear(9, 3)), data)


def test_only_layers_that_can_be_taken_out_have_units() -> None:
    assert Hooked(HalfFixed(), SHAPE).channels == {"two": 2}
    tied = {"one": 4, "two": 4}  # of one weight; not `stem`, which a function of that weight reads
    assert Hooked(ByFunction(), SHAPE).channels == tied


def test_the_network_is_left_as_it_was() -> None:
    model = network().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()
    with by_hooks:
        ablate(model, split(), gone={"one": [0]})
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert all(part.training and not part._forward_pre_hooks for part in model.modules())
