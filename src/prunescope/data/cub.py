"""`cub`: CUB-200-2011, photographs of 200 species of birds with 312 attributes each (Wah et al. 2011)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from prunescope.core.errors import PrunescopeError, choices
from prunescope.data.cache import Storage, choose, load_images
from prunescope.data.cub_files import attribute_labels, attribute_names, numbers, species, words
from prunescope.data.decode import Array, Decoding
from prunescope.data.partition import partition
from prunescope.data.sources import sources
from prunescope.data.split import NAMES, Dataset, Normalisation, Split

_CONCEPTS = ("image", "class", "none")


@sources.register("cub")
@dataclass(frozen=True)
class Cub:
    """The official folder (`images.txt`, `images/`, `attributes/` ...) with its official test split.

    Attributes:
        root: `CUB_200_2011`, or the folder that it lies in.
        size: pixels per side.
        val_fraction: share of the official training images for validation, stratified by species.
        seed: of that split.
        concepts: `image`: what annotators saw in this image; `class`: the majority of the species' training images,
            for all of its images, as in the papers (Koh et al. 2020; a bottleneck on these can name the species
            whatever the network sees); `none`.
        min_certainty: annotators' labels below are unknown: 1 not visible, 2 guessing, 3 probably, 4 definitely.
            At 1, `not visible` counts as what was ticked, mostly as absent.
        min_classes: keep attributes that the majority has in at least so many species (10 in the papers); 0: all 312.
        storage, cache: see `prunescope.data.cache.load_images`.
    """

    root: Path
    size: int = 224
    val_fraction: float = 0.1
    seed: int = 0
    concepts: Literal["image", "class", "none"] = "image"
    min_certainty: int = 2
    min_classes: int = 10
    storage: Storage = "auto"
    cache: bool = True

    def __post_init__(self) -> None:
        if self.concepts not in _CONCEPTS:
            raise choices("kind of concepts", self.concepts, _CONCEPTS, "cub")
        if not 1 <= self.min_certainty <= 4:
            raise PrunescopeError(f"cub: min_certainty must be 1 .. 4, got {self.min_certainty}")
        if self.min_classes < 0:
            raise PrunescopeError(f"cub: min_classes must be at least 0, got {self.min_classes}")
        Decoding(self.size)

    def load(self) -> Dataset:
        """Read the tables, decode (or read the cache), vote."""
        root = _folder(Path(self.root).expanduser())
        files = words(root / "images.txt")
        classes, labels = species(root, list(files))
        positions = self._positions(root, list(files), labels, classes)
        names, concepts = self._concepts(root, list(files), labels, positions["train"], len(classes))
        paths = [f"images/{name}" for name in files.values()]
        images = load_images(root, paths, Decoding(self.size), storage=self.storage, cache=self.cache)
        chosen = {name: choose(images, index) for name, index in positions.items()}
        normalisation = Normalisation.of(chosen["train"])
        ids = np.array(list(files.values()))

        def part(name: str) -> Split:
            index = positions[name]
            return Split(
                chosen[name],
                labels[index],
                ids[index.numpy()],
                classes,
                normalisation,
                concepts=None if concepts is None else concepts[index],
                concept_names=names,
                concept_level="class" if self.concepts == "class" else "image",
            )

        train, val, test = (part(name) for name in NAMES)
        return Dataset("cub", train, val, test, info=self._info(len(names)))

    def _positions(
        self, root: Path, image_ids: list[int], labels: Tensor, classes: tuple[str, ...]
    ) -> dict[str, Tensor]:
        path = root / "train_test_split.txt"
        is_train = numbers(path, image_ids)
        if not np.isin(is_train, (0, 1)).all():
            raise PrunescopeError(f"{path}: expected 0 (test) or 1 (train) behind every image, got {is_train.max()}")
        official = torch.from_numpy(np.flatnonzero(is_train == 1))
        left, held = partition(labels[official], [self.val_fraction], seed=self.seed, where="cub", classes=classes)
        test = torch.from_numpy(np.flatnonzero(is_train == 0))
        return {"train": official[left], "val": official[held], "test": test}

    def _concepts(
        self, root: Path, image_ids: list[int], labels: Tensor, train: Tensor, classes: int
    ) -> tuple[tuple[str, ...], Tensor | None]:
        if self.concepts == "none":
            return (), None
        names = attribute_names(root)
        seen = attribute_labels(root, image_ids, len(names), self.min_certainty)
        table = majority(seen[train.numpy()], labels[train].numpy(), classes)
        kept = np.flatnonzero(table.sum(0) >= self.min_classes)
        if not len(kept):
            raise PrunescopeError(f"cub: no attribute is true for {self.min_classes} species; lower min_classes")
        chosen = seen if self.concepts == "image" else table[labels.numpy()]
        return tuple(names[k] for k in kept), torch.from_numpy(np.ascontiguousarray(chosen[:, kept]))

    def _info(self, kept: int) -> dict[str, Any]:
        info: dict[str, Any] = {"source": "CUB-200-2011 (Wah et al. 2011)", "split": "official; val from train"}
        if self.concepts == "none":
            return info
        rule = "majority of the species' training images" if self.concepts == "class" else "annotated per image"
        return {**info, "concepts": rule, "concepts_kept": kept}


def majority(seen: Array, labels: Array, classes: int) -> Array:
    """int8 (C, K): 1 where more than half of a class's known labels are 1. Nothing known counts as absent.

    Args:
        seen: int8 (N, K) in {1, 0, -1 unknown}.
        labels: int (N,) in 0 .. classes - 1.

    >>> majority(np.array([[1, 1], [1, 0], [0, -1]], np.int8), np.array([0, 0, 0]), 1).tolist()
    [[1, 0]]
    """
    member = np.zeros((classes, len(labels)), np.float32)
    member[labels, np.arange(len(labels))] = 1
    present = member @ (seen == 1).astype(np.float32)
    known = member @ (seen >= 0).astype(np.float32)
    return (2 * present > known).astype(np.int8)


def _folder(root: Path) -> Path:
    for place in (root, root / "CUB_200_2011"):
        if (place / "images.txt").is_file():
            return place
    raise PrunescopeError(f"cub: there is no images.txt in {root} or {root / 'CUB_200_2011'}")
