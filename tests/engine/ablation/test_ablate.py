"""Every prediction without a unit beside a full forward pass in which hooks zero that unit's channel."""

from __future__ import annotations

import re
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from prunescope.core.compat import torchvision_module
from prunescope.core.errors import PrunescopeError, PrunescopeWarning
from prunescope.core.seeds import torch_generator
from prunescope.data.split import Split
from prunescope.engine.ablation import chunk, deciders, gap_errors, linear_screen, silent
from prunescope.engine.ablation.ablate import Ablator, ablate
from prunescope.engine.ablation.answers import Ablation, Effort
from prunescope.engine.ablation.replay import Stage
from prunescope.engine.untouched import fixed_rng
from prunescope.engine.without import predictions
from prunescope.models.zoo import build_model
from random_nets import lively

CLASSES = 6


def split(count: int = 20, side: int = 32, channels: int = 3) -> Split:
    generator = torch_generator(0, "ablate", count)
    images = torch.randint(0, 256, (count, channels, side, side), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, CLASSES, (count,), generator=generator)
    return Split(images, labels, np.arange(count).astype(str), tuple("abcdef"))


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    """A lively network, always the same, whose decisions hang on the image and not on biases."""
    with fixed_rng():
        torch.manual_seed(0)
        model = lively(make())
        for module in model.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=module.in_features**-0.5)
                nn.init.zeros_(module.bias)
    return model


def resnet20() -> nn.Module:
    return seeded(lambda: build_model("resnet20", classes=CLASSES, channels=3, seed=0))


def alexnet() -> nn.Module:
    return seeded(lambda: torchvision_module().models.alexnet(num_classes=CLASSES))


def googlenet() -> nn.Module:
    options: dict[str, Any] = {"num_classes": CLASSES, "aux_logits": False, "init_weights": False}
    return seeded(lambda: torchvision_module().models.googlenet(**options))


def small() -> nn.Module:
    return seeded(
        lambda: nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 6, 3),
            nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 10), nn.ReLU(), nn.Linear(10, CLASSES),
        )
    )  # fmt: skip


def volumes() -> nn.Module:
    return seeded(
        lambda: nn.Sequential(
            nn.Unflatten(1, (1, 3)), nn.Conv3d(1, 12, 3, padding=1), nn.ReLU(), nn.Conv3d(12, 5, 3), nn.ReLU(),
            nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(5, CLASSES),
        )
    )  # fmt: skip


#: Where a layer's channels can be zeroed, in eager modules: what comes after it maps zero to zero.
ZEROED = {
    "resnet20": (resnet20, 32, {
        "conv1": "bn1", "stage1.0.conv1": "stage1.0.bn1", "stage1.2.conv2": "stage1.2.bn2",
        "stage2.0.shortcut.0": "stage2.0.shortcut.1", "stage2.0.conv2": "stage2.0.bn2",
        "stage3.2.conv1": "stage3.2.bn1", "stage3.2.conv2": "stage3.2.bn2",
    }),
    "alexnet": (alexnet, 64, {
        "features.0": "features.2", "features.3": "features.5", "features.6": "features.7", "features.8": "features.9",
        "features.10": "features.12", "classifier.1": "classifier.2",
    }),
    "googlenet": (googlenet, 48, {
        name: name.removesuffix(".conv") for name in (
            "conv1.conv", "conv3.conv", "inception3a.branch1.conv", "inception3b.branch2.0.conv",
            "inception4a.branch4.1.conv", "inception4e.branch3.1.conv", "inception5b.branch2.1.conv",
        )
    }),
    "volumes": (volumes, 10, {"1": "2"}),
}  # fmt: skip


def images_of(data: Split) -> Tensor:
    return torch.cat([x for _, x, _ in data.batches(1000)])


@torch.no_grad()
def by_hook(model: nn.Module, module: str, channel: int, x: Tensor) -> Tensor:
    def zero(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        output = output.clone()
        output[:, channel] = 0
        return output

    handle = model.get_submodule(module).register_forward_hook(zero)
    try:
        return model(x)
    finally:
        handle.remove()


@pytest.mark.parametrize(
    "effort", [Effort(), Effort("bf16"), Effort("bf16", screen=True)], ids=["32", "bf16", "screen"]
)
@pytest.mark.parametrize("name", ZEROED)
def test_every_prediction_is_that_of_a_full_pass(name: str, effort: Effort, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear_screen, "CALIBRATION", 8)
    make, side, zeroed = ZEROED[name]
    model, data = make(), split(side=side)
    channels = {layer: [0, 3, 11] for layer in zeroed}
    ablator = Ablator(model, data, effort=effort)
    ablator.batch_size = 8
    found, x = ablator.run(channels), images_of(data)
    with torch.no_grad():
        assert torch.equal(found.dense.long(), model(x).argmax(1))
    for layer, module in zeroed.items():
        for row, channel in zip(found.predicted[found.rows(layer)], channels[layer], strict=True):
            assert torch.equal(row.long(), by_hook(model, module, channel, x).argmax(1)), (layer, channel)
    assert found.worlds == 20 * 3 * len(zeroed)


def test_log_probabilities_fall_as_in_full_passes() -> None:
    model, data = small(), split()
    found, x = ablate(model, data), images_of(data)
    assert {name: len(channels) for name, channels in found.layers.items()} == {"0": 8, "4": 6, "8": 10}
    with torch.no_grad():
        before = model(x).log_softmax(1).gather(1, data.labels[:, None])[:, 0]
    for layer, module in {"0": "3", "4": "6", "8": "9"}.items():
        for channel, row in enumerate(found.drop[found.rows(layer)]):
            after = by_hook(model, module, channel, x).log_softmax(1).gather(1, data.labels[:, None])[:, 0]
            wanted = torch.zeros(CLASSES).index_add_(0, data.labels, before - after)
            assert torch.allclose(row, wanted.double(), atol=1e-4)


def test_units_that_are_gone_are_gone_in_everything() -> None:
    model, data = small(), split()
    found, x = ablate(model, data, layers=["4"], gone={"0": [1, 5], "4": [2]}), images_of(data)
    with torch.no_grad():
        for channel in (1, 5):
            model[1].weight[channel] = model[1].bias[channel] = 0  # type: ignore[index]
        model[4].weight[2] = model[4].bias[2] = 0  # type: ignore[index]
        assert torch.equal(found.dense.long(), model(x).argmax(1))
    for channel, row in enumerate(found.predicted):
        assert torch.equal(row.long(), by_hook(model, "6", channel, x).argmax(1))
    assert torch.equal(found.predicted[2], found.dense)


def test_ties_are_broken_as_in_a_full_pass_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(silent, "WORTHWHILE", 0.0)
    model, data = small(), split()
    with torch.no_grad():
        model[10].weight[1:] = model[10].weight[0]  # type: ignore[index]
        model[10].bias.zero_()  # type: ignore[union-attr]
    found, x = ablate(model, data), images_of(data)
    with torch.no_grad():
        read = [model[:end](x).contiguous() for end in (4, 6, 10)]  # type: ignore[index]
    silent_worlds = sum(int(value.view(*value.shape[:2], -1).eq(0).all(2).sum()) for value in read)
    assert found.redone == 20 + found.worlds - silent_worlds
    assert not found.predicted.any()
    assert not found.dense.any()


def tie(model: nn.Module, x: Tensor) -> None:
    """Let the two largest logits of the first image be the same number."""
    with torch.no_grad():
        first, second = model(x[:1]).topk(2).indices[0].tolist()
        model[10].weight[second] = model[10].weight[first]  # type: ignore[index]
        model[10].bias.zero_()  # type: ignore[union-attr]


def test_ties_of_the_whole_network_and_of_sets_are_those_of_a_full_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = small(), split()
    x = images_of(data)
    tie(model, x)
    honest = Stage.run

    def rounded_otherwise(self: Stage, images: Tensor, *more: Any) -> dict[Any, Any]:
        """As folded norms could: later classes are larger by half of what counts as rounding."""
        values = honest(self, images, *more)
        if self is ablator.exact.stage:  # type: ignore[union-attr]
            shift = torch.linspace(0, 5e-5, CLASSES) * values[self.output].abs().amax()
            values[self.output] = values[self.output] + shift
        return values

    ablator = Ablator(model, data)
    monkeypatch.setattr(Stage, "run", rounded_otherwise)
    with torch.no_grad():
        whole = model(x).argmax(1)
        kept = model[:4](x)  # type: ignore[index]
        kept[:, [1, 3]] = 0
        without = model[4:](kept).argmax(1)  # type: ignore[index]
    stage = ablator.exact.stage  # type: ignore[union-attr]
    assert int(stage.logits(stage.run(x))[0].argmax()) != int(whole[0])
    assert torch.equal(ablator.run(["4"]).dense.long(), whole)
    assert torch.equal(predictions(ablator, data, [{}])[0].long(), whole)
    assert torch.equal(predictions(ablator, data, [{"0": [1, 3]}])[0].long(), without)


def same(one: Ablation, other: Ablation) -> bool:
    return torch.equal(one.predicted, other.predicted) and torch.equal(one.dense, other.dense)


def test_neither_chunks_nor_tiles_change_a_prediction(monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = resnet20(), split()
    layers = {"stage2.1.conv1": range(5), "stage3.2.conv2": range(5)}
    whole = ablate(model, data, layers=layers)
    ablator = Ablator(model, data)
    ablator.batch_size = 7
    assert same(ablator.run(layers), whole)
    monkeypatch.setattr(chunk, "TILE", 2**15)
    assert same(ablator.run(layers), whole)
    assert same(ablator.run({name: [*channels][::-1] for name, channels in layers.items()}), whole)


def test_what_is_left_out_is_audited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear_screen, "CALIBRATION", 8)
    model, data = small(), split(40)
    with torch.no_grad():
        model[10].weight.mul_(30)  # type: ignore[operator, union-attr]
    plain = ablate(model, data)
    ablator = Ablator(model, data, effort=Effort(screen=True, audit=10**6))
    ablator.batch_size = 8
    found = ablator.run()
    assert same(found, plain)
    assert 0 < found.passed == found.audited < found.worlds
    assert found.wrong == 0
    monkeypatch.setattr(gap_errors, "SAFETY", -1e9)  # now every image is certain
    careless = ablator.run()
    assert careless.passed == careless.audited == 32 * 24
    assert careless.wrong == int((plain.predicted != plain.dense)[:, 8:].sum()) > 0


def test_low_precision_is_made_again_where_it_is_not_sure(monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = small(), split(40)
    found = ablate(model, data, effort=Effort("bf16"))
    assert same(found, ablate(model, data))
    assert 0 < found.screened < found.worlds
    monkeypatch.setattr(deciders, "SAFETY", 1e9)
    monkeypatch.setattr(silent, "WORTHWHILE", 2.0)
    assert ablate(model, data, effort=Effort("bf16")).screened == found.worlds


def test_too_little_memory_names_what_is_enough() -> None:
    with pytest.raises(PrunescopeError, match="allow at least") as error:
        Ablator(small(), split(), effort=Effort(memory=1000))
    least = re.search(r"at least ([\d,]+) \(([\d,]+) MB\)", str(error.value))
    assert least
    enough, megabytes = (int(number.replace(",", "")) for number in least.groups())
    assert (megabytes - 1) * 2**20 < enough <= megabytes * 2**20
    assert Ablator(small(), split(), effort=Effort(memory=enough)).batch_size == 1
    with pytest.raises(PrunescopeError, match="too little"):
        Ablator(small(), split(), effort=Effort(memory=enough - 1))


def test_what_cannot_be_is_refused() -> None:
    model, data = small(), split()
    with pytest.raises(PrunescopeError, match="unknown layer with units '5'"):
        ablate(model, data, layers=["5"])
    with pytest.raises(PrunescopeError, match=r"0 has channels 0 to 7, got \[8\]"):
        ablate(model, data, layers={"0": [8]})
    with pytest.raises(PrunescopeError, match="unknown layer with units '10'"):
        ablate(model, data, layers=["10"])  # its outputs are the classes
    with pytest.raises(PrunescopeError, match="Sequential has no layer whose channels are read"):
        Ablator(nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, CLASSES)), data)
    with pytest.raises(PrunescopeError, match="unknown precision"):
        Effort("16")  # type: ignore[arg-type]
    with torch.no_grad():
        model[0].weight[0, 0, 0, 0] = float("nan")  # type: ignore[index]
    with pytest.raises(PrunescopeError, match="not finite, first for image '0'"):
        ablate(model, data)


def test_the_model_is_as_it_was() -> None:
    model = small().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.random.get_rng_state()
    ablate(model, split(), effort=Effort("bf16", screen=True))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert torch.equal(torch.random.get_rng_state(), random)
    assert not any(module._forward_hooks for module in model.modules())


def test_progress_counts_every_world() -> None:
    told: list[tuple[int, int]] = []
    found = ablate(small(), split(), on_worlds=lambda done, of: told.append((done, of)))
    assert told == sorted(told)
    assert told[-1] == (found.worlds, found.worlds)


class Crossed(nn.Module):
    """A scale that is made of the images, but has no axis of images in front."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3), nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        beside = self.two(x).mean((2, 3)).t()
        return self.head(torch.relu(self.one(x)).mean((2, 3)) + beside.t())


class Frames(nn.Module):
    """Halves of images side by side on the axis of images."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.head = nn.Conv2d(3, 4, 3), nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        n = x.shape[0]
        x = x.unflatten(2, (2, 16)).transpose(1, 2).reshape(n * 2, 3, 16, 32)
        return self.head(torch.relu(self.one(x)).mean((2, 3)).reshape(n, 8))


def test_what_cannot_be_replayed_is_refused_or_run_in_full() -> None:
    model, data = seeded(Crossed), split()
    found, x = ablate(model, data, layers=["one"]), images_of(data)
    for channel, row in enumerate(found.predicted):
        with torch.no_grad():
            kept = torch.relu(model.one(x)).mean((2, 3))  # type: ignore[operator, union-attr]
            kept[:, channel] = 0
            other = model.two(x).mean((2, 3))  # type: ignore[operator, union-attr]
            assert torch.equal(row.long(), model.head(kept + other).argmax(1))  # type: ignore[operator, union-attr]
    with (
        pytest.warns(PrunescopeWarning, match="layer 'one' is taken out by full forward passes"),
        pytest.raises(PrunescopeError, match="what layer 'one' gives cannot be told apart by image"),
    ):
        ablate(seeded(Frames), data, layers=["one"])


def test_the_values_of_one_chunk_live_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    lived: list[weakref.ref[Any]] = []
    of = chunk.Chunk.of

    def recorded(stage: Any, images: Tensor) -> Any:
        assert not any(ref() is not None for ref in lived)
        made = of(stage, images)
        lived.append(weakref.ref(made))
        return made

    monkeypatch.setattr(chunk.Chunk, "of", recorded)
    Ablator(small(), split(), batch_size=6).run(["0"])
    assert len(lived) == 4


def test_inside_inference_mode() -> None:
    model, data = small(), split()
    plain = ablate(model, data)
    with torch.inference_mode():
        assert same(ablate(model, data, effort=Effort(screen=True)), plain)
