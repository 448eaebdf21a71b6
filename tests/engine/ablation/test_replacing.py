"""Ablation with something else than zeros in a unit's place, beside hooks that write the same, image by image."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from ablation_nets import NETS, Dense, Frames, Plain, Residual, Volume
from eager_ablation import Read, eager
from test_ablation_replay import network
from torch import Tensor, nn

from prunescope.core.errors import PrunescopeError, PrunescopeWarning
from prunescope.core.seeds import torch_generator
from prunescope.data.split import Normalisation, Split
from prunescope.engine.ablation import deciders
from prunescope.engine.ablation.ablate import Ablator, ablate
from prunescope.engine.ablation.answers import Effort
from prunescope.engine.ablation.removal import Resample
from prunescope.engine.without import predictions
from prunescope.probes.base import Subject, probe
from prunescope.probes.car import car
from prunescope.pruning.greedy import greedy
from prunescope.testing.samples import tiny_data, tiny_network
from random_nets import lively

KINDS = ("mean", "resample", "weights")
COUNT, SEED = 11, 3
every_kind = pytest.mark.parametrize("kind", KINDS)
planar = [net for net in NETS if net is not Volume]  # convolutions in space are not laid out as `Exact` wants
every_net = pytest.mark.parametrize("net", planar, ids=lambda net: net.__name__)


def split(count: int = COUNT) -> Split:
    """Images that differ much: a few large patches of strong colours."""
    generator = torch_generator(0, "replacing")
    patches = torch.randint(0, 256, (count, 3, 2, 2), generator=generator, dtype=torch.uint8)
    images = patches.repeat_interleave(4, 2).repeat_interleave(4, 3)
    normalisation = Normalisation((0.5,) * 3, (0.1,) * 3)
    return Split(images, torch.arange(count) % 3, np.arange(count).astype(str), ("a", "b", "c"), normalisation)


def loud(kind: type[nn.Module]) -> nn.Module:
    """A network whose decisions depend on the image, and not by a hair."""
    model = network(kind)
    x = images_of(split())
    with torch.no_grad():
        said = model(x)
        model.head.weight.mul_(3 / said.std(0)[:, None])  # type: ignore[operator, union-attr]
        model.head.bias.zero_()  # type: ignore[operator, union-attr]
        model.head.bias.sub_(model(x).mean(0))  # type: ignore[operator, union-attr]
    assert len(model(x).argmax(1).unique()) > 1
    return model


def images_of(data: Split) -> Tensor:
    return torch.cat([x for _, x, _ in data.batches(1000)])


def seen_by_readers(model: nn.Module, x: Tensor, gone: dict[str, list[int]]) -> dict[Read, Tensor]:
    found: dict[Read, Tensor] = {}
    kept = [
        part.register_forward_hook(lambda read, _, value: found.__setitem__(read, value.clone()))  # type: ignore[misc]
        for part in model.modules()
        if isinstance(part, Read)
    ]
    eager(model, x, gone)
    for handle in kept:
        handle.remove()
    for read, value in found.items():  # as they are with what is gone, whichever hook came first
        for layer, channels in gone.items():
            for first in (at + c * read.width for at in read.offsets.get(layer, ()) for c in channels):
                value.narrow(read.axis, first, read.width).zero_()
    return found


def naive(model: nn.Module, x: Tensor, layer: str, channel: int, kind: str, gone: dict[str, list[int]]) -> Tensor:
    """Logits without one channel, all images at once, by hooks or by zero weights."""
    if kind == "weights":
        part = model.get_submodule(layer)
        kept = {name: value.clone() for name, value in part.state_dict().items()}
        with torch.no_grad():
            for parameter in part.parameters():
                parameter[channel] = 0
        out = eager(model, x, gone)
        part.load_state_dict(kept)
        return out
    seen = seen_by_readers(model, x, gone)
    partner = Resample.seeded(len(x), SEED).partner

    def replaced(read: Read, first: int, block: Tensor) -> Tensor:
        out = {at + c * read.width for name, cs in gone.items() for at in read.offsets.get(name, ()) for c in cs}
        if first in out:
            return torch.zeros_like(block)
        own = seen[read].narrow(read.axis, first, read.width)
        if kind == "resample":
            return own[partner]
        mean = own.movedim(read.axis, -1).flatten(0, -2).mean(0)
        return mean.expand_as(block.movedim(read.axis, -1)).movedim(-1, read.axis)

    others = {name: [c for c in channels if (name, c) != (layer, channel)] for name, channels in gone.items()}
    others[layer] = [*others.get(layer, []), channel]
    return eager(model, x, others, replaced)


@every_kind
@pytest.mark.parametrize("net", [Plain, Residual, Dense], ids=lambda net: net.__name__)
def test_every_prediction_is_that_of_naive_hooks(net: Any, kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = loud(net), split()
    x = images_of(data)
    found = ablate(model, data, effort=Effort(removal=kind), seed=SEED)
    monkeypatch.setattr(deciders, "ROUNDING", 1e9)  # now every world is a tie
    in_full = ablate(model, data, effort=Effort(removal=kind), seed=SEED)
    assert in_full.redone == in_full.worlds + len(data)
    assert float(found.drop.abs().max()) > 1
    assert (found.predicted != found.dense).any()
    assert torch.equal(in_full.predicted, found.predicted)
    torch.testing.assert_close(in_full.drop, found.drop, atol=5e-3, rtol=1e-3)
    with torch.no_grad():
        before = model(x).log_softmax(1).gather(1, data.labels[:, None])[:, 0]
    for layer, count in net.units.items():
        for channel, row, drop in zip(
            range(count), found.predicted[found.rows(layer)], found.drop[found.rows(layer)], strict=True
        ):  # fmt: skip
            logits = naive(model, x, layer, channel, kind, {})
            assert torch.equal(row.long(), logits.argmax(1)), (layer, channel)
            after = logits.log_softmax(1).gather(1, data.labels[:, None])[:, 0]
            wanted = torch.zeros(3).index_add_(0, data.labels, before - after)
            torch.testing.assert_close(drop, wanted.double(), atol=5e-3, rtol=1e-3)


@every_kind
@every_net
def test_replays_equal_full_passes(kind: Any, net: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = network(net), split(5)
    ablator = Ablator(model, data, effort=Effort(removal=kind), seed=SEED)
    found = ablator.run(list(net.units))
    monkeypatch.setattr(deciders, "ROUNDING", 1e9)
    in_full = ablator.run(list(net.units))
    assert in_full.redone == in_full.worlds + len(data)
    scale = max(1.0, float(in_full.drop.abs().max()))
    torch.testing.assert_close(found.drop, in_full.drop, atol=1e-4 * scale, rtol=1e-3)


@every_kind
def test_how_images_are_batched_changes_nothing(kind: Any) -> None:
    model, data = loud(Plain), split()
    one, other = (ablate(model, data, effort=Effort(removal=kind), seed=SEED, batch_size=size) for size in (64, 3))
    assert torch.equal(one.predicted, other.predicted)
    torch.testing.assert_close(one.drop, other.drop, atol=1e-3, rtol=1e-3)


@every_kind
def test_what_is_gone_is_zero_and_stays_gone(kind: Any) -> None:
    model, data = loud(Plain), split()
    gone = {"one": [1], "two": [0, 3]}
    found = ablate(model, data, effort=Effort(removal=kind), seed=SEED, layers=["one", "two"], gone=gone)
    x = images_of(data)
    assert torch.equal(found.dense.long(), eager(model, x, gone).argmax(1))
    rows = iter(found.drop)
    for layer, count in {"one": 4, "two": 5}.items():
        for channel in range(count):
            drop = next(rows)
            if channel in gone[layer]:
                assert float(drop.abs().max()) < 5e-3
                continue
            logits, whole = naive(model, x, layer, channel, kind, gone), eager(model, x, gone)
            fall = (whole.log_softmax(1) - logits.log_softmax(1)).gather(1, data.labels[:, None])[:, 0]
            wanted = torch.zeros(3).index_add_(0, data.labels, fall)
            torch.testing.assert_close(drop, wanted.double(), atol=5e-3, rtol=1e-3)


def test_the_seed_decides_who_lends_and_nothing_else() -> None:
    model, data = loud(Plain), split()
    drops = {
        kind: [ablate(model, data, effort=Effort(removal=kind), seed=seed).drop for seed in (0, 0, 1)]
        for kind in KINDS
    }  # fmt: skip
    for kind, (one, again, other) in drops.items():
        assert torch.equal(one, again)
        assert torch.equal(one, other) == (kind != "resample")


def test_every_kind_says_something_else() -> None:
    model, data = loud(Plain), split()
    drops = [ablate(model, data, effort=Effort(removal=kind), layers=["one"]).drop for kind in ("zero", *KINDS)]
    for i, one in enumerate(drops):
        for other in drops[:i]:
            assert float((one - other).abs().max()) > 0.1


def test_what_cannot_be_is_refused() -> None:
    model, data = loud(Plain), split()
    for options in ({"screen": True}, {"precision": "bf16"}):
        with pytest.raises(PrunescopeError, match="removal 'mean' is computed in full"):
            Effort(removal="mean", **options)  # type: ignore[arg-type]
    with pytest.raises(PrunescopeError, match="unknown removal 'men'; did you mean 'mean'"):
        Effort(removal="men")  # type: ignore[arg-type]
    with pytest.raises(PrunescopeError, match="needs 2 images"):
        ablate(model, data.subset(torch.tensor([0])), effort=Effort(removal="resample"))
    ablator = Ablator(model, data, effort=Effort(removal="mean"))
    with pytest.raises(PrunescopeError, match="sets of channels are made zero; got an ablator with removal 'mean'"):
        predictions(ablator, data, [{}])
    with pytest.raises(PrunescopeError, match="removal 'mean'"):
        greedy(model, data, effort=Effort(removal="mean"))
    with pytest.raises(PrunescopeError, match="removal"):
        probe("car", removal="mean", screen=True)
    torch.manual_seed(0)
    with (
        pytest.warns(PrunescopeWarning, match="layer 'one' is taken out by full forward passes"),
        pytest.raises(PrunescopeError, match="what layer 'one' gives cannot be told apart by image"),
    ):
        ablate(lively(Frames()), data, effort=Effort(removal="weights"), layers=["one"])


def test_the_probe_and_the_function_hand_it_on() -> None:
    data = tiny_data()
    table = car(tiny_network(), data.test, effort=Effort(removal="mean"))
    record = probe("car", removal="mean").measure(Subject(tiny_network(), data))
    assert np.array_equal(record.arrays["unit.drop"], table.ablation.drop.numpy())
    assert record.info["removal"] == "mean"
    assert not np.allclose(table.ablation.drop.numpy(), car(tiny_network(), data.test).ablation.drop.numpy())
