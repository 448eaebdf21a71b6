"""Every embedding beside what it says of itself, and the cache that keeps them."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from prunescope.core.configure import canonical
from prunescope.core.errors import PrunescopeError
from prunescope.data.cache import cache_folder
from prunescope.data.split import Split
from prunescope.engine.embedding.base import Embedding, embed, embedding_of, embeddings
from prunescope.engine.embedding.encoder import Encoder, RandomNetwork
from prunescope.engine.embedding.plain import Colour, Label
from prunescope.engine.embedding.trained import Backbone, DreamSim, Lpips, _Features, feature_maps
from prunescope.models.zoo import build_model
from prunescope.testing.samples import tiny_data

TINY = tiny_data()


@dataclass(frozen=True)
class Counting(Embedding):
    """Counts how often it was asked, for each of its options."""

    option: int = 0
    calls: ClassVar[list[int]] = []

    def vectors(self, split: Split, *, batch_size: int, device: torch.device | str) -> Tensor:
        self.calls.append(self.option)
        return torch.arange(float(len(split)))[:, None] ** torch.arange(1, 4) + self.option


Counting.name = "counting"


def test_work_is_done_once_for_equal_options_and_images() -> None:
    Counting.calls.clear()
    split = TINY.val.subset(range(10))  # type: ignore[arg-type]
    first, again = embed(Counting(), split), embed(Counting(), split)
    assert Counting.calls == [0]
    assert first.dtype == np.float32
    assert first.tobytes() == again.tobytes()
    embed(Counting(1), split)
    embed(Counting(), replace(split, images=split.images[torch.arange(10).flip(0)]))
    assert Counting.calls == [0, 1, 0]
    for file in cache_folder().glob("embedding-*.npy"):
        file.write_bytes(file.read_bytes()[:-8])  # cut short: made again
    assert embed(Counting(), split).tobytes() == first.tobytes()
    assert Counting.calls == [0, 1, 0, 0]


def test_vectors_are_centred_and_of_length_one() -> None:
    found = embed(Counting(), TINY.val)
    raw = Counting().vectors(TINY.val, batch_size=1, device="cpu").double().numpy()
    expected = raw - raw.mean(axis=0)
    np.testing.assert_allclose(found, expected / np.linalg.norm(expected, axis=1, keepdims=True), rtol=1e-5)


def test_bad_vectors_and_caches_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Counting, "vectors", lambda self, split, **_: torch.full((len(split), 2), float("nan")))
    with pytest.raises(PrunescopeError, match=f"vectors of {len(TINY.val)} of {len(TINY.val)} images are not finite"):
        embed(Counting(7), TINY.val)
    monkeypatch.setattr(Counting, "vectors", lambda self, split, **_: torch.zeros(3, 2))
    with pytest.raises(PrunescopeError, match=rf"'counting' gives \(3, 2\) for {len(TINY.val)} images"):
        embed(Counting(7), TINY.val)
    with pytest.raises(PrunescopeError, match="no images"):
        embed(Counting(), TINY.val.subset([]))
    (tmp_path / "file").touch()
    monkeypatch.setenv("PRUNESCOPE_CACHE", str(tmp_path / "file"))
    with pytest.raises(PrunescopeError, match="cannot write the cache"):
        embed(Colour(), TINY.val)


def test_names_and_options() -> None:
    assert {"colour", "label", "random", "encoder", "torchvision", "dreamsim", "lpips"} <= set(embeddings)
    assert embedding_of("colour") == Colour()
    assert embedding_of({"name": "encoder", "steps": 9}) == Encoder(steps=9)
    for name, kind in embeddings.items():
        assert kind.summary, name
        assert embedding_of(canonical(kind())) == kind()
    with pytest.raises(PrunescopeError, match="unknown embedding 'color'; did you mean 'colour'"):
        embedding_of("color")
    with pytest.raises(PrunescopeError, match="did you mean 'steps'"):
        embedding_of({"name": "encoder", "step": 9})


def test_colours_beside_a_count_of_pixels() -> None:
    found = Colour(bins=3).vectors(TINY.test, batch_size=5, device="cpu")
    for image, row in zip(TINY.test.images, found, strict=True):
        counts = np.zeros(27)
        for red, green, blue in image.flatten(1).T.tolist():
            counts[red * 3 // 256 + 3 * (green * 3 // 256) + 9 * (blue * 3 // 256)] += 1
        np.testing.assert_allclose(row.numpy() ** 2, counts / 64, rtol=1e-5)


def test_labels() -> None:
    found = embed(Label(), TINY.test)
    same = TINY.test.labels[:, None] == TINY.test.labels
    np.testing.assert_array_equal(found @ found.T, same.numpy())


@pytest.mark.parametrize("item", [RandomNetwork(8), Encoder(8, steps=2)])
def test_own_networks_follow_from_their_seed_and_leave_the_generators_alone(item: RandomNetwork | Encoder) -> None:
    before = torch.get_rng_state()
    first = item.vectors(TINY.test, batch_size=7, device="cpu")
    torch.testing.assert_close(item.vectors(TINY.test, batch_size=32, device="cpu"), first)
    assert torch.equal(before, torch.get_rng_state())
    assert first.shape == (32, 64)
    for other in (replace(item, seed=1), replace(item, kernel=5), replace(item, width=12)):
        found = other.vectors(TINY.test, batch_size=32, device="cpu")
        assert found.shape != first.shape or not torch.allclose(found, first)


def test_the_encoder_learns_its_classes() -> None:
    """Images of one class lie nearer to each other than to others, more than for a network that did not learn."""
    apart = {}
    same = (TINY.test.labels[:, None] == TINY.test.labels).numpy()
    for item in (Encoder(width=8, steps=40), RandomNetwork(width=8)):
        found = embed(item, TINY.test)
        likeness = found @ found.T
        apart[item.name] = likeness[same].mean() - likeness[~same].mean()
    assert apart["encoder"] > apart["random"] + 0.2


def test_what_own_networks_refuse() -> None:
    one = TINY.test.subset(torch.arange(32)[TINY.test.labels == 0])
    with pytest.raises(PrunescopeError, match="all images are of one"):
        embed(Encoder(steps=2), one)
    with pytest.raises(PrunescopeError, match="kernel odd, got 32 and 4"):
        Encoder(kernel=4)
    with pytest.raises(PrunescopeError, match="steps and epochs must be above 0, got 0 and 40"):
        Encoder(steps=0)
    with pytest.raises(PrunescopeError, match="bins must be 2 to 16"):
        Colour(bins=1)


def test_a_backbone_gives_what_goes_into_its_head(tmp_path: Path) -> None:
    network = build_model("torchvision:squeezenet1_1", classes=1000, channels=3, seed=5).eval()
    file = tmp_path / "weights.pt"
    torch.save(network.state_dict(), file)
    big = replace(TINY.test, images=TINY.test.images[:4].repeat(1, 1, 4, 4), labels=TINY.test.labels[:4],
                  ids=TINY.test.ids[:4], masks=None, segments=None, concepts=None, concept_names=())  # fmt: skip
    item = Backbone("squeezenet1_1", str(file))
    found = item.vectors(big, batch_size=3, device="cpu")
    with torch.no_grad():
        ((_, x, _),) = big.batches(4)
        expected = network.features(x).mean((2, 3))  # type: ignore[operator]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    shallow = replace(item, layer="features.0").vectors(big, batch_size=4, device="cpu")
    assert shallow.shape == (4, 64)
    before = item.facts()
    with torch.no_grad():
        next(network.parameters()).add_(1)
    torch.save(network.state_dict(), file)
    assert item.facts() != before
    with pytest.raises(PrunescopeError, match=r"no file of weights 'nowhere.pt'"):
        embed(Backbone(weights="nowhere.pt"), TINY.test)


# -- packages that are not installed with us


@pytest.mark.parametrize(("item", "package"), [(DreamSim(), "dreamsim"), (Lpips(), "lpips")])
def test_a_missing_package_is_named(item: Embedding, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # importing it now fails
    with pytest.raises(PrunescopeError, match=rf"needs the package '{package}': .*prunescope\[{package}\]"):
        embed(item, TINY.test)


def test_dreamsim_gets_what_it_asks_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A stand-in with its interface: images of 224 x 224 in [0, 1]; one image loses its first axis."""
    seen = []

    class StandIn:
        def embed(self, images: Tensor) -> Tensor:
            assert images.shape[1:] == (3, 224, 224)
            assert 0 <= images.min() <= images.max() <= 1
            seen.append(len(images))
            return images.mean((2, 3)).squeeze()

    def make(pretrained: bool, device: str, cache_dir: str) -> tuple[StandIn, None]:
        assert pretrained
        assert (device, cache_dir) == ("cpu", str(tmp_path))
        return StandIn(), None

    package = ModuleType("dreamsim")
    package.dreamsim = make  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "dreamsim", package)
    found = embed(DreamSim(str(tmp_path)), TINY.test.subset(range(7)), batch_size=3)  # type: ignore[arg-type]
    assert seen == [3, 3, 1]
    means = TINY.test.images[:7].float().mean((2, 3)).numpy()
    np.testing.assert_allclose(found, means / np.linalg.norm(means, axis=1, keepdims=True), atol=2e-3)


class LpipsStandIn(nn.Module):
    """The parts of lpips.LPIPS that are used, and its distance as its authors compute it."""

    def __init__(self, net: str, pnet_rand: bool, verbose: bool) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 4, 3, stride=2)
        self.lins = nn.ModuleList(nn.Sequential() for _ in range(2))
        for head, width in zip(self.lins, (6, 4), strict=True):
            head.model = nn.Sequential(nn.Dropout(), nn.Conv2d(width, 1, 1, bias=False))  # type: ignore[assignment]
            head.model[1].weight.data.abs_()  # type: ignore[operator, union-attr, index]

    def scaling_layer(self, images: Tensor) -> Tensor:
        return (images + 0.1) / 0.45

    def net(self, images: Tensor) -> tuple[Tensor, Tensor]:
        first = self.first(images).relu()
        return first, self.second(first).relu()

    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        """Of images in [0, 1], (B,)."""
        total = torch.zeros(len(a))
        outputs = [self.net(self.scaling_layer(2 * images - 1)) for images in (a, b)]
        for x, y, head in zip(*outputs, self.lins, strict=True):
            x, y = (maps / (maps.pow(2).sum(1, keepdim=True).sqrt() + 1e-10) for maps in (x, y))
            total += head.model((x - y) ** 2).mean((1, 2, 3))  # type: ignore[operator]
        return total


def test_lpips_is_a_squared_distance_between_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    package: Any = ModuleType("lpips")
    package.LPIPS = LpipsStandIn
    monkeypatch.setitem(sys.modules, "lpips", package)
    item = Lpips(trunk="random", side=0, size=4096)
    network = item._metric()
    images = TINY.test.images[:].float() / 255
    with torch.no_grad():
        expected = network.distance(images[:16], images[16:])
        maps = feature_maps(network, images)
        torch.testing.assert_close((maps[:16] - maps[16:]).square().sum(1), expected, rtol=1e-4, atol=1e-6)
    found = embed(item, TINY.test)
    projected = ((found[:16] - found[16:]) ** 2).sum(axis=1)
    np.testing.assert_allclose(projected, expected.numpy(), rtol=0.12)  # sqrt(2 / 4096) = 0.022 each
    with pytest.raises(PrunescopeError, match="unknown network 'alexnet'"):
        Lpips(network="alexnet")


@pytest.mark.parametrize(("shape", "axes"), [((4, 5, 3, 2), (2, 3)), ((4, 7, 5), (1,))], ids=["maps", "tokens"])
def test_features_are_averaged_over_positions(shape: tuple[int, ...], axes: tuple[int, ...]) -> None:
    value = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    gatherer = _Features("layer")
    gatherer.update(SimpleNamespace(activations={"layer": value}))  # type: ignore[arg-type]
    assert torch.equal(gatherer.found[0], value.mean(axes))
