"""`folder`: a folder per class, of image files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from prunescope.core.errors import PrunescopeError
from prunescope.data.cache import Storage, choose, load_images
from prunescope.data.concept_sources import class_table, concept_folders
from prunescope.data.decode import SUFFIXES, Decoding
from prunescope.data.listing import image_files, subfolders
from prunescope.data.partition import partition
from prunescope.data.pixel_labels import pixel_labels
from prunescope.data.segments import Segments
from prunescope.data.sources import sources
from prunescope.data.split import NAMES, Dataset, Normalisation, Split


@sources.register("folder")
@dataclass(frozen=True)
class Folder:
    """Images in `root/{train,val,test}/CLASS/`, in `root/{train,test}/CLASS/` or in `root/CLASS/` (as ImageFolder).

    What is not split by folders is split here, stratified by class. Ids are paths relative to `root`.

    Attributes:
        root: the folder.
        size: pixels per side: the shorter side is resized, the centre cut out.
        val_fraction: share of the training images for validation, when there is no folder `val`.
        test_fraction: share of all images for the test, when there are no folders of splits at all.
        seed: of these splits.
        channels: 3, or 1 for grey values.
        storage: `auto`, `memory`, `memmap` or `stream`, see `prunescope.data.cache.load_images`.
        cache: keep the decoded images.
        concept_table: CSV file of classes x concepts, see `prunescope.data.concept_sources.class_table`.
        concepts: folder of example images of concepts (`NAME/positive`, `NAME/negative`): the concept bank.
        segments: labels of pixels: a COCO file, or a folder of PNGs, see `prunescope.data.pixel_labels`.
        segment_names: what the values in the PNGs mean, when the folder has no `names.txt`.
    """

    root: Path
    size: int = 64
    val_fraction: float = 0.1
    test_fraction: float = 0.2
    seed: int = 0
    channels: int = 3
    storage: Storage = "auto"
    cache: bool = True
    concept_table: Path | None = None
    concepts: Path | None = None
    segments: Path | None = None
    segment_names: Path | None = None

    def __post_init__(self) -> None:
        Decoding(self.size, self.channels)  # refuses wrong values
        if self.segment_names is not None and self.segments is None:
            raise PrunescopeError("folder: segment_names needs segments, the folder of PNGs")

    def load(self) -> Dataset:
        """List, split, decode (or read the cache)."""
        root = Path(self.root).expanduser()
        classes, files, labels, parts = listing(root)
        positions = dict(zip(NAMES, self._parts(labels, parts, classes), strict=True))
        decoding = Decoding(self.size, self.channels)
        images = load_images(root, files, decoding, storage=self.storage, cache=self.cache)
        chosen = {name: choose(images, index) for name, index in positions.items()}
        normalisation = Normalisation.of(chosen["train"])
        names, table = self._table(classes)
        pixels = self._segments(root, files, decoding)

        def part(name: str) -> Split:
            index = positions[name]
            return Split(
                chosen[name],
                labels[index],
                np.array(files)[index.numpy()],
                classes,
                normalisation,
                concepts=None if table is None else table[labels[index]],
                concept_names=names,
                concept_level="class" if names else "image",
                segments=None if pixels is None else pixels.subset(index),
            )

        bank = None
        if self.concepts is not None:
            place = Path(self.concepts).expanduser()
            bank = concept_folders(place, decoding, normalisation, storage=self.storage, cache=self.cache)
        info = {"source": "folder of images", "images": len(files), "size": self.size}
        train, val, test = (part(name) for name in NAMES)
        return Dataset(root.resolve().name, train, val, test, concept_bank=bank, info=info)

    def _table(self, classes: tuple[str, ...]) -> tuple[tuple[str, ...], Tensor | None]:
        if self.concept_table is None:
            return (), None
        return class_table(Path(self.concept_table).expanduser(), classes)

    def _segments(self, root: Path, files: list[str], decoding: Decoding) -> Segments | None:
        if self.segments is None:
            return None
        names = None if self.segment_names is None else Path(self.segment_names).expanduser()
        return pixel_labels(Path(self.segments).expanduser(), root, files, decoding, names=names)

    def _parts(self, labels: Tensor, parts: np.ndarray, classes: tuple[str, ...]) -> tuple[Tensor, Tensor, Tensor]:
        """Positions of train, val, test."""
        train, val, test = (torch.from_numpy(np.flatnonzero(parts == name)) for name in NAMES)
        where = f"folder {self.root}"
        if not len(test):
            fractions = (self.test_fraction, self.val_fraction)
            train, test, val = partition(labels, fractions, seed=self.seed, where=where, classes=classes)
        elif not len(val):
            left, held = partition(labels[train], [self.val_fraction], seed=self.seed, where=where, classes=classes)
            train, val = train[left], train[held]
        return train, val, test


def listing(root: Path) -> tuple[tuple[str, ...], list[str], Tensor, np.ndarray]:
    """Classes, files relative to `root`, labels int64 (N,), and `train`, `val`, `test` or nothing for each.

    Raises:
        PrunescopeError: no such folder, no class folders, a class without images in some split, splits that do not
            have the same classes.
    """
    if not root.is_dir():
        raise PrunescopeError(f"folder: there is no folder {root}")
    top = subfolders(root)
    splits = [name for name in NAMES if name in top]
    if splits and not {"train", "test"} <= set(splits):
        raise PrunescopeError(f"folder: {root} has {', '.join(splits)}, but train and test are both needed")
    places = {name: f"{name}/" for name in splits} or {"": ""}
    classes = tuple(subfolders(root / next(iter(places.values()))))
    if len(classes) < 2:
        raise PrunescopeError(f"folder: at least two folders of classes are needed in {root}, got {classes}")
    files, labels, parts = [], [], []
    for part, place in places.items():
        _same_classes(root / place, classes)
        for label, name in enumerate(classes):
            found = image_files(root, place + name)
            if not found:
                raise PrunescopeError(f"folder: no images ({', '.join(SUFFIXES)}) in {root / place / name}")
            files += found
            labels += [label] * len(found)
            parts += [part] * len(found)
    return classes, files, torch.tensor(labels), np.array(parts)


def _same_classes(folder: Path, classes: tuple[str, ...]) -> None:
    here = subfolders(folder)
    odd = sorted(set(here) ^ set(classes))
    if odd:
        raise PrunescopeError(f"folder: class {odd[0]!r} is {'only' if odd[0] in here else 'not'} in {folder}")
