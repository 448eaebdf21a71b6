"""Whether heat maps depend on the network at all: maps while its weights turn random (Adebayo et al. 2018)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from prunescope.core.configure import canonical
from prunescope.core.errors import PrunescopeError
from prunescope.core.types import Array, Record
from prunescope.data.split import Split
from prunescope.engine.attribution.base import method_of
from prunescope.engine.attribution.gradcam import GradCam
from prunescope.engine.sanity import Sanity, sanity_check
from prunescope.engine.sweep import Gatherer
from prunescope.engine.untouched import untouched
from prunescope.metrics.unit_scores import known_mean
from prunescope.probes.base import Probe, Subject, probes
from prunescope.probes.heat import asked_of, batches_asked, classes_of, images_of, some_rows

#: {metric: (title, unit, whether more is better; None when neither)}
FACTS: dict[str, tuple[str, str, bool | None]] = {
    "left": ("What is left of heat maps when all weights are random", "Spearman's rho", False),
    "left_ssim": ("The same, structural similarity", "SSIM", False),
    "head": ("What is left when only the top stage is random", "Spearman's rho", None),
    "independent": ("What is left when one stage is random, mean over stages", "Spearman's rho", None),
    "lost": ("Heat maps that turn blank when all weights are random", "share of those that are not", None),
    "blank": ("Blank heat maps", "share of the images", None),
}


@probes.register("sanity")
@dataclass(frozen=True)
class SanityCheck(Probe):
    """Parameter randomisation (Adebayo et al. 2018), cascading from the head down and stage by stage alone.

    A method whose maps stay alike although all weights are random does not explain the network: `left` should be near
    0. An edge detector (method `edges`) keeps 1. Maps are for the class that the dense network predicts.

    Arrays: `stage.cascading` and `stage.independent` (stages, 2), mean Spearman's rho and SSIM; `image.left` (images,),
    Spearman's rho when all is random, NaN for blank maps. `info["layers"]` tells whose weights a stage has.

    Attributes:
        method: of attribution: its name, or a mapping with `name` and options.
        images: at most so many test images, drawn with every class in its share; 0 for all.
        stages: in which the weights turn random, at most.
    """

    method: Any = GradCam()  # noqa: RUF009 (frozen)
    images: int = 64
    stages: int = 8

    needs_reference: ClassVar[bool] = True
    summary: ClassVar[str] = "whether heat maps change when weights turn random (Adebayo et al. 2018)"

    def __post_init__(self) -> None:
        object.__setattr__(self, "method", method_of(self.method, "sanity.method"))
        if self.images < 0 or self.stages < 1:
            raise PrunescopeError(f"sanity: images >= 0 and stages >= 1, got {self.images} and {self.stages}")

    def start(self, subject: Subject) -> Gatherer:
        raise PrunescopeError("sanity changes copies of the network and cannot share a pass: call `measure`")

    def check(self, subject: Subject) -> None:
        self.method.explainer(subject.model)

    def measure(self, subject: Subject, *, batch_size: int = 256) -> Record:
        test = subject.data.test
        rows, asked = some_rows(test, self.images), asked_of(subject.reference, test, "sanity")
        subject.model.to(subject.device)
        with untouched(subject.model) as model:
            batches = list(batches_asked(model, test, rows, asked, batch_size))
            found = sanity_check(model, self.method, batches, stages=self.stages, seed=subject.seed)
        return _record(found, self, test.ids[rows.numpy()])


def _record(found: Sanity, options: SanityCheck, ids: Array) -> Record:
    cascading, independent = found.means("cascading"), found.means("independent")
    there = ~found.blank
    metrics = {
        "left": cascading[-1, 0], "left_ssim": cascading[-1, 1], "head": cascading[0, 0],
        "independent": known_mean(independent[:, 0]),
        "lost": float((found.lost & there).sum() / there.sum()) if there.any() else float("nan"),
        "blank": float(found.blank.mean()),
    }  # fmt: skip
    arrays = {
        "stage.cascading": cascading, "stage.independent": independent,
        "image.left": found.cascading[0, -1].astype(np.float32),
    }  # fmt: skip
    info = {
        "method": options.method.name, "options": canonical(options.method), "images": len(ids),
        "layers": [list(stage) for stage in found.stages],
    }  # fmt: skip
    return Record("sanity", metrics, arrays, ids, info)


def sanity(
    model: nn.Module,
    images: Tensor | Split,
    *,
    method: object = "gradcam",
    target: Tensor | None = None,
    stages: int = 8,
    seed: int = 0,
) -> Sanity:
    """How alike an attribution method's maps stay while the network's weights turn random, on copies of it.

    Args:
        images: normalised images (N, C, H, W), or a split.
        method: see `ps.attributions`.
        target: class index per image, (N,); None: the network's own predictions.

    Returns:
        per stage and image Spearman's rho and SSIM with the untouched network's maps; `means("cascading")[-1, 0]` is
        what is left when all weights are random.

    Raises:
        PrunescopeError: an unknown method, or a network that it cannot explain.
    """
    chosen = method_of(method)
    device = next(model.parameters(), torch.zeros(())).device
    with untouched(model):
        batches = list(classes_of(model, images_of(images, 64, device), target))
        return sanity_check(model, chosen, batches, stages=stages, seed=seed)
