"""The text files of CUB-200-2011: one number and something else per line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from prunescope.core.errors import PrunescopeError
from prunescope.core.files import read_text
from prunescope.data.decode import Array


def words(path: Path) -> dict[int, str]:
    """Lines `12 some words` as {12: "some words"}.

    Raises:
        PrunescopeError: no such file, or a line that is not of this kind.
    """
    found: dict[int, str] = {}
    for number, line in enumerate(_lines(path), 1):
        key, _, rest = line.partition(" ")
        if not line.strip():
            continue
        if not key.isdigit() or not rest.strip() or int(key) in found:
            raise PrunescopeError(f"{path}, line {number}: expected `<new number> <text>`, got {line!r}")
        found[int(key)] = rest.strip()
    if not found:
        raise PrunescopeError(f"{path} is empty")
    return found


def numbers(path: Path, keys: Sequence[int]) -> Array:
    """int64: the number that stands behind each of the keys.

    Raises:
        PrunescopeError: a key without a line, or something else than a number behind it.
    """
    found = words(path)
    missing = [key for key in keys if key not in found]
    if missing:
        raise PrunescopeError(f"{path} has no line for {len(missing)} images, the first of them {missing[0]}")
    wrong = [key for key in keys if not found[key].isdigit()]
    if wrong:
        raise PrunescopeError(f"{path}: expected a number behind {wrong[0]}, got {found[wrong[0]]!r}")
    return np.array([int(found[key]) for key in keys])


def species(root: Path, image_ids: Sequence[int]) -> tuple[tuple[str, ...], Tensor]:
    """Names of the classes (`001.Black_footed_Albatross` as `Black footed Albatross`) and labels int64 (N,)."""
    listed = words(root / "classes.txt")
    place = {number: i for i, number in enumerate(sorted(listed))}
    of_image = numbers(root / "image_class_labels.txt", image_ids)
    unknown = sorted(set(of_image.tolist()) - set(place))
    if unknown:
        raise PrunescopeError(f"{root / 'image_class_labels.txt'}: class {unknown[0]} is not in classes.txt")
    names = tuple(listed[number].partition(".")[2].replace("_", " ") or listed[number] for number in sorted(listed))
    return names, torch.tensor([place[number] for number in of_image.tolist()])


def attribute_names(root: Path) -> tuple[str, ...]:
    """`has_bill_shape::curved_(up_or_down)` as `bill shape: curved (up or down)`, in the order of their numbers.

    The official archive keeps the file beside the folder, copies keep it in the folder or in `attributes/`.
    """
    for place in (root / "attributes", root, root.parent):
        if (place / "attributes.txt").is_file():
            listed = words(place / "attributes.txt")
            if sorted(listed) != list(range(1, len(listed) + 1)):
                raise PrunescopeError(
                    f"{place / 'attributes.txt'}: attributes must be numbered from 1 on, without gaps"
                )
            return tuple(_readable(listed[number]) for number in sorted(listed))
    raise PrunescopeError(f"cub: there is no attributes.txt in {root / 'attributes'}, {root} or {root.parent}")


def attribute_labels(root: Path, image_ids: Sequence[int], attributes: int, min_certainty: int) -> Array:
    """int8 (N, K): 1 present, 0 absent, -1 for labels below `min_certainty` and for those that are not in the file.

    Some lines of the official file have more columns than the others; the first four are right there, too.

    Raises:
        PrunescopeError: no such file, or an image or attribute that is not known.
    """
    path = root / "attributes" / "image_attribute_labels.txt"
    image, attribute, present, certainty = _columns(path)
    row_of = np.full(max(max(image_ids), int(image.max(initial=0))) + 1, -1)
    row_of[np.asarray(image_ids)] = np.arange(len(image_ids))
    for kind, values, wrong in (
        ("image", image, row_of[image] < 0),
        ("attribute", attribute, (attribute < 1) | (attribute > attributes)),
        ("label", present, (present != 0) & (present != 1)),
        ("certainty", certainty, (certainty < 1) | (certainty > 4)),
    ):
        if wrong.any():
            first = int(np.flatnonzero(wrong)[0])
            raise PrunescopeError(f"{path}, line {first + 1}: unknown {kind} {values[first]}")
    labels = np.full((len(image_ids), attributes), -1, np.int8)
    sure = certainty >= min_certainty
    labels[row_of[image[sure]], attribute[sure] - 1] = present[sure]
    return labels


def _columns(path: Path) -> tuple[Array, Array, Array, Array]:
    """Image, attribute, present and certainty of 3.7 million lines: by pandas, in a few seconds."""
    import pandas as pd

    if not path.is_file():
        raise PrunescopeError(f"cub: there is no file {path}; without it, set  concepts: none")
    try:
        table = pd.read_csv(path, sep=r"\s+", header=None, usecols=[0, 1, 2, 3], dtype=np.int64, engine="c")
    except ValueError as error:
        raise PrunescopeError(
            f"{path}: expected numbers `image attribute present certainty seconds`: {error}"
        ) from None
    image, attribute, present, certainty = (table[i].to_numpy() for i in range(4))
    return image, attribute, present, certainty


def _readable(name: str) -> str:
    part, _, value = name.partition("::")
    return f"{part.removeprefix('has_')}: {value}".replace("_", " ") if value else name.replace("_", " ")


def _lines(path: Path) -> list[str]:
    try:
        return read_text(path).splitlines()
    except PrunescopeError as error:
        raise PrunescopeError(f"cub: {error}") from None
