"""Labels of pixels in PNG files whose values are places in a list of names."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image

from prunescope.core.errors import PrunescopeError
from prunescope.data.decode import Array, Decoding, workers
from prunescope.data.segments import Coded, Segments, smallest

T = TypeVar("T")

#: In a PNG: not labelled. In a list of names: labelled, and none of the concepts.
VOID, BACKGROUND = 255, "background"
_MODES = ("P", "L", "1", "I", "I;16")
_TURNED = (5, 6, 7, 8)  # values of EXIF's orientation that exchange width and height


@dataclass(frozen=True)
class LabelFiles:
    """PNGs whose values are places in a list of names.

    Attributes:
        paths: a PNG for each image.
        images: the images themselves, whose size a PNG must have.
        names, categories: of every value from 0 on; values named `background` show none of the concepts.
        decoding: of the images.
    """

    paths: tuple[Path, ...]
    images: tuple[Path, ...]
    names: tuple[str, ...]
    categories: tuple[str, ...]
    decoding: Decoding

    def segments(self) -> Segments:
        """Read when first asked for."""
        shown = [i for i, name in enumerate(self.names) if name != BACKGROUND]
        names, categories = (tuple(all_[i] for i in shown) for all_ in (self.names, self.categories))
        shape = (len(self.paths), self.decoding.size, self.decoding.size)
        return Segments(names, categories, shape, partial(_read, self, tuple(shown)), identity=digest(self.paths))

    def one(self, position: int) -> Array:
        """Values int32 (size, size) of one image; the number of names where it is not labelled."""
        path = self.paths[position]
        try:
            with Image.open(path) as image:
                mode, values = image.mode, np.asarray(image).astype(np.int32)
        except Exception as error:  # readers of formats raise whatever a broken file runs them into
            raise PrunescopeError(f"cannot read labels of pixels {path}: {error}") from error
        if mode not in _MODES:
            raise PrunescopeError(f"{path}: labels of pixels must be a palette or grey PNG, got mode {mode}")
        require_size(self.images[position], (values.shape[1], values.shape[0]), str(path))
        count = len(self.names)
        values[(values == VOID) & (count <= VOID)] = count
        if int(values.max()) > count:
            raise PrunescopeError(f"{path} has the value {int(values.max())}, but there are {count} names")
        return self.decoding.labels(values)


def _read(files: LabelFiles, shown: tuple[int, ...]) -> Coded:
    codes = np.empty((len(files.paths), files.decoding.size, files.decoding.size), np.int32)
    for position, values in enumerate(in_threads(files.one, range(len(files.paths)))):
        codes[position] = values
    sets = len(files.names) + 1
    known = torch.ones(sets, dtype=torch.bool)
    known[-1] = False
    return Coded(smallest(torch.from_numpy(codes), sets), torch.eye(sets, dtype=torch.bool)[:, list(shown)], known)


def require_size(image: Path, size: tuple[int, int], where: str) -> None:
    """Refuse labels of a size (width, height) that is not the image's, as it is seen upright."""
    try:
        with Image.open(image) as opened:
            width, height = opened.size
            if opened.getexif().get(0x0112) in _TURNED:
                width, height = height, width
    except OSError as error:
        raise PrunescopeError(f"cannot read image {image}: {error}") from error
    if (width, height) != size:
        raise PrunescopeError(
            f"{where} labels {size[0]} x {size[1]} pixels, but image {image} has {width} x {height}; "
            "labels must have their image's size"
        )


def in_threads(work: Callable[[int], T], positions: Sequence[int]) -> Iterator[T]:
    """What `work` gives for each, in order."""
    Image.init()  # is not safe to happen first inside of threads
    with ThreadPoolExecutor(workers()) as pool:
        yield from pool.map(work, positions)


def digest(paths: Iterable[Path]) -> str:
    """A hash over what is in the files."""
    found = hashlib.sha256()
    for path in paths:
        found.update(path.read_bytes())
    return found.hexdigest()
