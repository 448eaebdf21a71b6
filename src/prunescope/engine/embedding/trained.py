"""Embeddings by networks that others trained: torchvision's backbones, DreamSim, LPIPS. Imported when used."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from prunescope.core.compat import torchvision_module
from prunescope.core.errors import PrunescopeError, choices, missing_extra
from prunescope.core.files import sha256
from prunescope.core.seeds import torch_generator
from prunescope.core.types import Record
from prunescope.data.cache import cache_folder
from prunescope.data.split import Split
from prunescope.engine.embedding.base import Embedding, embeddings, pixels
from prunescope.engine.sweep import Needs, Pass, sweep
from prunescope.engine.untouched import fixed_rng
from prunescope.engine.vectors import vectors
from prunescope.models.layers import penultimate
from prunescope.models.zoo import build_model


@embeddings.register("torchvision")
@dataclass(frozen=True)
class Backbone(Embedding):
    """What goes into the head of a torchvision network. Never name the network in question, nor its dense parent:
    that would reward likeness to it.

    Attributes:
        model: `resnet18`.
        weights: path of a file with its ImageNet weights; "": torchvision downloads them.
        layer: whose output is taken, averaged over positions; "": what goes into the head.
    """

    model: str = "resnet18"
    weights: str = ""
    layer: str = ""
    summary: ClassVar[str] = "a torchvision network with its ImageNet weights"

    def vectors(self, split: Split, *, batch_size: int, device: torch.device | str) -> Tensor:
        config = {"name": f"torchvision:{self.model}", "pretrained": self.weights or True}
        network = build_model(config, classes=max(2, len(split.classes)), channels=split.shape[0], seed=0)
        gatherer = _Features(self.layer or f"{penultimate(network)}:input")
        sweep(network, {"images": split}, [gatherer], batch_size=batch_size, device=device)
        return torch.cat(gatherer.found)

    def facts(self) -> str:
        if not self.weights:
            return ""
        if not Path(self.weights).is_file():
            raise PrunescopeError(f"embedding 'torchvision': there is no file of weights {self.weights!r}")
        return sha256(Path(self.weights))


class _Features:
    def __init__(self, layer: str) -> None:
        self.layer, self.found = layer, list[Tensor]()

    @property
    def needs(self) -> Needs:
        return Needs(layers=(self.layer,), splits=("images",))

    def update(self, batch: Pass) -> None:
        self.found.append(vectors(batch.activations[self.layer].float(), self.layer).cpu())

    def finish(self) -> Record:
        return Record("features")


@embeddings.register("dreamsim")
@dataclass(frozen=True)
class DreamSim(Embedding):
    """The similarity that agrees best with people (Fu et al. 2023), as MIS has it. Downloads about 1 GB at first use.

    Attributes:
        folder: where its weights lie or come to lie; "": the cache's folder.
    """

    folder: str = ""
    scaling: ClassVar[Literal["centred", "unit", "none"]] = "unit"
    summary: ClassVar[str] = "DreamSim, as in the paper (needs the package dreamsim)"

    def check(self, split: Split) -> None:
        _package("dreamsim", "DreamSim")

    def vectors(self, split: Split, *, batch_size: int, device: torch.device | str) -> Tensor:
        package = _package("dreamsim", "DreamSim")
        folder = Path(self.folder) if self.folder else cache_folder() / "dreamsim"
        folder.mkdir(parents=True, exist_ok=True)
        with fixed_rng(), torch.inference_mode():
            try:
                network, _ = package.dreamsim(pretrained=True, device=str(device), cache_dir=str(folder))
            except OSError as error:
                raise PrunescopeError(
                    f"embedding 'dreamsim': its weights could not be read or downloaded ({error}); "
                    f"put them into {folder}, or name another folder"
                ) from error
            # It asks for 224 x 224 in [0, 1]; of one image it drops the first axis.
            found = [
                network.embed(_resized(images, 224)).reshape(len(images), -1).float().cpu()
                for images in _coloured(split, batch_size, device)
            ]
        return torch.cat(found).clone()


@embeddings.register("lpips")
@dataclass(frozen=True)
class Lpips(Embedding):
    """LPIPS (Zhang et al. 2018): its distance is a squared Euclidean one between scaled feature maps.

    The maps of an image are many numbers; a random projection (Johnson and Lindenstrauss) keeps their distances up to
    about sqrt(2 / size) of each.

    Attributes:
        network: `alex`, `vgg` or `squeeze`; torchvision downloads its trunk.
        trunk: `trained`, or `random` for a control without a download.
        size: of the vectors.
        side: images are resized to side x side; 0: as they are (at least 32).
        seed: of the projection, and of a random trunk.
    """

    network: str = "alex"
    trunk: str = "trained"
    size: int = 1024
    side: int = 64
    seed: int = 0
    scaling: ClassVar[Literal["centred", "unit", "none"]] = "none"
    summary: ClassVar[str] = "LPIPS (needs the package lpips)"

    def __post_init__(self) -> None:
        for name, got, allowed in (
            ("network", self.network, ("alex", "vgg", "squeeze")), ("trunk", self.trunk, ("trained", "random")),
        ):  # fmt: skip
            if got not in allowed:
                raise choices(name, got, allowed, "embedding 'lpips'")
        if self.size < 1 or self.side < 0:
            raise PrunescopeError(f"lpips: size must be at least 1 and side at least 0, got {self.size}, {self.side}")

    def check(self, split: Split) -> None:
        _package("lpips", "LPIPS")

    def vectors(self, split: Split, *, batch_size: int, device: torch.device | str) -> Tensor:
        network, projection, found = self._metric(device), None, []
        with torch.inference_mode():
            for images in _coloured(split, min(batch_size, 64), device):
                maps = feature_maps(network, _resized(images, self.side) if self.side else images)
                if projection is None:
                    projection = self._projection(maps.shape[1]).to(device)
                found.append((maps @ projection).cpu())
        return torch.cat(found).clone()

    def _metric(self, device: torch.device | str = "cpu") -> Any:
        package = _package("lpips", "LPIPS")
        with fixed_rng(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it speaks to torchvision as one did in 2021
            torch.default_generator.manual_seed(self.seed)
            try:
                network = package.LPIPS(net=self.network, pnet_rand=self.trunk == "random", verbose=False)
            except OSError as error:
                raise PrunescopeError(
                    f"embedding 'lpips': the weights of {self.network!r} could not be downloaded ({error})"
                ) from error
        return network.to(device).eval()

    def _projection(self, numbers: int) -> Tensor:
        generator = torch_generator(self.seed, "lpips projection")
        return torch.randn(numbers, self.size, generator=generator) / self.size**0.5


def feature_maps(network: Any, images: Tensor) -> Tensor:
    """(B, all numbers of all layers): the squared distance of two rows is the LPIPS of their images.

    Zhang et al. (2018), eq. 1: channels of unit length, weighed by the root of the layer's weights, averaged over
    positions.

    Args:
        images: (B, 3, H, W) in [0, 1].
    """
    parts = []
    for maps, head in zip(network.net(network.scaling_layer(2 * images - 1)), network.lins, strict=True):
        unit = maps / (maps.square().sum(1, keepdim=True).sqrt() + 1e-10)
        weights = head.model[-1].weight.clamp_min(0).sqrt()
        parts.append((unit * weights / (maps.shape[2] * maps.shape[3]) ** 0.5).flatten(1))
    return torch.cat(parts, dim=1)


def _coloured(split: Split, batch_size: int, device: torch.device | str) -> Iterator[Tensor]:
    for images in pixels(split, batch_size, device):
        if images.shape[1] not in (1, 3):
            raise PrunescopeError(f"this embedding takes images of 1 or 3 channels, got {images.shape[1]}")
        yield images.expand(-1, 3, -1, -1)


def _resized(images: Tensor, side: int) -> Tensor:
    return F.interpolate(images, (side, side), mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)


def _package(name: str, title: str) -> Any:
    torchvision_module()  # both import it; where its operators do not load, only this way works
    try:
        return importlib.import_module(name)
    except ImportError:
        raise missing_extra(name, name, f"the embedding {title}") from None
