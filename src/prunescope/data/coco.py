"""Labels of pixels from a COCO file of instances: polygons and run lengths, drawn here."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from prunescope.core.errors import PrunescopeError
from prunescope.core.files import read_text
from prunescope.data.decode import Array, Decoding
from prunescope.data.label_files import digest, in_threads, require_size
from prunescope.data.segments import Coded, Segments, coded_sets, smallest


@dataclass(frozen=True, eq=False)
class CocoFile:
    """What a COCO file says of some images.

    Attributes:
        path: of the file.
        names, categories: of its categories, in its order; the categories are its `supercategory`.
        drawings: for each image its path, width, height, and (category, segmentation) of its instances.
        decoding: of the images.
    """

    path: Path
    names: tuple[str, ...]
    categories: tuple[str, ...]
    drawings: tuple[tuple[Path, int, int, list[tuple[int, Any]]], ...]
    decoding: Decoding

    def segments(self) -> Segments:
        """Drawn when first asked for."""
        shape = (len(self.drawings), self.decoding.size, self.decoding.size)
        return Segments(self.names, self.categories, shape, partial(_draw, self), identity=digest([self.path]))

    def one(self, position: int) -> tuple[Array, Array]:
        """Sets of concepts of an image's pixels, int32 (size x size,) into bool (sets, K)."""
        image, width, height, shapes = self.drawings[position]
        require_size(image, (width, height), f"{self.path}: image {image.name!r}")
        masks = np.zeros((self.decoding.size**2, len(self.names)), np.bool_)
        for number in sorted({number for number, _ in shapes}):
            whole = np.zeros((height, width), np.bool_)
            for other, shape in shapes:
                if other == number:
                    whole |= self._mask(shape, height, width, image)
            masks[:, number] = self.decoding.labels(whole.astype(np.int32)).ravel() > 0
        return coded_sets(masks)

    def _mask(self, shape: Any, height: int, width: int, image: Path) -> Array:
        try:
            return mask_of(shape, height, width)
        except (TypeError, ValueError, KeyError, IndexError) as error:
            raise PrunescopeError(
                f"{self.path}: image {image.name!r} has a segmentation that is neither polygons nor run lengths of "
                f"{height} x {width} pixels: {error}"
            ) from None


def read_coco(path: Path, root: Path, files: Sequence[str], decoding: Decoding) -> Segments:
    """Labels of the pixels of `files`; an image without instances is labelled, with nothing.

    Raises:
        PrunescopeError: no such file, not COCO's, or it does not have one of the images.
    """
    try:
        told = json.loads(read_text(path))
        kinds = [
            (item["id"], str(item["name"]), str(item.get("supercategory", "object"))) for item in told["categories"]
        ]
        images = {str(item["file_name"]): item for item in told["images"]}
        instances: Mapping[Any, list[tuple[int, Any]]] = defaultdict(list)
        place = {key: number for number, (key, _, _) in enumerate(kinds)}
        for item in told["annotations"]:
            instances[item["image_id"]].append((place[item["category_id"]], item["segmentation"]))
    except (ValueError, KeyError, TypeError) as error:
        what = f"has no {error}" if isinstance(error, KeyError) else f"cannot be read: {error}"
        raise PrunescopeError(f"segments: {path} is no COCO file of instances, it {what}") from None
    drawings = []
    for file in files:
        item = images.get(file) or images.get(Path(file).name)
        if item is None:
            raise PrunescopeError(f"segments: {path} has no image {file!r}")
        drawings.append((root / file, int(item["width"]), int(item["height"]), instances.get(item["id"], [])))
    names, categories = tuple(kind[1] for kind in kinds), tuple(kind[2] for kind in kinds)
    return CocoFile(path, names, categories, tuple(drawings), decoding).segments()


def _draw(file: CocoFile) -> Coded:
    codes = np.empty((len(file.drawings), file.decoding.size**2), np.int32)
    sets: dict[bytes, int] = {}
    for position, (own, rows) in enumerate(in_threads(file.one, range(len(file.drawings)))):
        codes[position] = np.array([sets.setdefault(row.tobytes(), len(sets)) for row in rows])[own]
    table = np.frombuffer(b"".join(sets), np.bool_).reshape(len(sets), len(file.names)).copy()
    shaped = torch.from_numpy(codes).view(-1, file.decoding.size, file.decoding.size)
    return Coded(smallest(shaped, len(sets)), torch.from_numpy(table), torch.ones(len(sets), dtype=torch.bool))


def mask_of(shape: Any, height: int, width: int) -> Array:
    """Pixels bool (height, width) of a `segmentation`: polygons [[x, y, x, y ...], ...] or {"counts", "size"}."""
    if isinstance(shape, Mapping):
        if list(shape["size"]) != [height, width]:
            raise ValueError(f"size {list(shape['size'])}")
        counts = shape["counts"]
        return run_lengths(counts_of(counts) if isinstance(counts, str) else counts, height, width)
    found = np.zeros((height, width), np.bool_)
    for points in shape:
        found |= polygon(np.asarray(points, float).reshape(-1, 2), height, width)
    return found


def polygon(points: Array, height: int, width: int) -> Array:
    """Pixels bool (height, width) whose middle lies within a polygon (V, 2) of x and y, by the even-odd rule.

    >>> polygon(np.array([[1.0, 0], [3, 0], [3, 2], [1, 2]]), 3, 4).astype(int).tolist()
    [[0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
    """
    (x, y), (other_x, other_y) = points.T, np.roll(points, -1, axis=0).T
    middle = np.arange(height) + 0.5
    edge, row = np.nonzero((y[:, None] <= middle) != (other_y[:, None] <= middle))
    along = (middle[row] - y[edge]) / (other_y[edge] - y[edge])
    at = x[edge] + along * (other_x[edge] - x[edge])
    crossings = np.zeros((height, width + 1), np.int32)
    np.add.at(crossings, (row, np.ceil(at - 0.5).clip(0, width).astype(int)), 1)
    inside: Array = crossings.cumsum(axis=1)[:, :width] % 2 == 1
    return inside


def run_lengths(counts: Sequence[int], height: int, width: int) -> Array:
    """Pixels bool (height, width) from the lengths of runs, column by column, the first of which is empty.

    >>> run_lengths([1, 2, 1], 2, 2).astype(int).tolist()
    [[0, 1], [1, 0]]
    """
    lengths = np.asarray(counts, np.int64)
    if (lengths < 0).any() or lengths.sum() != height * width:
        raise ValueError(f"run lengths of {int(lengths.sum())} pixels")
    return np.repeat(np.arange(len(lengths)) % 2 == 1, lengths).reshape(width, height).T


def counts_of(text: str) -> list[int]:
    """Run lengths from COCO's text: six bits a character, five of a number, and the sixth says that it goes on. From
    the fourth on they are differences to the one before the last."""
    found: list[int] = []
    value = shift = 0
    for character in text.encode("ascii"):
        bits = character - 48
        value |= (bits & 0x1F) << shift
        shift += 5
        if bits & 0x20:
            continue
        if bits & 0x10:
            value -= 1 << shift
        found.append(value + (found[-2] if len(found) > 2 else 0))
        value = shift = 0
    return found
