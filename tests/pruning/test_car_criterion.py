"""The criterion `car` beside greedy pruning and a loop over filters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from test_greedy import SIZES, images, logits_without, net, planted
from torch import Tensor, nn

from prunescope.core.errors import PrunescopeError
from prunescope.core.mask import Mask
from prunescope.data.load import load_data
from prunescope.data.split import Split
from prunescope.engine.train import fit
from prunescope.engine.training import Training
from prunescope.engine.untouched import untouched
from prunescope.models.layers import prunable
from prunescope.models.zoo import build_model
from prunescope.pruning.criteria.car import Car
from prunescope.pruning.granularity import granularity
from prunescope.pruning.greedy import greedy
from prunescope.pruning.loop import rounds
from prunescope.pruning.scoring import criterion, cut
from prunescope.ticket.prune import as_recipe

SPLIT = images(40)


def batches() -> Iterator[tuple[Tensor, Tensor]]:
    for part in (SPLIT.subset(list(range(25))), SPLIT.subset(list(range(25, 40)))):
        yield part.normalisation(part.images), part.labels


def scores(model: nn.Module, mask: Mask | None = None, data: Any = batches, **options: Any) -> dict[str, Tensor]:
    """{layer: score of each filter}."""
    mask = mask or Mask.dense(model, prunable(model))
    with untouched(model):
        mask.apply_(model)
        found = criterion("car", **options).score(model, mask, batches=data, seed=0)
    return {name.removesuffix(".weight"): score.flatten(1)[:, 0] for name, score in found.items()}


@pytest.mark.parametrize("among", ["layer", "network"])
def test_a_score_is_the_place_in_the_greedy_order(among: str) -> None:
    model = net()
    found, run = scores(model, among=among), greedy(model, SPLIT, per_layer=among == "layer")
    for layer, count in SIZES.items():
        own = [channel for name, channel in run.order if name == layer]
        assert found[layer].argsort().tolist()[: count - 1] == own
        assert float(found[layer].max()) == 1.0
    ranked = sorted((float(value), layer, c) for layer in SIZES for c, value in enumerate(found[layer]) if value < 1)
    if among == "network":
        assert [(layer, channel) for _, layer, channel in ranked] == list(run.order)
    else:
        assert found["two"].sort().values.tolist() == [0.25, 0.5, 0.75, 1.0]


def test_without_greed_it_is_the_car_and_ties_stay_within_an_image() -> None:
    model = net()
    found = scores(model, greedy=False)
    right = int((logits_without(model, SPLIT, {}).argmax(1) == SPLIT.labels).sum())
    all_: list[float] = []
    for layer, count in SIZES.items():
        for channel in range(count):
            without = logits_without(model, SPLIT, {layer: [channel]})
            net_ = right - int((without.argmax(1) == SPLIT.labels).sum())
            assert 0 <= float(found[layer][channel]) * 40 - net_ < 1
            all_.append(float(found[layer][channel]))
    assert len(set(all_)) == len(all_)


def test_the_classifier_goes_last_and_by_its_size() -> None:
    model = net()
    for greedy_ in (True, False):
        found = scores(model, greedy=greedy_)
        assert float(found["head"].min()) > max(float(found[layer].max()) for layer in SIZES)
        sizes = model.head.weight.detach().abs().sum(1)
        assert found["head"].argsort().tolist() == sizes.argsort().tolist()


def test_filters_that_are_gone_are_no_candidates() -> None:
    model = net()
    mask = Mask.dense(model, prunable(model))
    cut_off = dict(mask)
    cut_off["one.weight"] = mask["one.weight"].clone()
    cut_off["one.weight"][[1, 3]] = False
    found = scores(model, Mask(cut_off))["one"]
    assert found[[1, 3]].tolist() == [0, 0]
    assert sorted(found.tolist()) == pytest.approx([0, 0, 1 / 3, 2 / 3, 1])


@pytest.mark.parametrize("units", [granularity("filter"), granularity("channel")])
@pytest.mark.parametrize("greedy_", [True, False])
def test_cuts_take_the_dead_filter_then_a_twin_but_not_both(units: Any, greedy_: bool) -> None:
    model, split = planted()
    units = units.fitted(model, split.shape)

    def data() -> Iterator[tuple[Tensor, Tensor]]:
        yield split.normalisation(split.images), split.labels

    whole = Mask.dense(model, units.names(model))
    for keep, gone in ((0.8, [4]), (0.6, [0, 4])):
        by = criterion("car", greedy=greedy_)
        left = cut(model, whole, by, keep=keep, scope="layer", granularity=units, batches=data)
        assert (~left["0.weight"].flatten(1).any(1)).nonzero().flatten().tolist() == gone
    left = cut(model, whole, criterion("car", greedy=greedy_), keep=0.4, scope="layer", granularity=units, batches=data)
    gone = (~left["0.weight"].flatten(1).any(1)).nonzero().flatten().tolist()
    assert (gone == [0, 3, 4]) is not greedy_  # only greed sees that a twin is worth something when the other is gone


def test_images_are_as_many_as_asked_for_and_stay_as_they_were() -> None:
    model = net()
    given = list(batches())
    kept = [x.clone() for x, _ in given]
    first = scores(model, data=lambda: iter(given), n_batches=1)
    assert all(torch.equal(x, before) for (x, _), before in zip(given, kept, strict=True))
    alone = scores(model, data=lambda: iter(given[:1]), n_batches=0)
    assert {k: v.tolist() for k, v in first.items()} == {k: v.tolist() for k, v in alone.items()}


def test_low_precision_gives_the_same_order() -> None:
    model = net(1)
    low, full = scores(model, precision="bf16", greedy=False), scores(model, greedy=False)
    for layer in SIZES:
        assert (low[layer] * 40).floor().tolist() == (full[layer] * 40).floor().tolist()


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(PrunescopeError, match="unknown among 'layers' in criterion 'car'; did you mean 'layer'"):
        Car(among="layers")  # type: ignore[arg-type]
    with pytest.raises(PrunescopeError, match="criterion 'car': memory must be 1 MB or more, got 0"):
        Car(memory=0)
    with pytest.raises(PrunescopeError, match=r"memory of 1,048,576 bytes is too little.*allow at least"):
        scores(net(), memory=1)
    with pytest.raises(PrunescopeError, match="unknown precision '16'"):
        Car(precision="16")  # type: ignore[arg-type]
    with pytest.raises(PrunescopeError, match="no layer that may be cut has any"):
        scores(net(), Mask.dense(net(), ["head.weight"]))


# In a recipe

RECIPE = """
criterion: {name: car, greedy: %s, n_batches: 0}
granularity: filter
scope: layer
schedule: {kind: one-shot, density: 0.5}
rewind: {to: none}
"""


def least_harmful(model: nn.Module, split: Split, relu: str, filters: int, *, again: bool) -> list[int]:
    """Half of the filters, by hooks that make them zero behind their ReLU: one after the other, or all at once."""

    def worth(gone: list[int]) -> tuple[int, float]:
        def silence(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
            output = output.clone()
            output[:, gone] = 0
            return output

        handle = model.get_submodule(relu).register_forward_hook(silence)
        with torch.no_grad():
            logits = model(split.normalisation(split.images[:])).double()
        handle.remove()
        likely = logits.log_softmax(1).gather(1, split.labels[:, None])
        return int((logits.argmax(1) == split.labels).sum()), float(likely.mean())

    gone: list[int] = []
    if not again:
        return sorted(range(filters), key=lambda c: worth([c]), reverse=True)[: filters // 2]
    while len(gone) < filters // 2:
        gone.append(max((c for c in range(filters) if c not in gone), key=lambda c: worth([*gone, c])))
    return gone


@pytest.mark.parametrize("again", [True, False])
def test_a_recipe_cuts_the_filters_that_accuracy_loses_least_by(again: bool) -> None:
    data = load_data({"name": "shapes", "size": 16, "train": 64, "val": 8, "test": 8})
    model = build_model({"name": "small_cnn", "width": 4}, classes=4, channels=3, seed=0)
    fit(model, data.train, Training(epochs=10, batch_size=16, lr=0.05, precision="32"), seed=0, device="cpu")
    model.eval()
    sizes = {1: 4, 2: 8, 3: 16}
    wanted = {
        f"features.conv{number}.weight": sorted(
            least_harmful(model, data.train, f"features.relu{number}", filters, again=again)
        )
        for number, filters in sizes.items()
    }
    recipe, smallest = as_recipe(RECIPE % str(again).lower()), {}
    for name in wanted:
        sums = model.get_parameter(name).detach().abs().flatten(1).sum(1)
        smallest[name] = sorted(sums.argsort()[: len(sums) // 2].tolist())
    (ticket,) = rounds(model, recipe, data.train, Training(), seed=0, cut_only=True, device="cpu")
    assert ticket.mask is not None
    gone = {name: (~ticket.mask[name].flatten(1).any(1)).nonzero().flatten().tolist() for name in wanted}
    assert gone == wanted
    assert gone != smallest  # not what their sizes would say
    assert not any(bool(model.get_parameter(name)[gone[name]].any()) for name in wanted)
