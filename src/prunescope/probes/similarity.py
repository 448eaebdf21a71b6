"""How alike two networks arrange images, layer by layer: CKA of the features of every stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from prunescope.core.errors import PrunescopeError
from prunescope.core.types import Array, Record
from prunescope.data.split import Split
from prunescope.data.subsets import stratified
from prunescope.engine.sweep import Needs, Pass, find_module, sweep
from prunescope.engine.vectors import vectors
from prunescope.metrics.similarity import cka
from prunescope.metrics.statistics import resamples
from prunescope.models.axes import last_learned, units_last
from prunescope.models.stages import last_of_stages
from prunescope.probes.base import Probe, Subject, probes

#: {metric: (title, unit, whether more is better; None when neither)}
FACTS: dict[str, tuple[str, str, bool | None]] = {
    "silent": ("Layers that tell no image from another", "share of the layers compared", None),
}
#: Numbers that a record may keep of the features: 400 MB.
_MOST = 200_000_000


@probes.register("similarity")
@dataclass(frozen=True)
class Similarity(Probe):
    """Features of some layers, averaged over positions, by which drift says how alike two networks are (CKA).

    CKA sees neither the order of units nor a rotation, so that networks of other seeds give a floor. Of features
    averaged over positions it says nothing about where in the image something is.

    Metrics: `silent`, the share of layers that give every image the same features. Arrays: `image.features` float16
    (images, layers, widest), 0 behind the end of narrower layers, divided by `layer.scale` (layers,), powers of 2;
    `info["layers"]` tells names and widths.

    Attributes:
        layers: modules with outputs (B, C, h, w), (B, h, w, C), (B, T, C) or (B, C); none: the last of every stage
            (`models.stages`).
        images: at most so many test images, drawn with every class in its share; 0 for all. The time that drift takes
            grows with the square.
    """

    layers: tuple[str, ...] = ()
    images: int = 500

    distances: ClassVar[Mapping[str, str]] = {"image.features": "features"}
    summary: ClassVar[str] = "how alike networks arrange images, layer by layer (unbiased CKA)"

    def __post_init__(self) -> None:
        if self.images < 0 or 0 < self.images < 4:
            raise PrunescopeError(f"similarity: images must be 0 (all) or at least 4, got {self.images}")

    def start(self, subject: Subject) -> _Gatherer:
        split = subject.data.test
        return _gatherer(subject.model, self.layers, split, _rows(split, self.images))


def similarity(
    first: nn.Module,
    second: nn.Module,
    split: Split,
    *,
    layers: Sequence[str] = (),
    images: int = 500,
    seed: int = 0,
    draws: int = 300,
    batch_size: int = 256,
    device: torch.device | str = "cpu",
) -> dict[str, tuple[float, float, float]]:
    """{layer: (CKA, low, high)} of two networks on the same images, with 95 % bootstrap intervals over images.

    Unbiased linear CKA (`metrics.similarity`) of features averaged over positions: 1 where they are equal but for
    rotation and scale, about 0 where they have nothing to do with each other. NaN for a layer that gives every image
    the same.

    Args:
        layers, images: as in the probe; both networks must have the layers, of whatever widths.
        seed, draws: of the bootstrap.

    Raises:
        PrunescopeError: unknown layer, one whose output is no map, fewer than four images.
    """
    names = tuple(layers) or tuple(last_of_stages(first, split.shape))
    rows = _rows(split, images)
    records = [
        sweep(model, {"test": split}, [_gatherer(model, names, split, rows)], batch_size=batch_size, device=device)[0]
        for model in (first, second)
    ]  # fmt: skip
    a, b = (record.arrays["image.features"] for record in records)
    drawn = np.concatenate([cka(a, b, weights) for weights in resamples(len(rows), draws, seed)])
    found = {}
    for name, value, column in zip(names, cka(a, b), drawn.T, strict=True):
        known = column[np.isfinite(column)]
        low, high = np.quantile(known, [0.025, 0.975]) if len(known) else (np.nan, np.nan)
        found[name] = float(value), float(low), float(high)
    return found


def _gatherer(model: nn.Module, layers: Sequence[str], split: Split, rows: Tensor) -> _Gatherer:
    for name in layers:
        find_module(model, name.partition(":")[0])
    names = tuple(dict.fromkeys(layers)) or tuple(last_of_stages(model, split.shape))
    return _Gatherer(last_learned(model, list(names)), split, rows)


def _rows(split: Split, count: int) -> Tensor:
    """Positions of the images; the same for every network."""
    if len(split) < 4:
        raise PrunescopeError(f"similarity: CKA needs at least 4 images, got {len(split)}")
    return stratified(split.labels, count, seed=0) if 0 < count < len(split) else torch.arange(len(split))


@dataclass(eq=False)
class _Gatherer:
    layers: Mapping[str, nn.Module | None]  #: each with what tells where its units are
    split: Split
    rows: Tensor
    kept: dict[str, list[Tensor]] = field(default_factory=dict)

    @property
    def needs(self) -> Needs:
        return Needs(layers=tuple(self.layers))

    def update(self, batch: Pass) -> None:
        here = torch.isin(batch.index, self.rows)
        for name, learned in self.layers.items():
            activation = batch.activations[name].detach()
            last = activation.ndim == 4 and units_last(learned, activation.shape, name)
            chosen = activation[here.to(activation.device)].float()
            self.kept.setdefault(name, []).append(vectors(chosen, name, units_last=last).cpu())

    def finish(self) -> Record:
        found = {name: torch.cat(self.kept[name]) for name in self.layers}
        widths = {name: values.shape[1] for name, values in found.items()}
        _require_room(len(self.rows), widths)
        features = np.zeros((len(self.rows), len(found), max(widths.values())), dtype=np.float16)
        scales = np.ones(len(found))
        for layer, (name, values) in enumerate(found.items()):
            scales[layer] = _scale(values, name)
            features[:, layer, : widths[name]] = values.numpy() / scales[layer]
        arrays: dict[str, Array] = {"image.features": features, "layer.scale": scales}
        silent = float(np.mean(np.ptp(features, axis=0).max(axis=1) == 0))
        return Record("similarity", {"silent": silent}, arrays, self.split.ids[self.rows.numpy()], {"layers": widths})


def _scale(values: Tensor, layer: str) -> float:
    """The power of 2 above the largest value: CKA does not see it, and no value leaves the range of float16."""
    if not bool(values.isfinite().all()):
        raise PrunescopeError(f"similarity: layer {layer!r} gives values that are not finite; are the weights?")
    return float(2.0 ** np.frexp(float(values.abs().max()))[1])


def _require_room(images: int, widths: Mapping[str, int]) -> None:
    size = images * len(widths) * max(widths.values())
    if size > _MOST:
        raise PrunescopeError(
            f"similarity: {images} images x {len(widths)} layers x {max(widths.values())} units are more than "
            f"{_MOST:,} numbers; name fewer layers, or take fewer images"
        )
