"""`derm7pt`: dermoscopic images whose seven-point criteria physicians labelled (Kawahara et al. 2019)."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from prunescope.core.errors import PrunescopeError, choices
from prunescope.data.cache import Storage, choose, load_images
from prunescope.data.csv_tables import csv_rows, csv_text
from prunescope.data.decode import Decoding
from prunescope.data.sources import sources
from prunescope.data.split import NAMES, Dataset, Normalisation, Split

#: Concept -> (column of meta.csv, values that show it, values that leave it open). The opposite variant of a structure
#: (atypical for typical) is neither present nor absent, as in the post-hoc concept bottleneck's concept bank.
CONCEPTS: dict[str, tuple[str, frozenset[str], frozenset[str]]] = {
    "BWV": ("blue_whitish_veil", frozenset({"present"}), frozenset()),
    "RegularDG": ("dots_and_globules", frozenset({"regular"}), frozenset({"irregular"})),
    "IrregularDG": ("dots_and_globules", frozenset({"irregular"}), frozenset({"regular"})),
    "RegressionStructures": (
        "regression_structures",
        frozenset({"blue areas", "white areas", "combinations"}),
        frozenset(),
    ),
    "IrregularStreaks": ("streaks", frozenset({"irregular"}), frozenset({"regular"})),
    "RegularStreaks": ("streaks", frozenset({"regular"}), frozenset({"irregular"})),
    "AtypicalPigmentNetwork": ("pigment_network", frozenset({"atypical"}), frozenset({"typical"})),
    "TypicalPigmentNetwork": ("pigment_network", frozenset({"typical"}), frozenset({"atypical"})),
}
_COLUMNS = ("derm", "diagnosis", *dict.fromkeys(column for column, _, _ in CONCEPTS.values()))
_FILES = {"train": "train_indexes.csv", "val": "valid_indexes.csv", "test": "test_indexes.csv"}
#: Groups of diagnoses as in the paper; melanoma metastases count as melanoma.
_GROUPS = {"basal cell carcinoma": "bcc", "seborrheic keratosis": "sk"}


@sources.register("derm7pt")
@dataclass(frozen=True)
class Derm7pt:
    """`meta/meta.csv`, `meta/{train,valid,test}_indexes.csv` and `images/`; dermoscopic images, official split.

    Concepts: blue-whitish veil, regular and irregular dots and globules, regression structures, irregular and regular
    streaks, atypical and typical pigment network. The opposite variant of a structure is unknown (-1), not absent.

    Attributes:
        root: the folder.
        target: `malignant`: melanoma and basal cell carcinoma against the rest; `group`: five groups of diagnoses.
        size: pixels per side.
        storage, cache: see `prunescope.data.cache.load_images`.
    """

    root: Path
    target: Literal["malignant", "group"] = "malignant"
    size: int = 64
    storage: Storage = "auto"
    cache: bool = True

    def __post_init__(self) -> None:
        if self.target not in ("malignant", "group"):
            raise choices("target", self.target, ("malignant", "group"), "derm7pt")
        Decoding(self.size)

    def load(self) -> Dataset:
        """Read the tables, decode."""
        root = Path(self.root).expanduser()
        rows = metadata(root)
        everything = self._everything(root, rows)
        index = {name: torch.tensor(_indices(root / "meta" / file, len(rows))) for name, file in _FILES.items()}
        _refuse_overlap(root, index)
        parts = {name: choose(everything.images, positions) for name, positions in index.items()}
        normalisation = Normalisation.of(parts["train"])

        def part(name: str) -> Split:
            positions = index[name]
            concepts = everything.concepts
            return Split(
                parts[name],
                everything.labels[positions],
                everything.ids[positions.numpy()],
                everything.classes,
                normalisation,
                concepts=None if concepts is None else concepts[positions],
                concept_names=everything.concept_names,
            )

        train, val, test = (part(name) for name in NAMES)
        return Dataset("derm7pt", train, val, test, info={"source": "derm7pt (Kawahara et al. 2019)"})

    def _everything(self, root: Path, rows: list[dict[str, str]]) -> Split:
        groups = [group(row["diagnosis"]) for row in rows]
        if self.target == "group":
            classes: tuple[str, ...] = ("bcc", "melanoma", "misc", "nevus", "sk")
            labels = [classes.index(name) for name in groups]
        else:
            classes = ("benign", "malignant")
            labels = [int(name in ("bcc", "melanoma")) for name in groups]
        images = load_images(
            root / "images", [row["derm"] for row in rows], Decoding(self.size), storage=self.storage, cache=self.cache
        )
        ids = np.array([row["derm"] for row in rows])
        return Split(
            images, torch.tensor(labels), ids, classes, concepts=labels_of(rows), concept_names=tuple(CONCEPTS)
        )


def derm7pt_concepts(
    root: Path, decoding: Decoding, normalisation: Normalisation, *, storage: Storage = "auto", cache: bool = True
) -> Split:
    """Training and validation images as a concept bank for another data set, seen with its normalisation."""
    rows = metadata(root)
    index = sorted({i for name in ("train", "val") for i in _indices(root / "meta" / _FILES[name], len(rows))})
    rows = [rows[i] for i in index]
    files = [row["derm"] for row in rows]
    return Split(
        load_images(root / "images", files, decoding, storage=storage, cache=cache),
        torch.tensor([int(group(row["diagnosis"]) in ("bcc", "melanoma")) for row in rows]),
        np.array(files),
        ("benign", "malignant"),
        normalisation,
        concepts=labels_of(rows),
        concept_names=tuple(CONCEPTS),
    )


def labels_of(rows: list[dict[str, str]]) -> torch.Tensor:
    """Concept labels int8 (N, 8): 1 present, 0 absent, -1 the opposite variant is present."""
    return torch.tensor(
        [
            [
                1 if row[column] in shown else -1 if row[column] in left_open else 0
                for column, shown, left_open in CONCEPTS.values()
            ]
            for row in rows
        ],
        dtype=torch.int8,
    ).reshape(len(rows), len(CONCEPTS))


def group(diagnosis: str) -> str:
    """bcc, melanoma, nevus, sk or misc.

    >>> group("melanoma (in situ)"), group("clark nevus"), group("lentigo")
    ('melanoma', 'nevus', 'misc')
    """
    for word in ("melanoma", "nevus"):
        if word in diagnosis.split() or diagnosis.startswith(word):
            return word
    return _GROUPS.get(diagnosis, "misc")


def metadata(root: Path) -> list[dict[str, str]]:
    """Rows of `meta/meta.csv`, lower case but for the file names, which are relative to `root/images`."""
    path = root / "meta" / "meta.csv"
    if not path.is_file():
        raise PrunescopeError(f"derm7pt: there is no {path}")
    rows = csv_rows(path, _COLUMNS)
    return [{key: row[key] if key == "derm" else row[key].strip().lower() for key in _COLUMNS} for row in rows]


def _indices(path: Path, count: int) -> list[int]:
    text = csv_text(path)
    try:
        made = [int(row["indexes"]) for row in csv.DictReader(text)]
    except (KeyError, ValueError) as error:
        raise PrunescopeError(f"derm7pt: {path} must have a column 'indexes' of row numbers: {error}") from error
    outside = [i for i in made if not 0 <= i < count]
    if outside:
        raise PrunescopeError(f"derm7pt: {path} names row {outside[0]}, but meta.csv has {count} rows")
    return made


def _refuse_overlap(root: Path, index: dict[str, torch.Tensor]) -> None:
    every = torch.cat(list(index.values()))
    if len(every.unique()) < len(every):
        raise PrunescopeError(f"derm7pt: a row stands in two of {', '.join(_FILES.values())} in {root / 'meta'}")
