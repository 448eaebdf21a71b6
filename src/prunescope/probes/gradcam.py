"""Which pixels speak for a class: Grad-CAM of every test image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from prunescope.engine.attribution.gradcam import GradCam as Method
from prunescope.engine.attribution.places import both_of
from prunescope.engine.untouched import untouched
from prunescope.probes.base import Probe, Subject, probes
from prunescope.probes.heat import DISTANCES, CamGatherer, HeatRows, Target, asked_of, require_targets
from prunescope.probes.heat import FACTS as FACTS


@probes.register("gradcam")
@dataclass(frozen=True)
class GradCam(Probe):
    """Grad-CAM maps for the logit of the dense network's prediction, and for that of the true class.

    Maps are kept at the layer's own resolution (interpolated pixels are not evidence) and divided by their maximum.
    A map without positive evidence is blank: NaN, counted, and never compared. Where object masks exist: the share
    of the map inside the object (energy) and whether its peak lies there (pointing game, Zhang et al. 2018), on maps
    interpolated to the image's size; `mask_area`, the objects' mean share of the image, is what chance would give.

    Attributes:
        layer: module whose output is weighed: maps (images, channels, height, width), or the tokens of a transformer
            (`engine.attribution.places`); "" is the last convolution, of a transformer the norm before its last
            attention.
        targets: which logits to explain: `reference` (the class that the dense network predicts; without a reference
            the network's own prediction) and `true`.
    """

    layer: str = ""
    targets: tuple[Target, ...] = ("reference", "true")

    distances: ClassVar[Mapping[str, str]] = DISTANCES
    needs_reference: ClassVar[bool] = True
    summary: ClassVar[str] = "which pixels speak for a class (Selvaraju et al. 2017)"

    def __post_init__(self) -> None:
        require_targets(self.targets, "gradcam")

    def start(self, subject: Subject) -> CamGatherer:
        test, method = subject.data.test, Method(self.layer)
        asked, targets = asked_of(subject.reference, test, "gradcam"), tuple(dict.fromkeys(self.targets))
        heat = HeatRows("gradcam", test, torch.arange(len(test)), asked, targets)
        layer = method.place(subject.model)
        return CamGatherer(method, layer, heat, {"layer": layer})


def gradcam_maps(model: nn.Module, x: Tensor, *, layer: str | None = None, target: Tensor | None = None) -> Tensor:
    """Grad-CAM maps (B, h, w) of normalised images x (B, C, H, W), at least 0, not divided by their maximum.

    The network is evaluated (eval mode) and left as it was. A map of zeros has no positive evidence.

    Args:
        layer: module whose output is weighed; None is the last convolution, or a transformer's norm before its last
            attention.
        target: class index per image, (B,); None: the network's own predictions.

    Raises:
        PrunescopeError: unknown layer, one that does not run, or one whose output is neither (B, C, h, w) nor tokens.
    """
    method = Method(layer or "")
    with untouched(model):
        name = method.place(model)
        return method.of(*both_of(model, name, x, target), x.shape[2:], name)
