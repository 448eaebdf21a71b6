"""`cifar10` and `cifar100`: as torchvision keeps them, or as folders of images."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch

from prunescope.core.compat import torchvision_module
from prunescope.core.errors import PrunescopeError
from prunescope.data.concept_sources import class_table
from prunescope.data.folder import Folder
from prunescope.data.partition import partition
from prunescope.data.sources import sources
from prunescope.data.split import Dataset, Normalisation, Split


@sources.register("cifar10")
@dataclass(frozen=True)
class Cifar10:
    """60,000 photos of 32 x 32 pixels in 10 classes (Krizhevsky 2009), official test split.

    Concept labels are those of the class, from our own table (`data/tables/cifar10_concepts.csv`): visible or usual
    attributes, each with its reason.

    Attributes:
        root: folder with `train/CLASS/` and `test/CLASS/`, or with torchvision's `cifar-10-batches-py`.
        val_fraction: share of the 50,000 training images for validation, stratified.
        seed: of that split.
        download: let torchvision fetch what is missing.
    """

    root: Path
    val_fraction: float = 0.1
    seed: int = 0
    download: bool = False

    def load(self) -> Dataset:
        """Folders when there are any, else torchvision's files."""
        dataset = _load("cifar10", Path(self.root).expanduser(), self.val_fraction, self.seed, self.download)
        names, table = class_table(
            Path(str(files("prunescope.data") / "tables" / "cifar10_concepts.csv")), dataset.classes
        )

        def labelled(split: Split) -> Split:
            return replace(split, concepts=table[split.labels], concept_names=names, concept_level="class")

        return replace(dataset, train=labelled(dataset.train), val=labelled(dataset.val), test=labelled(dataset.test))


@sources.register("cifar100")
@dataclass(frozen=True)
class Cifar100:
    """60,000 photos of 32 x 32 pixels in 100 classes (Krizhevsky 2009), official test split; no concept labels.

    Attributes: as `Cifar10`; torchvision's folder is `cifar-100-python`.
    """

    root: Path
    val_fraction: float = 0.1
    seed: int = 0
    download: bool = False

    def load(self) -> Dataset:
        """Folders when there are any, else torchvision's files."""
        return _load("cifar100", Path(self.root).expanduser(), self.val_fraction, self.seed, self.download)


def _load(name: str, root: Path, val_fraction: float, seed: int, download: bool) -> Dataset:
    if (root / "train").is_dir() and (root / "test").is_dir():
        dataset = Folder(root, size=32, val_fraction=val_fraction, seed=seed).load()
        return replace(dataset, name=name, info={"source": f"{name}, folder of images"})
    return _from_torchvision(name, root, val_fraction, seed, download)


def _from_torchvision(name: str, root: Path, val_fraction: float, seed: int, download: bool) -> Dataset:
    reader = getattr(torchvision_module("torchvision.datasets"), name.upper())
    try:
        train, test = (reader(str(root), train=train, download=download) for train in (True, False))
    except RuntimeError as error:
        raise PrunescopeError(
            f"{name}: {root} has neither the folders train and test nor {reader.base_folder} "
            f"({error}); fetch it with  download: true"
        ) from error
    classes = tuple(train.classes)
    labels = torch.tensor(train.targets)
    left, held = partition(labels, [val_fraction], seed=seed, where=name, classes=classes)
    pixels = _pixels(train)
    normalisation = Normalisation.of(pixels[left])

    def split(part: Any, index: torch.Tensor | None, prefix: str) -> Split:
        index = torch.arange(len(part.targets)) if index is None else index
        ids = np.array([f"{prefix}-{i:05d}" for i in index.tolist()])
        images = pixels if part is train else _pixels(part)
        return Split(images[index], torch.tensor(part.targets)[index], ids, classes, normalisation)

    parts = split(train, left, "train"), split(train, held, "train"), split(test, None, "test")
    return Dataset(name, *parts, info={"source": f"{name}, torchvision's files"})


def _pixels(part: Any) -> torch.Tensor:
    return torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous()
