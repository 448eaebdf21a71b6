"""Feature vectors from the shared pass: what goes into a layer, pooled maps, chosen images."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from prunescope.core.errors import PrunescopeError
from prunescope.core.types import Record
from prunescope.data.split import Split
from prunescope.engine.sweep import Needs, Pass, sweep
from prunescope.engine.vectors import vectors
from prunescope.probes.concepts.embeddings import Embeddings, embedding_layer


def net() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
        )


def split(n: int = 10) -> Split:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(256, (n, 1, 6, 6), generator=generator, dtype=torch.uint8)
    concepts = torch.randint(-1, 2, (n, 2), generator=generator, dtype=torch.int8)
    names = np.array([f"i{i}" for i in range(n)])
    return Split(images, torch.arange(n) % 3, names, tuple("abc"), concepts=concepts, concept_names=("p", "q"))


class Looker:
    """Keeps what the pass offers for one layer."""

    def __init__(self, layer: str, *, gradient: bool = False) -> None:
        self.needs = Needs(layers=(layer,), gradients=(layer,) if gradient else ())
        self.layer, self.gradient = layer, gradient
        self.seen: list[Tensor] = []

    def update(self, batch: Pass) -> None:
        self.seen.append(batch.activations[self.layer].detach().clone())
        if self.gradient:
            self.seen.append(batch.grads(batch.y)[self.layer].clone())

    def finish(self) -> Record:
        return Record("looker")


def look(model: nn.Module, layer: str, *, gradient: bool = False) -> list[Tensor]:
    looker = Looker(layer, gradient=gradient)
    sweep(model, {"test": split()}, [looker])
    return looker.seen


def collect(model: nn.Module, layer: str, *, batch_size: int = 4, **rows: Tensor) -> Embeddings:
    found = Embeddings(layer, {"test": split()}, rows)
    found.finish = lambda: Record("embeddings")  # type: ignore[attr-defined]
    sweep(model, {"test": split()}, [found], batch_size=batch_size)  # type: ignore[list-item]
    return found


def test_input_of_a_layer_is_output_of_the_one_before() -> None:
    torch.testing.assert_close(look(net(), "4:input")[0], look(net(), "3")[0], rtol=0, atol=0)


def test_input_of_an_in_place_layer_is_not_overwritten() -> None:
    before = look(net(), "1:input")[0]
    assert (before < 0).any()
    torch.testing.assert_close(before, look(net(), "0")[0], rtol=0, atol=0)


def test_gradient_towards_an_input() -> None:
    model = net()
    _, gradient = look(model, "4:input", gradient=True)
    torch.testing.assert_close(gradient, model[4].weight.detach()[split().labels])


def test_hooks_are_gone_and_wrong_sides_refused() -> None:
    model = net()
    look(model, "4:input")
    assert not model[4]._forward_pre_hooks
    with pytest.raises(PrunescopeError, match="unknown side of a layer 'inptu' in 4:inptu; did you mean 'input'"):
        look(model, "4:inptu")


def test_default_is_what_goes_into_the_head() -> None:
    assert embedding_layer(net()) == "4:input"
    assert embedding_layer(net(), "0") == "0"
    assert embedding_layer(net(), "4:input") == "4:input"
    with pytest.raises(PrunescopeError, match="unknown layer 'conv'"):
        embedding_layer(net(), "conv")


def test_embeddings_equal_a_forward_pass() -> None:
    model, data = net().eval(), split()
    found = collect(model, "4:input").collected()["test"]
    with torch.no_grad():
        x = data.normalisation(data.images)
        features = model[:4](x)
        torch.testing.assert_close(found.x, features)
        assert torch.equal(found.predicted, model(x).argmax(1))
    assert found.x.dtype == torch.float32
    assert found.concepts is not None
    assert torch.equal(found.concepts, split().concepts)  # type: ignore[arg-type]


def test_maps_are_averaged() -> None:
    model = net()
    pooled = collect(model, "1").collected()["test"].x
    torch.testing.assert_close(pooled, collect(model, "4:input").collected()["test"].x)
    assert vectors(torch.arange(6.0).view(1, 2, 3)).tolist() == [[1.5, 2.5, 3.5]]
    with pytest.raises(PrunescopeError, match="layer 'x' gives"):
        vectors(torch.zeros(2, 3, 4, 5, 6), "x")


def test_only_chosen_images_are_kept() -> None:
    rows = torch.tensor([1, 4, 5, 9])
    whole, part = (collect(net(), "4:input", **kept).collected()["test"] for kept in ({}, {"test": rows}))
    torch.testing.assert_close(part.x, whole.x[rows])
    assert torch.equal(part.labels, whole.labels[rows])
    assert part.concepts is not None
    assert whole.concepts is not None
    assert torch.equal(part.concepts, whole.concepts[rows])


def test_values_that_are_not_finite_are_refused() -> None:
    found = Embeddings("x", {"test": split(1)})
    batch = SimpleNamespace(
        split="test",
        index=torch.tensor([0]),
        activations={"x": torch.full((1, 2), torch.nan)},
        logits=torch.zeros(1, 3),
    )
    found.update(batch)  # type: ignore[arg-type]
    with pytest.raises(PrunescopeError, match="not finite on split 'test'"):
        found.collected()
