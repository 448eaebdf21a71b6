"""Which pixels speak for a class: Grad-CAM of every test image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from prunescope.core.errors import PrunescopeError
from prunescope.core.types import Array, Record
from prunescope.data.split import Split
from prunescope.engine.attribute import gradcam, normalised, upsample
from prunescope.engine.sweep import Needs, Pass, find_module, logits_of
from prunescope.engine.untouched import untouched
from prunescope.models.layers import last_conv
from prunescope.probes.base import Probe, Subject, probes


@probes.register("gradcam")
@dataclass(frozen=True)
class GradCam(Probe):
    """Grad-CAM maps for the logit of the dense network's prediction, and for that of the true class.

    Maps are kept at the layer's own resolution (interpolated pixels are not evidence) and divided by their maximum.
    A map without positive evidence is blank: NaN, counted, and never compared. Where object masks exist: the share
    of the map inside the object (energy) and whether its peak lies there (pointing game, Zhang et al. 2018).

    Attributes:
        layer: module whose output is weighed; "" is the last convolution.
    """

    layer: str = ""

    distances: ClassVar[Mapping[str, str]] = {
        "image.reference": "maps", "image.true": "maps",
        "image.inside.reference": "energy", "image.pointing.reference": "pointing",
    }  # fmt: skip
    needs_reference: ClassVar[bool] = True
    summary: ClassVar[str] = "which pixels speak for a class (Selvaraju et al. 2017)"

    def start(self, subject: Subject) -> _Gatherer:
        layer = self.layer or last_conv(subject.model)
        find_module(subject.model, layer)
        test = subject.data.test
        return _Gatherer(layer, test, _asked(subject.reference, test))


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
    rows: dict[str, list[Tensor]] = field(default_factory=dict)

    @property
    def needs(self) -> Needs:
        return Needs(layers=(self.layer,), gradients=(self.layer,))

    def update(self, batch: Pass) -> None:
        own = batch.logits.argmax(1)
        reference = own if self.asked is None else self.asked[batch.index].to(own.device)
        for name, target in (("reference", reference), ("true", batch.y)):
            maps = normalised(self._maps(batch, target))
            self._keep(f"image.{name}", maps.half())
            if self.test.masks is not None:
                inside, hit = _inside(maps, self.test.masks[batch.index].to(maps.device))
                self._keep(f"image.inside.{name}", inside)
                self._keep(f"image.pointing.{name}", hit)

    def finish(self) -> Record:
        arrays: dict[str, Array] = {name: torch.cat(rows).numpy() for name, rows in self.rows.items()}
        metrics = {}
        for name in ("reference", "true"):
            metrics[f"blank.{name}"] = float(np.isnan(arrays[f"image.{name}"]).all(axis=(1, 2)).mean())
            for what in ("inside", "pointing"):
                if f"image.{what}.{name}" in arrays:
                    metrics[f"{what}.{name}"] = _mean(arrays[f"image.{what}.{name}"])
        if self.test.masks is not None:
            metrics["mask_area"] = float(self.test.masks.float().mean())
        info = {"layer": self.layer, "image_size": list(self.test.shape[1:])}
        return Record("gradcam", metrics, arrays, self.test.ids, info)

    def _maps(self, batch: Pass, target: Tensor) -> Tensor:
        activation = batch.activations[self.layer]
        if activation.ndim != 4:
            raise PrunescopeError(
                f"gradcam: layer {self.layer!r} gives {tuple(activation.shape)}, not (images, channels, height, width)"
            )
        return gradcam(activation.detach(), batch.grads(target)[self.layer])

    def _keep(self, name: str, values: Tensor) -> None:
        self.rows.setdefault(name, []).append(values.cpu())


def _inside(maps: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Share of each map's energy inside the object, and 1.0 where the peak lies in it; NaN for blank maps."""
    large = upsample(maps, (masks.shape[1], masks.shape[2]))
    energy = (large * masks).sum(dim=(1, 2)) / large.sum(dim=(1, 2))
    peak = large.nan_to_num(-1.0).flatten(1).argmax(1)
    hit = masks.flatten(1).gather(1, peak[:, None])[:, 0].float()
    return energy, hit.where(energy.isfinite(), float("nan"))


def _mean(values: Array) -> float:
    found = values[np.isfinite(values)]
    return float(found.mean()) if len(found) else float("nan")


def gradcam_maps(model: nn.Module, x: Tensor, *, layer: str = "", target: Tensor | None = None) -> Tensor:
    """Grad-CAM maps (B, h, w) of normalised images x (B, C, H, W), not normalised; the model is left as it was.

    Args:
        layer: module whose output is weighed; "" is the last convolution.
        target: class index per image; None: the network's own predictions.
    """
    name = layer or last_conv(model)
    kept: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        kept.append(output.detach().requires_grad_())
        return kept[0].clone()  # an in-place ReLU behind the layer must not reach what was kept

    with untouched(model), torch.enable_grad():
        handle = find_module(model, name).register_forward_hook(keep)
        try:
            logits = logits_of(model(x))
        finally:
            handle.remove()
        chosen = logits.argmax(1) if target is None else target
        (gradient,) = torch.autograd.grad(logits.gather(1, chosen[:, None]).sum(), kept)
    return gradcam(kept[0].detach(), gradient)
