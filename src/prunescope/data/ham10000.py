"""`ham10000`: dermoscopic images of skin lesions (Tschandl, Rosendahl, Kittler 2018; CC BY-NC 4.0)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from prunescope.core.errors import PrunescopeError, choices
from prunescope.data.cache import Storage, cache_folder, cached_array, choose, fingerprint, load_images
from prunescope.data.csv_tables import csv_rows
from prunescope.data.decode import Array, Decoding
from prunescope.data.derm7pt import derm7pt_concepts
from prunescope.data.descriptors import DESCRIPTORS, NAMES, binarise, describe_images
from prunescope.data.listing import image_files
from prunescope.data.partition import partition
from prunescope.data.sources import sources
from prunescope.data.split import Dataset, Normalisation, Split

#: Diagnoses. Malignant, as in the papers on concept bottlenecks: mel and bcc (actinic keratoses, akiec, are not).
DIAGNOSES = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
MALIGNANT = ("bcc", "mel")
_SIDE = 96  # pixels at which lesions are described, whatever size the network sees


@sources.register("ham10000")
@dataclass(frozen=True)
class Ham10000:
    """`HAM10000_metadata.csv` and folders `HAM10000_images_part_*` (or others) with the JPEG files.

    Splits are by lesion: images of one lesion never lie in two splits. Concepts are computed from the image
    (`prunescope.data.descriptors`) and cut at quantiles of the training split: no physician labelled them.

    Attributes:
        root: the folder.
        target: `dx`: seven diagnoses; `malignant`: mel and bcc against the rest.
        size: pixels per side.
        val_fraction, test_fraction: shares of the lesions, stratified by diagnosis.
        seed: of the splits.
        storage, cache: see `prunescope.data.cache.load_images`.
        concepts: folder of the derm7pt data: its physicians' concepts become the concept bank instead.
    """

    root: Path
    target: Literal["dx", "malignant"] = "dx"
    size: int = 64
    val_fraction: float = 0.15
    test_fraction: float = 0.2
    seed: int = 0
    storage: Storage = "auto"
    cache: bool = True
    concepts: Path | None = None

    def __post_init__(self) -> None:
        if self.target not in ("dx", "malignant"):
            raise choices("target", self.target, ("dx", "malignant"), "ham10000")
        Decoding(self.size)

    def load(self) -> Dataset:
        """Read the table, split by lesion, decode, describe (the last two once: they are cached)."""
        root = Path(self.root).expanduser()
        rows = metadata(root)
        files = find_images(root, [row["image_id"] for row in rows])
        diagnosis = torch.tensor([DIAGNOSES.index(row["dx"]) for row in rows])
        positions = self._positions(rows, diagnosis)
        images = load_images(root, files, Decoding(self.size), storage=self.storage, cache=self.cache)
        concepts, info = self._concepts(root, files, positions["train"])
        labels, classes = self._labels(diagnosis)
        chosen = {name: choose(images, index) for name, index in positions.items()}
        normalisation = Normalisation.of(chosen["train"])
        ids = np.array([row["image_id"] for row in rows])
        splits = {
            name: Split(
                chosen[name],
                labels[index],
                ids[index.numpy()],
                classes,
                normalisation,
                concepts=None if concepts is None else concepts[index],
                concept_names=() if concepts is None else NAMES,
            )
            for name, index in positions.items()
        }
        bank = None
        if self.concepts is not None:
            place = Path(self.concepts).expanduser()
            bank = derm7pt_concepts(place, Decoding(self.size), normalisation, storage=self.storage, cache=self.cache)
        return Dataset("ham10000", splits["train"], splits["val"], splits["test"], bank, info)

    def _positions(self, rows: list[dict[str, str]], diagnosis: Tensor) -> dict[str, Tensor]:
        train, test, val = partition(
            diagnosis,
            (self.test_fraction, self.val_fraction),
            seed=self.seed,
            where="ham10000",
            classes=DIAGNOSES,
            groups=np.array([row["lesion_id"] for row in rows]),
        )
        return {"train": train, "val": val, "test": test}

    def _labels(self, diagnosis: Tensor) -> tuple[Tensor, tuple[str, ...]]:
        if self.target == "dx":
            return diagnosis, DIAGNOSES
        return torch.isin(diagnosis, torch.tensor([DIAGNOSES.index(name) for name in MALIGNANT])).long(), (
            "benign",
            "malignant",
        )

    def _concepts(self, root: Path, files: list[str], train: Tensor) -> tuple[Tensor | None, dict[str, Any]]:
        info: dict[str, Any] = {"source": "HAM10000 (Tschandl et al. 2018), CC BY-NC 4.0", "split": "by lesion"}
        if self.target == "malignant":
            info["rule"] = "malignant: mel, bcc; benign: nv, bkl, akiec, df, vasc"
        if self.concepts is not None:
            return None, {**info, "concepts": "derm7pt, labelled by physicians on other images"}
        values = descriptor_table(root, files, cache=self.cache)
        concepts, thresholds = binarise(values, train.numpy())
        meanings = {name: descriptor.meaning for name, descriptor in zip(NAMES, DESCRIPTORS, strict=True)}
        return concepts, {
            **info,
            "concepts": "computed from the image, not labelled by physicians",
            "descriptor_meanings": meanings,
            "descriptor_thresholds": thresholds,
            "images_without_lesion_found": int(np.isnan(values[:, 0]).sum()),
        }


def metadata(root: Path) -> list[dict[str, str]]:
    """Rows of `HAM10000_metadata.csv` (also without the suffix, as first published), in the file's order."""
    for name in ("HAM10000_metadata.csv", "HAM10000_metadata"):
        if (root / name).is_file():
            break
    else:
        raise PrunescopeError(f"ham10000: there is no HAM10000_metadata.csv in {root}")
    rows = csv_rows(root / name, ("lesion_id", "image_id", "dx"))
    for row in rows:
        if row["dx"] not in DIAGNOSES:
            raise choices("diagnosis", row["dx"], DIAGNOSES, f"{root / name}, image {row['image_id']}")
    return rows


def find_images(root: Path, ids: list[str]) -> list[str]:
    """Paths below `root` of the images with these ids, in their order.

    Raises:
        PrunescopeError: names images that are missing.
    """
    found = {Path(file).stem: file for file in image_files(root, ".")}
    missing = [name for name in ids if name not in found]
    if missing:
        shown = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        raise PrunescopeError(f"ham10000: {len(missing)} of {len(ids)} images are missing in {root}: {shown}")
    return [found[name] for name in ids]


def descriptor_table(root: Path, files: list[str], *, cache: bool = True) -> Array:
    """float32 (N, K): the descriptors of the images, computed at 96 pixels; kept in the cache."""

    def fill(out: Array) -> None:
        images = load_images(root, files, Decoding(_SIDE), storage="stream")
        for start in range(0, len(files), 512):  # 14 MB of pixels at a time
            out[start : start + 512] = describe_images(images[start : start + 512].numpy())

    shape = (len(files), len(DESCRIPTORS))
    if not cache:
        table = np.empty(shape, np.float32)
        fill(table)
        return table
    path = cache_folder() / f"descriptors-{fingerprint(root, files, 'descriptors 1', _SIDE)}.npy"
    return cached_array(path, shape, fill, dtype="float32")
