"""Images, labels and what is known about them, as every other part sees them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from prunescope.core.errors import PrunescopeError
from prunescope.data.segments import Segments

NAMES = ("train", "val", "test")


class Images(Protocol):
    """uint8 images (N, C, H, W), indexed by an int64 tensor or a slice: a tensor, a memory map, a decoder of files."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: Any) -> Tensor: ...


@dataclass(frozen=True)
class Normalisation:
    """Per-channel mean and standard deviation of images scaled to [0, 1]."""

    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.25,)

    def __call__(self, images: Tensor) -> Tensor:
        """uint8 (B, C, H, W) -> float32 of the same shape, zero mean and unit variance over the training split."""
        shape = (1, -1, 1, 1)
        mean = torch.tensor(self.mean, device=images.device).view(shape) * 255
        std = torch.tensor(self.std, device=images.device).view(shape) * 255
        return images.float().sub_(mean).div_(std)

    @classmethod
    def of(cls, images: Images, limit: int = 5000) -> Normalisation:
        """Measured on (at most `limit`, evenly spaced) images."""
        index = torch.linspace(0, len(images) - 1, min(limit, len(images))).long().unique()
        counts = torch.zeros(images.shape[1], 256, dtype=torch.float64)  # of every value: exact, and small
        for part in index.split(256):
            for channel, values in zip(counts, images[part].unbind(1), strict=True):
                channel += torch.bincount(values.flatten(), minlength=256)
        value = torch.arange(256, dtype=torch.float64) / 255
        total = counts.sum(1, keepdim=True)
        mean = (counts * value).sum(1, keepdim=True) / total
        variance = (counts * (value - mean) ** 2).sum(1) / (total[:, 0] - 1).clamp_min(1)
        std = variance.sqrt().clamp_min(1e-3)
        return cls(
            tuple(round(v, 6) for v in mean[:, 0].tolist()),
            tuple(round(v, 6) for v in std.tolist()),
        )


@dataclass(frozen=True, eq=False)
class Split:
    """One part (train, val or test) of a data set. Never shuffled or augmented in place.

    Attributes:
        images: uint8 (N, C, H, W).
        labels: int64 (N,), indices into `classes`.
        ids: N distinct strings that name the images across runs and machines.
        classes: class names.
        normalisation: fitted on the training split and shared by all splits.
        concepts: int8 (N, K): 1 present, 0 absent, -1 unknown; None when there are no concept labels.
        concept_names: K names.
        concept_level: `image` (labelled per image) or `class` (constant within a class, so a bottleneck on them
            can name the class whatever the network sees; the report says which kind it shows).
        masks: bool (N, H, W), True on the labelled object; None when unknown.
        segments: labels of pixels, of the images' size; None when there are none.
    """

    images: Images
    labels: Tensor
    ids: np.ndarray[Any, np.dtype[np.str_]]
    classes: tuple[str, ...]
    normalisation: Normalisation = field(default_factory=Normalisation)
    concepts: Tensor | None = None
    concept_names: tuple[str, ...] = ()
    concept_level: str = "image"
    masks: Tensor | None = None
    segments: Segments | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "ids", np.asarray(self.ids, dtype=np.str_))
        object.__setattr__(self, "labels", self.labels.long())
        n = len(self.images)
        lengths = {"labels": len(self.labels), "ids": len(self.ids)}
        if self.concepts is not None:
            lengths["concepts"] = len(self.concepts)
            if self.concepts.shape[1:] != (len(self.concept_names),):
                shape = tuple(self.concepts.shape)
                raise PrunescopeError(f"concepts have shape {shape}, but {len(self.concept_names)} names")
        if self.masks is not None:
            lengths["masks"] = len(self.masks)
            _require_size("masks", self.masks.shape, self.images.shape)
        if self.segments is not None:
            lengths["segments"] = len(self.segments)
            _require_size("segments", self.segments.shape, self.images.shape)
        wrong = {name: length for name, length in lengths.items() if length != n}
        if wrong:
            raise PrunescopeError(
                f"a split of {n} images cannot have " + ", ".join(f"{v} {k}" for k, v in wrong.items())
            )
        if n and not 0 <= int(self.labels.min()) <= int(self.labels.max()) < len(self.classes):
            raise PrunescopeError(
                f"labels range over {int(self.labels.min())}..{int(self.labels.max())}, "
                f"but there are {len(self.classes)} classes"
            )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of every image."""
        _, c, h, w = self.images.shape
        return c, h, w

    def subset(self, index: Tensor | np.ndarray[Any, Any] | list[int]) -> Split:
        """The images at `index` (int positions), in that order, decoded into memory."""
        index = torch.as_tensor(index, dtype=torch.int64)
        return replace(
            self,
            images=self.images[index],
            labels=self.labels[index],
            ids=self.ids[index.numpy()],
            concepts=None if self.concepts is None else self.concepts[index],
            masks=None if self.masks is None else self.masks[index],
            segments=None if self.segments is None else self.segments.subset(index),
        )

    def batches(self, batch_size: int, device: torch.device | str = "cpu") -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """(positions, normalised float32 images, labels) in order, for measuring: no shuffle, no augmentation."""
        for start in range(0, len(self), batch_size):
            index = torch.arange(start, min(start + batch_size, len(self)))
            raw = self.images[start : start + batch_size].to(device, non_blocking=True)
            images = self.normalisation(raw).contiguous(memory_format=torch.channels_last)
            yield index, images, self.labels[index].to(device)

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits: a hash over pixels, labels, ids, concepts, masks, segments and normalisation."""
        digest = hashlib.sha256(repr((self.shape, self.concept_level)).encode())
        for start in range(0, len(self), 1024):
            digest.update(np.ascontiguousarray(self.images[start : start + 1024].numpy()).tobytes())
        digest.update(self.labels.numpy().tobytes())
        digest.update("\0".join([*self.ids, *self.classes, *self.concept_names, repr(self.normalisation)]).encode())
        if self.concepts is not None:
            digest.update(self.concepts.numpy().tobytes())
        if self.masks is not None:
            digest.update(self.masks.numpy().tobytes())
        if self.segments is not None:
            digest.update(self.segments.fingerprint.encode())
        return digest.hexdigest()[:16]


def _require_size(what: str, own: tuple[int, ...], images: tuple[int, ...]) -> None:
    """Labels of pixels (N, H, W) must be of the images' size (N, C, H, W)."""
    if tuple(own[1:]) != tuple(images[2:]):
        sizes = " x ".join(map(str, own[1:])), " x ".join(map(str, images[2:]))
        raise PrunescopeError(f"{what} label {sizes[0]} pixels, but images have {sizes[1]}")


@dataclass(frozen=True, eq=False)
class Dataset:
    """Three splits of one source.

    Attributes:
        name: for people.
        train, val, test: disjoint. Nothing is ever chosen on `test`.
        concept_bank: other images with concept labels on which concept vectors are fitted (positives and negatives
            in folders, or another data set); None: the training split's own concept labels are used.
        info: JSON-able facts for the report (rule of the classes, source, licence, warnings).
    """

    name: str
    train: Split
    val: Split
    test: Split
    concept_bank: Split | None = None
    info: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Split:
        split = {"train": self.train, "val": self.val, "test": self.test, "concepts": self.concept_bank}.get(name)
        if split is None:
            raise PrunescopeError(f"data set {self.name!r} has no split {name!r}")
        return split

    @property
    def classes(self) -> tuple[str, ...]:
        return self.train.classes

    @property
    def fingerprint(self) -> str:
        """One hash for all splits."""
        parts = [self[name].fingerprint for name in NAMES]
        if self.concept_bank is not None:
            parts.append(self.concept_bank.fingerprint)
        return hashlib.sha256("".join(parts).encode()).hexdigest()[:16]
