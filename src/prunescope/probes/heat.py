"""What probes of heat maps share: which class is explained, what is kept of the maps, and objects under them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from prunescope.core.errors import PrunescopeError, choices
from prunescope.core.types import Array, Record
from prunescope.data.split import Split
from prunescope.data.subsets import stratified
from prunescope.engine.attribute import normalised, upsample
from prunescope.engine.attribution.base import Cam
from prunescope.engine.sweep import Needs, Pass, logits_of, require_finite
from prunescope.metrics.unit_scores import known_mean

Target = Literal["reference", "true"]

#: {array: family of distances} of a record of heat maps.
DISTANCES: Mapping[str, str] = {
    "image.reference": "maps", "image.true": "maps",
    "image.inside.reference": "energy", "image.pointing.reference": "pointing",
}  # fmt: skip

#: {metric: (title, unit, whether more is better; None when neither)}
FACTS: dict[str, tuple[str, str, bool | None]] = {
    "blank.reference": ("Blank heat maps, reference's class", "share of test images", None),
    "blank.true": ("Blank heat maps, true class", "share of test images", None),
    "inside.reference": ("Heat on the object, reference's class", "share of the heat", True),
    "inside.true": ("Heat on the object, true class", "share of the heat", True),
    "pointing.reference": ("Peak on the object, reference's class", "share of test images", True),
    "pointing.true": ("Peak on the object, true class", "share of test images", True),
    "mask_area": ("Area of the object: what chance would give", "share of the image", None),
}


def require_targets(targets: Sequence[str], probe: str) -> None:
    """Refuse an empty list, and unknown names."""
    if not targets:
        raise PrunescopeError(f"{probe}: `targets` is empty; give `reference`, `true` or both")
    for name in targets:
        if name not in get_args(Target):
            raise choices("target", name, get_args(Target), probe)


def asked_of(reference: Record | None, split: Split, probe: str) -> Tensor | None:
    """The dense network's prediction for every image, aligned by image id; None: ask for the network's own."""
    if reference is None:
        return None
    if reference.ids is None or "image.predicted" not in reference.arrays:
        raise PrunescopeError(f"{probe}: the reference must be a `performance` record, with image ids and predictions")
    known = dict(zip(reference.ids.tolist(), reference.arrays["image.predicted"].tolist(), strict=True))
    missing = [name for name in split.ids.tolist() if name not in known]
    if missing:
        raise PrunescopeError(f"{probe}: the reference has no prediction for {len(missing)} images: {missing[:3]}")
    return torch.tensor([known[name] for name in split.ids.tolist()])


def some_rows(split: Split, count: int) -> Tensor:
    """Positions of at most `count` images with classes in their shares, the same for every network; 0: all."""
    return stratified(split.labels, count, seed=0) if 0 < count < len(split) else torch.arange(len(split))


def batches_at(
    split: Split, rows: Tensor, batch_size: int, device: torch.device | str
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """(positions, normalised images, labels) of the images at these positions, as `Split.batches` gives them all."""
    for index in rows.split(batch_size):
        images = split.normalisation(split.images[index].to(device)).contiguous(memory_format=torch.channels_last)
        yield index, images, split.labels[index].to(device)


@torch.no_grad()
def batches_asked(
    model: nn.Module, split: Split, rows: Tensor, asked: Tensor | None, batch_size: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Normalised images and the class to explain: the dense network's prediction, or else the network's own."""
    device = next(model.parameters(), torch.zeros(())).device
    for index, x, _ in batches_at(split, rows, batch_size, device):
        logits = logits_of(model(x)).float()
        require_finite(logits, index, split)
        yield x, logits.argmax(1) if asked is None else asked[index].to(x.device)


def classes_of(model: nn.Module, batches: Iterable[Tensor], target: Tensor | None) -> Iterator[tuple[Tensor, Tensor]]:
    """Images with their classes out of `target` (N,); None: the network's own predictions."""
    start = 0
    for x in batches:
        with torch.no_grad():
            own = logits_of(model(x)).argmax(1) if target is None else target[start : start + len(x)].to(x.device)
        start += len(x)
        yield x, own


def images_of(images: Tensor | Split, batch_size: int, device: torch.device | str) -> Iterator[Tensor]:
    """Normalised images of a tensor or a split, in batches."""
    if isinstance(images, Tensor):
        parts = (part.to(device) for part in images.split(batch_size))
        return (part.contiguous(memory_format=torch.channels_last) for part in parts)
    return (x for _, x, _ in images.batches(batch_size, device))


@dataclass(eq=False)
class HeatRows:
    """Maps of some images of a split, batch by batch, and the record that they make.

    Attributes:
        probe: name of the probe.
        split: where the images are from.
        rows: sorted positions of those that are asked about.
        asked: class for every image of the split; None: the network's own prediction.
    """

    probe: str
    split: Split
    rows: Tensor
    asked: Tensor | None
    targets: tuple[Target, ...]
    kept: dict[str, list[Tensor]] = field(default_factory=dict)

    def classes(self, name: Target, index: Tensor, y: Tensor, logits: Tensor) -> Tensor:
        """The class to explain, (B,), for images at the positions `index` with labels y and logits (B, classes)."""
        if name == "true":
            return y
        return logits.argmax(1) if self.asked is None else self.asked[index].to(y.device)

    def add(self, name: Target, maps: Tensor, index: Tensor) -> None:
        """Maps (B, h, w), at least 0, of the images at the positions `index`."""
        maps = normalised(maps)
        self._keep(f"image.{name}", maps.half())
        if self.split.masks is not None:
            large, masks = upsample(maps, self.split.shape[1:]), self.split.masks[index].to(maps.device)
            self._keep(f"image.inside.{name}", inside_energy(large, masks))
            self._keep(f"image.pointing.{name}", pointing(large, masks))

    def record(self, info: Mapping[str, Any]) -> Record:
        """Arrays, and their means over the images that have a value."""
        arrays: dict[str, Array] = {name: torch.cat(rows).numpy() for name, rows in self.kept.items()}
        metrics = {}
        for name in self.targets:
            metrics[f"blank.{name}"] = float(np.isnan(arrays[f"image.{name}"]).all(axis=(1, 2)).mean())
            for what in ("inside", "pointing"):
                if f"image.{what}.{name}" in arrays:
                    metrics[f"{what}.{name}"] = known_mean(arrays[f"image.{what}.{name}"])
        if self.split.masks is not None:
            area = self.split.masks[self.rows].float().mean(dim=(1, 2)).numpy()
            metrics["mask_area"] = known_mean(area[area > 0])
        facts = {**info, "image_size": list(self.split.shape[1:])}
        return Record(self.probe, metrics, arrays, self.split.ids[self.rows.numpy()], facts)

    def _keep(self, name: str, values: Tensor) -> None:
        self.kept.setdefault(name, []).append(values.cpu())


@dataclass(eq=False)
class CamGatherer:
    """Class activation maps from the activations and gradients of a sweep: no pass of their own."""

    method: Cam
    layer: str
    heat: HeatRows
    info: Mapping[str, Any]

    @property
    def needs(self) -> Needs:
        return Needs(layers=(self.layer,), gradients=(self.layer,))

    def update(self, batch: Pass) -> None:
        heat, here = self.heat, torch.isin(batch.index, self.heat.rows)
        if not bool(here.any()):
            return
        for name in heat.targets:
            target = heat.classes(name, batch.index, batch.y, batch.logits)
            gradient = batch.grads(target)[self.layer]
            maps = self.method.of(batch.activations[self.layer], gradient, batch.x.shape[2:], self.layer)
            heat.add(name, maps[here.to(maps.device)], batch.index[here])

    def finish(self) -> Record:
        return self.heat.record(self.info)


def inside_energy(maps: Tensor, masks: Tensor) -> Tensor:
    """Share of each map's heat that lies on the object, (B,), 0 to 1; NaN for blank maps and where there is no object.

    Args:
        maps: (B, H, W), at least 0, of the images' size; blank ones NaN.
        masks: bool (B, H, W), True on the object.

    >>> inside_energy(torch.tensor([[[3.0, 1.0]]]), torch.tensor([[[True, False]]])).tolist()
    [0.75]
    """
    share = (maps * masks).sum(dim=(1, 2)) / maps.sum(dim=(1, 2))
    return share.where(masks.any(dim=2).any(dim=1), float("nan"))


def pointing(maps: Tensor, masks: Tensor) -> Tensor:
    """The pointing game (Zhang et al. 2018): 1.0 where the map's peak lies on the object, else 0.0, (B,).

    NaN for blank maps and where there is no object. Of equal peaks the first in reading order counts.

    >>> pointing(torch.tensor([[[3.0, 1.0]]]), torch.tensor([[[True, False]]])).tolist()
    [1.0]
    """
    peak = maps.nan_to_num(-1.0).flatten(1).argmax(1)
    hit = masks.flatten(1).gather(1, peak[:, None])[:, 0].to(maps.dtype)
    return hit.where(inside_energy(maps, masks).isfinite(), float("nan"))
