"""The scan beside a naive loop: copy the network, cut one layer, count what is right."""

from __future__ import annotations

import copy

import pytest
import torch
from tiny_nets import PRUNABLE, noise, tiny_net

from prunescope.core.errors import PrunescopeError
from prunescope.core.mask import Mask
from prunescope.engine.training import Training
from prunescope.engine.untouched import untouched
from prunescope.pruning.granularity import granularity
from prunescope.pruning.scope import Sensitivity
from prunescope.pruning.scoring import criterion, criterion_batches, cut
from prunescope.pruning.sensitivity import Scan, scan

RATES = (0.2, 0.5, 0.8)


def right(model: torch.nn.Module, count: int) -> float:
    images, labels = next((x, y) for _, x, y in noise().batches(48))
    with torch.no_grad():
        return float((model.eval()(images[:count]).argmax(1) == labels[:count]).float().mean())


@pytest.mark.parametrize("count", [0, 20])
def test_each_layer_alone_at_each_rate(count: int) -> None:
    model = tiny_net()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    calls: list[tuple[int, int]] = []
    found = scan(
        model, Mask.dense(model, PRUNABLE), criterion("magnitude"), noise(),
        options=Sensitivity(rates=RATES, images=count), on_layer=lambda done, total: calls.append((done, total)),
    )  # fmt: skip
    assert found.dense == pytest.approx(right(tiny_net(), count or 48))
    for name in PRUNABLE:
        for rate, value in zip(RATES, found.accuracy[name], strict=True):
            other = tiny_net()
            cut(other, Mask.dense(other, [name]), criterion("magnitude"), keep=1 - rate, scope="layer").apply_(other)
            assert value == pytest.approx(right(other, count or 48)), (name, rate)
    assert calls == [(1, 3), (2, 3), (3, 3)]
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(("name", "options"), [("synflow", {"iterations": 1}), ("movement", {"steps": 4, "lr": 1.0})])
def test_a_criterion_that_changes_weights_does_not_change_the_scan(name: str, options: dict[str, float]) -> None:
    model, batches = tiny_net(), criterion_batches(noise(), Training(batch_size=16), seed=0)
    by, mask = criterion(name, **options), Mask.dense(model, PRUNABLE)
    found = scan(model, mask, by, noise(), options=Sensitivity(rates=(0.5,)), batches=batches)
    assert found.dense == pytest.approx(right(tiny_net(), 48))
    with untouched(model):
        scores = by.score(model, mask, batches=batches, seed=0)
    for layer in PRUNABLE:
        other = tiny_net()
        weakest = scores[layer].flatten().argsort()[: round(0.5 * scores[layer].numel())]
        with torch.no_grad():
            dict(other.named_parameters())[layer].view(-1)[weakest] = 0
        assert found.accuracy[layer][0] == pytest.approx(right(other, 48)), layer


def test_channels_are_scanned_with_all_that_hangs_on_them() -> None:
    model = tiny_net()
    units = granularity("channel").fitted(model, (3, 6, 6))
    mask = Mask.dense(model, units.names(model))
    found = scan(
        model, mask, criterion("magnitude"), noise(), granularity=units, options=Sensitivity(rates=(0.5,))
    )  # fmt: skip
    assert list(found.accuracy) == ["conv1.weight", "conv2.weight"]
    other = copy.deepcopy(model)
    with torch.no_grad():  # by hand: the weaker half of the first layer's filters, norms and readers
        weak = other.conv1.weight.abs().flatten(1).mean(1).argsort()[:3]
        other.conv1.weight[weak] = 0
        other.norm.weight[weak] = 0
        other.norm.bias[weak] = 0
        other.conv2.weight[:, weak] = 0
    assert found.accuracy["conv1.weight"][0] == pytest.approx(right(other, 48))


def test_the_table_shares_a_cut_out() -> None:
    found = Scan((0.2, 0.5, 0.8), {"conv1.weight": (0.7, 0.7, 0.1), "conv2.weight": (0.7, 0.1, 0.7),
                                   "head.weight": (0.1, 0.7, 0.7)}, 0.7, 0.01)  # fmt: skip
    assert found.largest() == {"conv1.weight": 0.5, "conv2.weight": 0.2, "head.weight": 0.0}
    model = tiny_net()
    mask = cut(model, Mask.dense(model, PRUNABLE), criterion("magnitude"), keep=0.8, scope=found.table())
    assert bool(mask["head.weight"].all())
    gone = {name: 1 - float(kept.float().mean()) for name, kept in mask.items()}
    assert gone["conv1.weight"] / gone["conv2.weight"] == pytest.approx(2.5, rel=0.05)


def test_a_network_that_can_lose_nothing_says_so() -> None:
    with pytest.raises(PrunescopeError, match="no layer can lose 20% within"):
        Scan((0.2, 0.5), {"conv1.weight": (0.1, 0.1)}, 0.7, 0.01).table()
