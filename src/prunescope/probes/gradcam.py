"""Which pixels speak for a class: Grad-CAM of every test image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from prunescope.core.errors import PrunescopeError, choices
from prunescope.core.types import Array, Record
from prunescope.data.split import Split
from prunescope.engine.attribute import gradcam, normalised, upsample
from prunescope.engine.sweep import Needs, Pass, find_module, logits_of
from prunescope.engine.untouched import untouched
from prunescope.models.layers import last_conv
from prunescope.probes.base import Probe, Subject, probes

Target = Literal["reference", "true"]

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


@probes.register("gradcam")
@dataclass(frozen=True)
class GradCam(Probe):
    """Grad-CAM maps for the logit of the dense network's prediction, and for that of the true class.

    Maps are kept at the layer's own resolution (interpolated pixels are not evidence) and divided by their maximum.
    A map without positive evidence is blank: NaN, counted, and never compared. Where object masks exist: the share
    of the map inside the object (energy) and whether its peak lies there (pointing game, Zhang et al. 2018), on maps
    interpolated to the image's size; `mask_area`, the objects' mean share of the image, is what chance would give.

    Attributes:
        layer: module whose output (images, channels, height, width) is weighed; "" is the last convolution.
        targets: which logits to explain: `reference` (the class that the dense network predicts; without a reference
            the network's own prediction) and `true`.
    """

    layer: str = ""
    targets: tuple[Target, ...] = ("reference", "true")

    distances: ClassVar[Mapping[str, str]] = {
        "image.reference": "maps", "image.true": "maps",
        "image.inside.reference": "energy", "image.pointing.reference": "pointing",
    }  # fmt: skip
    needs_reference: ClassVar[bool] = True
    summary: ClassVar[str] = "which pixels speak for a class (Selvaraju et al. 2017)"

    def __post_init__(self) -> None:
        if not self.targets:
            raise PrunescopeError("gradcam: `targets` is empty; give `reference`, `true` or both")
        for name in self.targets:
            if name not in get_args(Target):
                raise choices("target", name, get_args(Target), "gradcam")

    def start(self, subject: Subject) -> _Gatherer:
        layer = self.layer or last_conv(subject.model)
        find_module(subject.model, layer)
        test = subject.data.test
        return _Gatherer(layer, test, _asked(subject.reference, test), tuple(dict.fromkeys(self.targets)))


def _asked(reference: Record | None, test: Split) -> Tensor | None:
    """The dense network's prediction for every test image, aligned by image id; None: ask for the network's own."""
    if reference is None:
        return None
    if reference.ids is None or "image.predicted" not in reference.arrays:
        raise PrunescopeError("gradcam: the reference must be a `performance` record, with image ids and predictions")
    known = dict(zip(reference.ids.tolist(), reference.arrays["image.predicted"].tolist(), strict=True))
    missing = [name for name in test.ids.tolist() if name not in known]
    if missing:
        raise PrunescopeError(f"gradcam: the reference has no prediction for {len(missing)} images: {missing[:3]}")
    return torch.tensor([known[name] for name in test.ids.tolist()])


@dataclass(eq=False)
class _Gatherer:
    layer: str
    test: Split
    asked: Tensor | None
    targets: tuple[Target, ...]
    rows: dict[str, list[Tensor]] = field(default_factory=dict)

    @property
    def needs(self) -> Needs:
        return Needs(layers=(self.layer,), gradients=(self.layer,))

    def update(self, batch: Pass) -> None:
        for name in self.targets:
            maps = normalised(self._maps(batch, self._classes(name, batch)))
            self._keep(f"image.{name}", maps.half())
            if self.test.masks is not None:
                large, masks = upsample(maps, self.test.shape[1:]), self.test.masks[batch.index].to(maps.device)
                self._keep(f"image.inside.{name}", inside_energy(large, masks))
                self._keep(f"image.pointing.{name}", pointing(large, masks))

    def finish(self) -> Record:
        arrays: dict[str, Array] = {name: torch.cat(rows).numpy() for name, rows in self.rows.items()}
        metrics = {}
        for name in self.targets:
            metrics[f"blank.{name}"] = float(np.isnan(arrays[f"image.{name}"]).all(axis=(1, 2)).mean())
            for what in ("inside", "pointing"):
                if f"image.{what}.{name}" in arrays:
                    metrics[f"{what}.{name}"] = _mean(arrays[f"image.{what}.{name}"])
        if self.test.masks is not None:
            area = self.test.masks.float().mean(dim=(1, 2)).numpy()
            metrics["mask_area"] = _mean(area[area > 0])
        info = {"layer": self.layer, "image_size": list(self.test.shape[1:])}
        return Record("gradcam", metrics, arrays, self.test.ids, info)

    def _classes(self, name: Target, batch: Pass) -> Tensor:
        if name == "true":
            return batch.y
        return batch.logits.argmax(1) if self.asked is None else self.asked[batch.index].to(batch.y.device)

    def _maps(self, batch: Pass, target: Tensor) -> Tensor:
        activation = _require_maps(batch.activations[self.layer], self.layer)
        found = gradcam(activation.detach(), batch.grads(target)[self.layer])
        if not bool(found.isfinite().all()):
            raise PrunescopeError(f"gradcam: maps of layer {self.layer!r} are not finite; are the weights?")
        return found

    def _keep(self, name: str, values: Tensor) -> None:
        self.rows.setdefault(name, []).append(values.cpu())


def _require_maps(activation: object, layer: str) -> Tensor:
    if isinstance(activation, Tensor) and activation.ndim == 4:
        return activation
    got = tuple(activation.shape) if isinstance(activation, Tensor) else type(activation).__name__
    raise PrunescopeError(f"gradcam: layer {layer!r} gives {got}, not (images, channels, height, width)")


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


def _mean(values: Array) -> float:
    found = values[np.isfinite(values)]
    return float(found.mean()) if len(found) else float("nan")


def gradcam_maps(model: nn.Module, x: Tensor, *, layer: str | None = None, target: Tensor | None = None) -> Tensor:
    """Grad-CAM maps (B, h, w) of normalised images x (B, C, H, W), at least 0, not divided by their maximum.

    The network is evaluated (eval mode) and left as it was. A map of zeros has no positive evidence.

    Args:
        layer: module whose output is weighed; None is the last convolution.
        target: class index per image, (B,); None: the network's own predictions.

    Raises:
        PrunescopeError: unknown layer, one that does not run, or one whose output is not (B, C, h, w).
    """
    name = layer or last_conv(model)
    kept: dict[str, Tensor] = {}

    def keep(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        output = _require_maps(output, name)
        kept[name] = output if output.requires_grad else output.detach().requires_grad_()
        return kept[name].clone()  # an in-place ReLU behind the layer must not reach what was kept

    with untouched(model), torch.enable_grad():
        find_module(model, name).register_forward_hook(keep)
        logits = logits_of(model(x.detach()))
        if name not in kept:
            raise PrunescopeError(f"gradcam: layer {name!r} does not run when the network is evaluated")
        chosen = logits.argmax(1) if target is None else target
        (gradient,) = torch.autograd.grad(logits.gather(1, chosen[:, None]).sum(), kept[name])
    return gradcam(kept[name].detach(), gradient)
