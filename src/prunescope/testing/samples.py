"""A network and images for tests: small, seeded, with everything that probes and criteria may trip over."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from prunescope.core.seeds import torch_generator
from prunescope.data.segments import Segments
from prunescope.data.split import NAMES, Dataset, Normalisation, Split
from prunescope.engine.untouched import fixed_rng
from prunescope.pruning.scoring import Batches

CLASSES = ("red", "green", "blue")
CONCEPTS = ("red object", "green object", "bright", "left")
_SIDE, _PATCH = 8, 4


class TinyNetwork(nn.Module):
    """Convolution, batch norm, convolution with bias, pooling, linear head. ReLUs overwrite their input on request."""

    def __init__(self, inplace: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.relu1 = nn.ReLU(inplace)
        self.conv2 = nn.Conv2d(6, 8, 3, padding=1, stride=2)
        self.relu2 = nn.ReLU(inplace)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(8, len(CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> logits (B, 3)."""
        x = self.relu1(self.norm(self.conv1(x)))
        x = self.relu2(self.conv2(x))
        return self.head(self.pool(x).flatten(1))


def tiny_network(*, inplace: bool = False, seed: int = 0) -> nn.Module:
    """A network of 618 prunable weights in training mode; equal seeds give equal weights and batch statistics.

    >>> tiny_network()(torch.zeros(2, 3, 8, 8)).shape
    torch.Size([2, 3])
    """
    with fixed_rng():  # layers draw their first weights from the global generator
        network = TinyNetwork(inplace)
    generator = torch_generator(seed, "tiny network")
    with torch.no_grad():
        for tensor in network.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=generator) - 0.5)
        for weight in (network.conv1.weight, network.conv2.weight, network.head.weight):
            weight -= weight.flatten(1).mean(1).view(-1, *[1] * (weight.ndim - 1))  # so that no class always wins
        network.head.bias.zero_()
        for positive in (network.norm.weight, network.norm.running_var):
            assert positive is not None
            positive.abs_().add_(0.5)
    return network


def tiny_data(*, train: int = 96, val: int = 32, test: int = 32, seed: int = 0) -> Dataset:
    """Images of 8 x 8 pixels with a coloured object on noise: three classes, four concepts per image, object masks,
    labels of pixels.

    >>> data = tiny_data()
    >>> len(data.test), data.classes, data.test.concept_names[0]
    (32, ('red', 'green', 'blue'), 'red object')
    """
    drawn = [_draw(name, count, seed) for name, count in zip(NAMES, (train, val, test), strict=True)]
    normalisation = Normalisation.of(drawn[0].images)
    first, second, third = (replace(split, normalisation=normalisation) for split in drawn)
    return Dataset("tiny", first, second, third)


def _draw(name: str, count: int, seed: int) -> Split:
    generator = torch_generator(seed, "tiny data", name)
    images = torch.randint(0, 96, (count, 3, _SIDE, _SIDE), generator=generator)
    labels = torch.randint(0, len(CLASSES), (count,), generator=generator)
    bright = torch.randint(0, 2, (count,), generator=generator)
    top, left = torch.randint(0, _SIDE - _PATCH + 1, (2, count), generator=generator)
    images += 40 * bright[:, None, None, None]
    rows, columns = torch.arange(_SIDE)[None, :, None], torch.arange(_SIDE)[None, None, :]
    masks = _within(rows, top) & _within(columns, left)
    images[torch.arange(count), labels] += 100 * masks
    concepts = torch.stack([labels == 0, labels == 1, bright == 1, left < (_SIDE - _PATCH) / 2], 1).to(torch.int8)
    ids = np.array([f"{name}-{i}" for i in range(count)])
    return Split(
        images.to(torch.uint8), labels, ids, CLASSES, concepts=concepts, concept_names=CONCEPTS, masks=masks,
        segments=_segments(labels, masks),
    )  # fmt: skip


def _segments(labels: Tensor, masks: Tensor) -> Segments:
    """The object's colour, at its pixels and in its upper half."""
    upper = masks & (masks.cumsum(1) <= _PATCH // 2)
    shown = [masks & (labels == k)[:, None, None] for k in range(len(CLASSES))]
    return Segments.of(torch.stack([*shown, upper], 1), (*CLASSES, "upper half"), (*["colour"] * len(CLASSES), "part"))


def _within(position: Tensor, start: Tensor) -> Tensor:
    first = start[:, None, None]
    return (position >= first) & (position < first + _PATCH)


def tiny_batches(data: Dataset | None = None, *, batch_size: int = 16) -> Batches:
    """Training batches for criteria: the same ones at every call."""
    split = (data or tiny_data()).train

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        return ((x, y) for _, x, y in split.batches(batch_size))

    return batches


class BreakdownError(Exception):
    """What the images of `breaking` raise."""


class _BreakingImages:
    """Images that can be read once; the second reading fails."""

    def __init__(self, images: Any) -> None:
        self._images, self._readings = images, 0

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self._images.shape)

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: Any) -> Tensor:
        self._readings += 1
        if self._readings > 1:
            raise BreakdownError
        found: Tensor = self._images[index]
        return found


def breaking(data: Dataset) -> Dataset:
    """The data set on a disk that fails: in every split the second reading of images raises `BreakdownError`."""
    first, second, third = (replace(data[name], images=_BreakingImages(data[name].images)) for name in NAMES)
    return replace(data, train=first, val=second, test=third)
