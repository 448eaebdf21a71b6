"""Which pixels speak for a class, by any attribution method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from prunescope.core.configure import canonical
from prunescope.core.errors import PrunescopeError
from prunescope.core.types import Record
from prunescope.data.split import Split
from prunescope.engine.attribution.base import Cam, Explainer, LayerMethod, method_of
from prunescope.engine.attribution.gradcam_plusplus import GradCamPlusPlus
from prunescope.engine.sweep import logits_of, require_finite
from prunescope.engine.untouched import untouched
from prunescope.probes.base import Probe, Subject, probes
from prunescope.probes.heat import (
    DISTANCES,
    CamGatherer,
    HeatRows,
    Target,
    asked_of,
    batches_at,
    classes_of,
    images_of,
    require_targets,
    some_rows,
)  # fmt: skip
from prunescope.probes.heat import FACTS as FACTS


@probes.register("attribution")
@dataclass(frozen=True)
class Attribution(Probe):
    """As the probe `gradcam`, by any method of `engine.attribution`: the same arrays, metrics and drift.

    Several methods are several probes of one study: `{name: attribution, as: ig, method: integrated_gradients}`. Class
    activation maps share the sweep's forward pass and one backward; other methods have passes of their own.

    Attributes:
        method: its name, or a mapping with `name` and options.
        targets: which logits to explain: `reference` (the class that the dense network predicts; without a reference
            the network's own prediction) and `true`.
        images: at most so many test images, drawn with every class in its share; 0 for all.
    """

    method: Any = GradCamPlusPlus()  # noqa: RUF009 (frozen)
    targets: tuple[Target, ...] = ("reference", "true")
    images: int = 0

    distances: ClassVar[Mapping[str, str]] = DISTANCES
    needs_reference: ClassVar[bool] = True
    summary: ClassVar[str] = "which pixels speak for a class, by any attribution method"

    def __post_init__(self) -> None:
        object.__setattr__(self, "method", method_of(self.method, "attribution.method"))
        require_targets(self.targets, "attribution")
        if self.images < 0:
            raise PrunescopeError(f"attribution: images must be 0 (all) or more, got {self.images}")

    @property
    def streams(self) -> bool:
        return isinstance(self.method, Cam)

    def check(self, subject: Subject) -> None:
        self.method.explainer(subject.model)

    def start(self, subject: Subject) -> CamGatherer:
        heat, info = self._heat(subject), self._info(subject.model)
        return CamGatherer(self.method, info["layer"], heat, info)

    def measure(self, subject: Subject, *, batch_size: int = 256) -> Record:
        if self.streams:
            return super().measure(subject, batch_size=batch_size)
        heat, info = self._heat(subject), self._info(subject.model)
        subject.model.to(subject.device)
        with untouched(subject.model) as model:
            explain = self.method.explainer(model)
            for index, x, y in batches_at(heat.split, heat.rows, batch_size, subject.device):
                with torch.no_grad():
                    logits = logits_of(model(x)).float()
                require_finite(logits, index, heat.split)
                last = None
                for name in heat.targets:
                    target = heat.classes(name, index, y, logits)
                    last = target, _maps(explain, x, target, last)
                    heat.add(name, last[1], index)
        return heat.record(info)

    def _heat(self, subject: Subject) -> HeatRows:
        test, targets = subject.data.test, tuple(dict.fromkeys(self.targets))
        asked = asked_of(subject.reference, test, "attribution")
        return HeatRows("attribution", test, some_rows(test, self.images), asked, targets)

    def _info(self, model: nn.Module) -> dict[str, Any]:
        told = {"method": self.method.name, "options": canonical(self.method)}
        return {**told, "layer": self.method.place(model)} if isinstance(self.method, LayerMethod) else told


def _maps(explain: Explainer, x: Tensor, target: Tensor, last: tuple[Tensor, Tensor] | None) -> Tensor:
    """Maps for these classes. Where the last classes were the same the last maps are: for most images."""
    if last is None:
        return explain(x, target)
    other = target != last[0]
    maps = last[1].clone()
    if bool(other.any()):
        maps[other] = explain(x[other], target[other])
    return maps


def attributions(
    model: nn.Module,
    images: Tensor | Split,
    *,
    method: object = "gradcam",
    target: Tensor | None = None,
    batch_size: int = 64,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Maps (N, h, w) of which pixels speak for a class, at least 0, not divided by their maximum, on the CPU.

    The network is evaluated (eval mode) and left as it was. Class activation maps have the resolution of their layer,
    the others that of the images. A map of zeros has no evidence.

    Args:
        images: normalised images (N, C, H, W), or a split.
        method: name of a method (`engine.attribution`), a mapping with `name` and options, or a method.
        target: class index per image, (N,); None: the network's own predictions.

    Raises:
        PrunescopeError: an unknown method or option, a network that the method cannot explain, or a package that is not
            installed.
    """
    chosen = method_of(method)
    model.to(device)
    with untouched(model):
        explain = chosen.explainer(model)
        batches = classes_of(model, images_of(images, batch_size, device), target)
        return torch.cat([explain(x, classes).cpu() for x, classes in batches])
