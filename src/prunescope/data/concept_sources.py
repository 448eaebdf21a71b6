"""Concept labels that come apart from the images' own: a table of classes, or folders of example images."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from prunescope.core.errors import PrunescopeError, choices
from prunescope.data.cache import Storage, load_images
from prunescope.data.csv_tables import csv_text
from prunescope.data.decode import Decoding
from prunescope.data.listing import image_files, subfolders
from prunescope.data.split import Normalisation, Split

_VALUES = {"1": 1, "0": 0, "-1": -1, "": -1}


def class_table(path: Path, classes: Sequence[str]) -> tuple[tuple[str, ...], Tensor]:
    """Names of K concepts and their labels int8 (classes, K) from a CSV file.

    The first row names the columns: first the concept, then one column per class, in any order; more columns
    (a reason, a source) are left alone. Cells are 1 (present), 0 (absent), empty or -1 (unknown).

    Raises:
        PrunescopeError: no such file, a class without column, another value, a concept named twice.
    """
    header, *rows = [row for row in csv.reader(csv_text(path)) if any(cell.strip() for cell in row)] or [[]]
    header = [cell.strip() for cell in header]
    for name in classes:
        if name not in header[1:]:
            raise choices("column", name, header[1:], f"{path}: every class needs a column, but")
    if not rows:
        raise PrunescopeError(f"the concept table {path} has no concepts")
    names = tuple(row[0].strip() for row in rows)
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise PrunescopeError(f"{path}: the concept {twice[0]!r} is named twice")
    columns = [header.index(name, 1) for name in classes]
    values = [[_value(row, column, header, path) for row in rows] for column in columns]
    return names, torch.tensor(values, dtype=torch.int8)


def _value(row: list[str], column: int, header: list[str], path: Path) -> int:
    cell = row[column].strip() if column < len(row) else ""
    if cell not in _VALUES:
        raise PrunescopeError(f"{path}: {row[0]!r} of {header[column]!r} must be 1, 0, -1 or empty, got {cell!r}")
    return _VALUES[cell]


def concept_folders(
    root: Path,
    decoding: Decoding,
    normalisation: Normalisation,
    *,
    storage: Storage = "auto",
    cache: bool = True,
) -> Split:
    """Example images of concepts as a split: `NAME/positive/*` show the concept, `NAME/negative/*` do not.

    An image is labelled for the concept in whose folder it lies and unknown (-1) for all others. The "class" of an
    image is that folder, too.

    Args:
        normalisation: of the data set whose networks will see the images.

    Raises:
        PrunescopeError: no such folder, no concept in it, a concept without positive or negative images.
    """
    if not root.is_dir():
        raise PrunescopeError(f"concepts: there is no folder {root}")
    names = subfolders(root)
    if not names:
        raise PrunescopeError(f"concepts: {root} has no folders NAME/positive and NAME/negative")
    files, columns, values = [], [], []
    for column, name in enumerate(names):
        for kind, value in (("positive", 1), ("negative", 0)):
            found = image_files(root, f"{name}/{kind}")
            if not found:
                raise PrunescopeError(f"concepts: no images in {root / name / kind}")
            files += found
            columns += [column] * len(found)
            values += [value] * len(found)
    concepts = torch.full((len(files), len(names)), -1, dtype=torch.int8)
    concepts[torch.arange(len(files)), torch.tensor(columns)] = torch.tensor(values, dtype=torch.int8)
    return Split(
        load_images(root, files, decoding, storage=storage, cache=cache),
        torch.tensor(columns),
        np.array(files),
        tuple(names),
        normalisation,
        concepts=concepts,
        concept_names=tuple(names),
    )
