"""`segmented`: images with labels of pixels and no classes, as in VOC and COCO."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from prunescope.core.errors import PrunescopeError
from prunescope.data.cache import Storage, choose, load_images
from prunescope.data.decode import Decoding
from prunescope.data.listing import image_files
from prunescope.data.partition import partition
from prunescope.data.pixel_labels import label_path, pixel_labels
from prunescope.data.segments import Segments
from prunescope.data.sources import sources
from prunescope.data.split import Dataset, Normalisation, Split


@sources.register("segmented")
@dataclass(frozen=True)
class Segmented:
    """Images below one folder. The class of each is the concept that most of its pixels show.

    Images that show none, or whose class has fewer than `fewest` images, are left out, and counted in `info`.

    Attributes:
        root: the folder of images: VOC's `JPEGImages`, COCO's `val2017`.
        segments: a COCO file (`instances_val2017.json`), or a folder of PNGs (`SegmentationClass`), see
            `prunescope.data.pixel_labels`. Images that have no PNG are left out.
        segment_names: what the values in the PNGs mean, when the folder has no `names.txt`.
        size: pixels per side: the shorter side is resized, the centre cut out.
        fewest: images that a class must have.
        val_fraction, test_fraction: shares of the images, stratified by class.
        seed: of the splits.
        storage, cache: see `prunescope.data.cache.load_images`.
    """

    root: Path
    segments: Path
    segment_names: Path | None = None
    size: int = 64
    fewest: int = 10
    val_fraction: float = 0.1
    test_fraction: float = 0.2
    seed: int = 0
    storage: Storage = "auto"
    cache: bool = True

    def __post_init__(self) -> None:
        Decoding(self.size)
        if self.fewest < 3:
            raise PrunescopeError(f"segmented: fewest must be at least 3 images, one a split, got {self.fewest}")

    def load(self) -> Dataset:
        """List, read labels, choose classes, split, decode (or read the cache)."""
        root, place = Path(self.root).expanduser(), Path(self.segments).expanduser()
        if not root.is_dir():
            raise PrunescopeError(f"segmented: there is no folder {root}")
        files = [file for file in image_files(root, ".") if _has_labels(place, file)]
        if not files:
            raise PrunescopeError(f"segmented: no image in {root} has labels in {place}")
        names = None if self.segment_names is None else Path(self.segment_names).expanduser()
        pixels = pixel_labels(place, root, files, Decoding(self.size), names=names)
        chosen, labels, classes = self._classes(pixels)
        files = [files[i] for i in chosen.tolist()]
        parts = partition(
            labels, (self.test_fraction, self.val_fraction), seed=self.seed, where="segmented", classes=classes
        )
        info = {
            "source": "images with labels of pixels", "images": len(files), "left_out": len(pixels) - len(files),
            "rule": "the class is the concept that most pixels show", "size": self.size,
        }  # fmt: skip
        images = load_images(root, files, Decoding(self.size), storage=self.storage, cache=self.cache)
        train, test, val = parts
        normalisation, own = Normalisation.of(choose(images, train)), pixels.subset(chosen)
        splits = [
            Split(
                choose(images, index), labels[index], np.array(files)[index.numpy()], classes, normalisation,
                segments=own.subset(index),
            )
            for index in (train, val, test)
        ]  # fmt: skip
        return Dataset(root.resolve().name, splits[0], splits[1], splits[2], info=info)

    def _classes(self, pixels: Segments) -> tuple[Tensor, Tensor, tuple[str, ...]]:
        """Positions of the images that have a class, their labels, and the classes."""
        areas = pixels.areas()
        first = areas.argmax(1)
        shown = areas.amax(1) > 0
        counts = torch.bincount(first[shown], minlength=len(pixels.names))
        kept = counts >= self.fewest
        if int(kept.sum()) < 2:
            raise PrunescopeError(
                f"segmented: fewer than two concepts are the largest of {self.fewest} images or more; lower fewest"
            )
        chosen = torch.nonzero(shown & kept[first])[:, 0]
        place = kept.long().cumsum(0) - 1
        classes = tuple(name for name, keep in zip(pixels.names, kept.tolist(), strict=True) if keep)
        return chosen, place[first[chosen]], classes


def _has_labels(place: Path, file: str) -> bool:
    """COCO's file says of every image whether it knows it."""
    return place.suffix.lower() == ".json" or label_path(place, file) is not None
