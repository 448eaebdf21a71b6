"""What is known of the filters of one layer once they were looked at."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from prunescope.core.types import Array
from prunescope.engine.extremes import Extremes

#: Lower bounds of the colour index for "low", "selective" and "high" (Rafegas & Vanrell 2018; below: "none").
COLOUR_BINS = (0.10, 0.25, 0.40)
BIN_NAMES = ("none", "low", "selective", "high")
#: A filter counts as colour-selective from here on, the bound of "high"; and as shape-selective by its shape index,
#: for which nobody has published a bound: the same, to tell the two apart on one scale.
COLOUR_SELECTIVE = SHAPE_SELECTIVE = COLOUR_BINS[-1]
#: Share of a filter's answer that its fewest classes must hold, in `class_selectivity`. With a handful of images the
#: 0.1 of the authors' code would be one image.
CLASS_COVER = 0.5


@dataclass(frozen=True, eq=False)
class LayerView:
    """The F filters of one layer, each with its k best images. NaN where no image excites the filter.

    Attributes:
        layer: name of the module.
        extremes: the best (and the least) images, values and places; which filters are dead.
        boxes: int64 (F, k, 4): first row, last row, first column, last column of the pixels seen at the best places.
        patches: uint8 (F, k, side, side, 3), these pixels; mid-grey where the field leaves the image.
        labels: int64 (F, k), classes of the best images.
        colour, colour_ivet: (F,), the two forms of the colour index (`metrics.selectivity`): what is lost when the
            pixels seen are made grey. NaN for images without colour.
        shape, shape_ivet: (F,), the same when they are put in random order, mean over the shuffles; NaN with none.
        classes: (F,), class selectivity of the best images, with `CLASS_COVER`: about 0.5 (each of another class) to 1.
        classes_of_means: (F,), class selectivity after Morcos et al., over all images.
        frame: side of the square, in pixels, that holds the largest receptive field of the layer.
        kernels: uint8 (F, h, w, 3) pictures of the weights, if the layer reads RGB pixels; otherwise None.
        chroma: (F,), share of the kernels' energy that is colour; None where `kernels` is.
    """

    layer: str
    extremes: Extremes
    boxes: Array
    patches: Array
    labels: Array
    colour: Array
    colour_ivet: Array
    shape: Array
    shape_ivet: Array
    classes: Array
    classes_of_means: Array
    frame: int
    kernels: Array | None = None
    chroma: Array | None = None

    @property
    def colour_selective(self) -> Array:
        """bool (F,): the colour index is at least `COLOUR_SELECTIVE`."""
        return np.nan_to_num(self.colour) >= COLOUR_SELECTIVE

    @property
    def shape_selective(self) -> Array:
        """bool (F,): the shape index is at least `SHAPE_SELECTIVE`."""
        return np.nan_to_num(self.shape) >= SHAPE_SELECTIVE

    @property
    def base_rate(self) -> tuple[int, int]:
        """(colour-selective filters, filters with a colour index): how many to expect among filters picked blindly."""
        return int(self.colour_selective.sum()), int(np.isfinite(self.colour).sum())

    def colour_counts(self) -> dict[str, int]:
        """How many filters lie in each bin of the colour index: none, low, selective, high."""
        bins = np.digitize(self.colour[np.isfinite(self.colour)], COLOUR_BINS)
        return {name: int((bins == number).sum()) for number, name in enumerate(BIN_NAMES)}

    def top_classes(self, count: int = 3) -> list[list[tuple[int, int]]]:
        """For every filter the most frequent classes of its best images: (class, images); of equal ones the lower."""
        found = []
        for row in self.labels:
            classes, images = np.unique(row, return_counts=True)
            order = np.argsort(-images, kind="stable")[:count]
            found.append([(int(classes[i]), int(images[i])) for i in order])
        return found
