"""Looking at every filter of a network: best patches, colour, shape and class selectivity."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from prunescope.core.errors import PrunescopeError
from prunescope.core.seeds import numpy_generator
from prunescope.core.types import Array
from prunescope.data.split import Split
from prunescope.engine.extremes import Extremes, ExtremesGatherer
from prunescope.engine.sees.altered import Change, altered, answers
from prunescope.engine.sees.classes import ClassMeans
from prunescope.engine.sees.patches import frame_of, kernel_tiles, patches
from prunescope.engine.sees.views import CLASS_COVER, LayerView
from prunescope.engine.sees.windows import Windows, windows_of
from prunescope.engine.sweep import find_module, sweep
from prunescope.engine.untouched import untouched
from prunescope.metrics.selectivity import (
    Form,
    chroma_share,
    class_selectivity,
    class_selectivity_of_means,
    grey,
    selectivity,
    shuffled,
)
from prunescope.models.receptive import receptive_fields

#: Two answers of a layer are the same within this share of its largest: rounding differs with the size of the image.
SAME = 1e-4


@dataclass(frozen=True)
class Look:
    """How to look at filters.

    Attributes:
        k: best images per filter.
        side: of the patches, in pixels.
        shuffles: random orders of the pixels that the shape index is the mean of; 0 leaves it out.
        seed: of these orders.
        batch_size: images in one forward pass.
        device: where the network runs.
    """

    k: int = 9
    side: int = 64
    shuffles: int = 3
    seed: int = 0
    batch_size: int = 32
    device: torch.device | str = "cpu"


def what_filters_see(
    model: nn.Module,
    split: Split,
    layers: Sequence[str] | None = None,
    *,
    options: Look | None = None,
    on_batch: Callable[[int], None] | None = None,
) -> Iterator[LayerView]:
    """Look at all filters of some layers, on the images that excite each most; gives layer after layer.

    Activations are taken as the layer gives them: a convolution's before its norm and ReLU. Where a norm follows, name
    the norm instead. One pass over the split finds the best images of all layers; then every filter's k images run
    again, with the pixels that the filter sees made grey or shuffled: no further than the layer, and cut to a window
    around these pixels where the filter is found to answer there as it does in the whole image. The model is left as
    it was.

    Args:
        layers: modules with outputs (B, C, h, w); None: all 2-d convolutions that run.
        on_batch: called with the number of images after each batch: N in the first pass, then F x k for each layer.

    Raises:
        PrunescopeError: images that are neither grey nor RGB, an empty split, or a layer that cannot be looked at.
    """
    options = options or Look()
    if split.shape[0] not in (1, 3):
        raise PrunescopeError(f"filters are looked at on grey or RGB images, got {split.shape[0]} channels")
    if not len(split):
        raise PrunescopeError("filters are looked at on images, and the split has none")
    model.to(options.device)
    fields = receptive_fields(model, split.shape, layers)
    best = ExtremesGatherer(tuple(fields), options.k, "max", "images")
    means = ClassMeans(tuple(fields), len(split.classes), "images")
    sweep(
        model, {"images": split}, [best, means],
        batch_size=options.batch_size, device=options.device, on_batch=on_batch,
    )  # fmt: skip
    lookers = [_Layer(model, split, name, field, best.found[name], options=options) for name, field in fields.items()]
    return (looker.view(means.found[looker.layer], on_batch) for looker in lookers)


class _Layer:
    """One layer while it is looked at. All filters' best images are one list of F x k, taken in batches."""

    def __init__(
        self, model: nn.Module, split: Split, layer: str, field: Tensor, extremes: Extremes, *, options: Look
    ) -> None:
        self.model, self.split, self.layer, self.extremes, self.options = model, split, layer, extremes, options
        top = extremes.top
        self.shape = top.images.shape
        self.images, self.rows, self.columns = (
            torch.from_numpy(item.reshape(-1)) for item in (top.images, top.rows, top.columns)
        )
        self.filters = torch.arange(self.shape[0]).repeat_interleave(self.shape[1])
        self.boxes = field[self.rows, self.columns]
        self.small, self.large = (windows_of(field, split.shape, whole=whole) for whole in (False, True))
        self.frame = frame_of(field)

    def view(self, means: Array, on_batch: Callable[[int], None] | None) -> LayerView:
        """The view, given the mean activation of each class, (F, classes)."""
        with untouched(self.model):
            pictures, after = self._look(on_batch)
        side, dead, split = self.options.side, self.extremes.dead, self.split
        labels = split.labels[self.images].numpy().reshape(self.shape)
        before = np.where(dead[:, None], 0, self.extremes.top.values)
        known = means[:, np.isfinite(means).all(axis=0)]
        return LayerView(
            layer=self.layer, extremes=self.extremes, boxes=self.boxes.numpy().reshape(*self.shape, 4),
            patches=pictures.reshape(*self.shape, side, side, 3), labels=labels,
            **_indices(before, after.reshape(-1, *self.shape), split.shape[0] == 3),
            classes=class_selectivity(before, labels, CLASS_COVER),
            classes_of_means=np.where(dead, np.nan, class_selectivity_of_means(known)), frame=self.frame,
            **kernels_of(find_module(self.model, self.layer), split, self.frame),
        )  # fmt: skip

    def _look(self, on_batch: Callable[[int], None] | None) -> tuple[Array, Array]:
        """(patches, answers to the changed images (changes, F x k), NaN for dead filters)."""
        pictures, after = [], np.full((1 + self.options.shuffles, len(self.images)), np.nan)
        alive = torch.from_numpy(~self.extremes.dead)[self.filters]
        for part in torch.arange(len(self.images)).split(self.options.batch_size):
            images, living = self.split.images[self.images[part]], alive[part]
            pictures.append(patches(images, self.boxes[part], self.frame, self.options.side))
            if bool(living.any()):
                after[:, part[living].numpy()] = self._answers(images[living], part[living])
            if on_batch is not None:
                on_batch(len(part))
        return np.concatenate(pictures), after

    def _answers(self, images: Tensor, part: Tensor) -> Array:
        """(changes, B): grey first, then the shuffles. In windows where these give the known answers."""
        after = np.empty((1 + self.options.shuffles, len(part)))
        inside = self._same_in_windows(images, part)
        for windows, chosen in ((self.small, inside), (self.large, ~inside)):
            if bool(chosen.any()):
                after[:, chosen.numpy()] = self._changed(images[chosen], part[chosen], windows)
        return after

    def _same_in_windows(self, images: Tensor, part: Tensor) -> Tensor:
        """Which of the images (B,) may be cut to their windows: those that answer there as they did when whole."""
        if self.small.whole:
            return torch.zeros(len(part), dtype=torch.bool)
        known = torch.from_numpy(self.extremes.top.values.reshape(-1)[part.numpy()])
        try:
            found = torch.from_numpy(self._run(images, part, self.small))
        except Exception:  # whatever a network raises whose code expects images of one size
            return torch.zeros(len(part), dtype=torch.bool)
        return (found - known).abs() <= SAME * float(np.abs(self.extremes.top.values).max())

    def _changed(self, images: Tensor, part: Tensor, windows: Windows) -> Array:
        changes: list[Change] = [lambda crop, _: grey(crop) if crop.shape[-1] == 3 else crop]
        changes += [self._shuffle(part, turn) for turn in range(self.options.shuffles)]
        return np.stack([self._run(altered(images, self.boxes[part], change), part, windows) for change in changes])

    def _run(self, images: Tensor, part: Tensor, windows: Windows) -> Array:
        """The filters' answers (B,) at their places."""
        parts, rows, columns = windows.cut(images, self.rows[part], self.columns[part])
        places = (self.filters[part], rows, columns)
        return answers(self.model, self.layer, parts, self.split.normalisation, places, device=self.options.device)

    def _shuffle(self, part: Tensor, turn: int) -> Change:
        """Its order hangs on the filter and the rank of the image, not on batches."""
        return lambda crop, number: shuffled(
            crop, numpy_generator(self.options.seed, "shuffle", self.layer, int(part[number]), turn)
        )


def kernels_of(module: nn.Module, split: Split, frame: int) -> dict[str, Array]:
    """`kernels` and `chroma` of a `LayerView` for kernels that read RGB pixels; of others nothing.

    Args:
        frame: side of the layer's largest receptive field; larger than the kernel where something reads the image
            before it.
    """
    if not isinstance(module, nn.Conv2d) or module.weight.shape[1] != 3 or split.shape[0] != 3:
        return {}
    extent = [step * (size - 1) + 1 for step, size in zip(module.dilation, module.kernel_size, strict=True)]
    if frame != max(extent):
        return {}
    weights = module.weight.detach().float().cpu().numpy()
    std = np.broadcast_to(split.normalisation.std, 3).tolist()  # one number may stand for all three
    return {"kernels": kernel_tiles(weights, std), "chroma": chroma_share(weights, std)}


def _indices(before: Array, after: Array, coloured: bool) -> dict[str, Any]:
    """The colour index of the first change, and the shape index of the others, in both forms."""
    forms: dict[str, Form] = {"": "bounded", "_ivet": "ivet"}
    found, none = {}, np.full(len(before), np.nan)
    for end, form in forms.items():
        lost = [selectivity(before, changed, form) for changed in after]
        found[f"colour{end}"] = lost[0] if coloured else none
        found[f"shape{end}"] = np.mean(lost[1:], axis=0) if len(lost) > 1 else none
    return found
