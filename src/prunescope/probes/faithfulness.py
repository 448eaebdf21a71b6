"""Whether a network relies on what its heat maps show: deletion, insertion and ROAD, beside maps that say nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, get_args

import numpy as np
import torch
from torch import Tensor, nn

from prunescope.core.configure import canonical
from prunescope.core.errors import PrunescopeError, choices
from prunescope.core.seeds import torch_generator
from prunescope.core.types import Array, Record
from prunescope.data.split import Split
from prunescope.engine.attribution.base import Method, method_of
from prunescope.engine.attribution.gradcam import GradCam
from prunescope.engine.attribution.rewritten import folded_for
from prunescope.engine.faithfulness import Canvas, Curves, Protocol, faithfulness_curves, random_maps
from prunescope.engine.sweep import Gatherer
from prunescope.engine.untouched import untouched
from prunescope.metrics.unit_scores import known_mean
from prunescope.probes.base import Probe, Subject, probes
from prunescope.probes.heat import asked_of, batches_asked, classes_of, images_of, some_rows

#: {metric: (title, unit, whether more is better; None when neither)}
FACTS: dict[str, tuple[str, str, bool | None]] = {
    "deletion": ("Area under the deletion curve", "probability of the class", False),
    "insertion": ("Area under the insertion curve", "probability of the class", True),
    "road": ("ROAD: least minus most relevant pixels first", "half the difference in probability", True),
    "random.deletion": ("Deletion in random order", "probability of the class", None),
    "random.insertion": ("Insertion in random order", "probability of the class", None),
    "random.road": ("ROAD in random order", "half the difference in probability", None),
    "blank": ("Blank heat maps", "share of the images", None),
}
#: Images at once, alone.
_BATCH = 64
_CURVES = ("deletion", "insertion", "morf", "lerf")


@probes.register("faithfulness")
@dataclass(frozen=True)
class Faithfulness(Probe):
    """The probability of the class that the dense network predicts, while pixels go in the order of a heat map
    (`engine.faithfulness`), and in random order: a map is worth something as far as it beats the random one.

    Metrics: means over images with a map. Arrays: `image.deletion`, `image.insertion` and `image.road`, an image each,
    which drift compares; the same as `image.random.*`; mean curves `curve.*` and `curve.random.*`, of points `curve.at`
    (shares of pixels) and, for `morf` and `lerf`, `curve.taken`. Blank maps have no order: NaN, counted.

    Attributes:
        method: of attribution: its name, or a mapping with `name` and options.
        images: at most so many test images, drawn with every class in its share; 0 for all.
        steps, deletion, insertion, shares, noise: see `engine.faithfulness.Protocol`.
    """

    method: Any = GradCam()  # noqa: RUF009 (frozen)
    images: int = 200
    steps: int = 16
    deletion: Canvas = "mean"
    insertion: Canvas = "blur"
    shares: tuple[float, ...] = Protocol.shares
    noise: float = 0.01

    distances: ClassVar[Mapping[str, str]] = {
        "image.deletion": "deletion", "image.insertion": "insertion", "image.road": "road",
    }  # fmt: skip
    needs_reference: ClassVar[bool] = True
    summary: ClassVar[str] = "deletion, insertion and ROAD of heat maps, beside random ones"

    def __post_init__(self) -> None:
        object.__setattr__(self, "method", method_of(self.method, "faithfulness.method"))
        for name, got in (("deletion", self.deletion), ("insertion", self.insertion)):
            if got not in get_args(Canvas):
                raise choices(name, got, get_args(Canvas), "faithfulness")
        if self.images < 0:
            raise PrunescopeError(f"faithfulness: images must be 0 (all) or more, got {self.images}")
        if not self.shares:
            raise PrunescopeError("faithfulness: `shares` is empty; give some between 0 and 1")
        self.protocol(0)  # refuses what cannot be

    def protocol(self, seed: int) -> Protocol:
        """The options as the engine takes them."""
        mine = {field.name: getattr(self, field.name) for field in fields(Protocol) if hasattr(self, field.name)}
        return Protocol(**mine, seed=seed)

    def start(self, subject: Subject) -> Gatherer:
        raise PrunescopeError("faithfulness runs altered images and cannot share a pass: call `measure`")

    def check(self, subject: Subject) -> None:
        self.method.explainer(subject.model)

    def measure(self, subject: Subject, *, batch_size: int = 256) -> Record:
        test, how = subject.data.test, self.protocol(subject.seed)
        rows, asked = some_rows(test, self.images), asked_of(subject.reference, test, "faithfulness")
        subject.model.to(subject.device)
        with untouched(subject.model) as model:
            explain = self.method.explainer(model)
            batches = batches_asked(model, test, rows, asked, batch_size)
            own, control = _curves(model, how, ((x, explain(x, y), y) for x, y in batches))
        return _record(own, control, self, test.ids[rows.numpy()], test.shape)


def _curves(model: nn.Module, how: Protocol, batches: Iterable[tuple[Tensor, Tensor, Tensor]]) -> tuple[Curves, Curves]:
    """Curves of images, given with maps and classes, in the order of the maps, and of random ones: the same for an
    image at the same place, whatever the batches."""
    found: tuple[list[Curves], list[Curves]] = [], []
    watched, generator = None, torch_generator(0, "random maps")
    for x, maps, target in batches:
        watched = folded_for(model, x[:16]) if watched is None else watched
        blank = ~(maps.amax((1, 2)) > 0)
        noise = random_maps(len(x), (x.shape[2], x.shape[3]), generator)
        control = noise.to(x.device).masked_fill(blank[:, None, None], 0.0)
        for kept, order in zip(found, (maps, control), strict=True):
            kept.append(faithfulness_curves(watched, x, order, target, how))
    return _joined(found[0]), _joined(found[1])


def _joined(parts: list[Curves]) -> Curves:
    return Curves(*(torch.cat([getattr(part, name) for part in parts]).cpu() for name in _CURVES))


def _record(own: Curves, control: Curves, options: Faithfulness, ids: Array, shape: tuple[int, ...]) -> Record:
    arrays: dict[str, Array] = {}
    metrics: dict[str, float] = {}
    for prefix, curves in (("", own), ("random.", control)):
        for name, values in curves.areas().items():
            arrays[f"image.{prefix}{name}"] = values.numpy()
            metrics[f"{prefix}{name}"] = known_mean(values.numpy())
        for name in _CURVES:
            arrays[f"curve.{prefix}{name}"] = _mean_curve(getattr(curves, name).double().numpy())
    pixels, how = shape[1] * shape[2], options.protocol(0)
    arrays["curve.at"] = np.array(how.counts(pixels)) / pixels
    arrays["curve.taken"] = np.array(how.taken(pixels)) / pixels
    metrics["blank"] = float(np.isnan(arrays["image.deletion"]).mean())
    info = {"method": options.method.name, "options": canonical(options.method), "images": len(ids)}
    return Record("faithfulness", metrics, arrays, ids, info)


def _mean_curve(values: Array) -> Array:
    """Mean over the images that have one; NaN without any."""
    known = values[np.isfinite(values).all(1)]
    return known.mean(0) if len(known) else np.full(values.shape[1], np.nan)


def faithfulness(
    model: nn.Module,
    images: Tensor | Split,
    *,
    method: object = "gradcam",
    maps: Tensor | None = None,
    target: Tensor | None = None,
    protocol: Protocol | None = None,
) -> dict[str, Tensor]:
    """{`deletion`, `insertion`, `road`, and the same behind `random.`: a number per image (N,)}, NaN for blank maps.

    Deletion is the better the smaller, insertion and ROAD the larger; against `random.*` in both cases. The network is
    evaluated (eval mode) and left as it was.

    Args:
        images: normalised images (N, C, H, W), or a split.
        method: see `ps.attributions`; not used where there are maps.
        maps: (N, h, w) of your own, at least 0.
        target: class index per image, (N,); None: the network's own predictions.

    Raises:
        PrunescopeError: what the method refuses, or maps of another number.
    """
    count = len(images)
    if maps is not None and (maps.ndim != 3 or len(maps) != count):
        raise PrunescopeError(f"faithfulness: {count} images need maps ({count}, h, w), got {tuple(maps.shape)}")
    device = next(model.parameters(), torch.zeros(())).device
    with untouched(model):
        batches = classes_of(model, images_of(images, _BATCH, device), target)
        found = _curves(model, protocol or Protocol(), _with_maps(model, batches, method_of(method), maps))
    return {
        f"{prefix}{name}": values
        for prefix, part in zip(("", "random."), found, strict=True)
        for name, values in part.areas().items()
    }


def _with_maps(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], method: Method, maps: Tensor | None
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    explain = method.explainer(model) if maps is None else None
    for number, (x, target) in enumerate(batches):
        if explain is not None:
            yield x, explain(x, target), target
        elif maps is not None:
            yield x, maps[number * _BATCH : number * _BATCH + len(x)].to(x.device), target
