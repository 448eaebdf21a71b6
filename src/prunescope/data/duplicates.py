"""Images that stand in two splits make test numbers too good; they are found by their pixels."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator
from itertools import combinations

import numpy as np

from prunescope.core.errors import PrunescopeError, PrunescopeWarning
from prunescope.data.split import NAMES, Dataset, Images


def find_duplicates(dataset: Dataset) -> list[tuple[str, str]]:
    """Pairs of ids of pixel-identical images in different splits, in the order train-val, train-test, val-test.

    An image that stands several times in the earlier split of a pair is named once, by its first id there.
    """
    hashes = {name: list(_hashes(dataset[name].images)) for name in NAMES}
    found = []
    for earlier, later in combinations(NAMES, 2):
        ids = dataset[earlier].ids.tolist()
        first = dict(zip(reversed(hashes[earlier]), reversed(ids), strict=True))
        there = dataset[later].ids.tolist()
        found += [(first[key], there[i]) for i, key in enumerate(hashes[later]) if key in first]
    return found


def refuse_duplicates(dataset: Dataset, allow: bool = False) -> int:
    """Number of duplicates across splits: an error unless there are none, only a warning when they are allowed."""
    found = find_duplicates(dataset)
    if not found:
        return 0
    named = ", ".join(f"{a} = {b}" for a, b in found[:5]) + (", ..." if len(found) > 5 else "")
    count = "1 image stands" if len(found) == 1 else f"{len(found)} images stand"
    message = f"data set {dataset.name!r}: {count} in two splits, pixel for pixel: {named}"
    if not allow:
        raise PrunescopeError(f"{message}. Remove them, or go on with  allow_duplicates: true")
    warnings.warn(message, PrunescopeWarning, stacklevel=2)
    return len(found)


def _hashes(images: Images, chunk: int = 256) -> Iterator[bytes]:
    for start in range(0, len(images), chunk):
        for pixels in np.ascontiguousarray(images[start : start + chunk].numpy()):
            yield hashlib.blake2b(pixels.data, digest_size=16).digest()
