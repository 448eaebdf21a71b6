"""Which decisions pruning changes, and which images it hits most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from prunescope.core.errors import PrunescopeError
from prunescope.core.types import Record
from prunescope.metrics import predictions
from prunescope.study.alignment import common_images

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, eq=False)
class Hits:
    """How the tickets of a population change the decision on every image.

    Attributes:
        ids, labels: of the images (N,).
        flipped: share of the tickets that decide otherwise than the dense network they came from, (N,) 0 to 1.
        between_dense: the same between dense networks that differ only in seed: an image that is flipped here too is
            hard, not hit. NaN with a single dense network.
        pie: pruning identified exemplars, (N,) bool (Hooker et al. 2019); meant for several networks on each side.
    """

    ids: Array
    labels: Array
    flipped: Array
    between_dense: Array
    pie: Array

    def worst(self, count: int) -> Array:
        """Rows of the images hit most: by `flipped` beyond `between_dense`, of equal ones the first."""
        excess = self.flipped - np.nan_to_num(self.between_dense)
        found: Array = np.argsort(-excess, kind="stable")[:count]
        return found


def flips(reference: Record, other: Record) -> Array:
    """Counts (C, C) of images by the reference's prediction (row) and the other network's (column).

    Args:
        reference, other: `performance` records; images are aligned by their ids.
    """
    _, (rows_a, rows_b) = common_images([reference, other], "flips")
    before, after = _predicted(reference)[rows_a], _predicted(other)[rows_b]
    return predictions.flips(before, after, _classes([reference, other]))


def hits(pairs: Sequence[tuple[Record, Record]]) -> Hits:
    """The images hit most, from (dense, ticket) pairs of `performance` records; a dense one may be in several pairs.

    Raises:
        PrunescopeError: no pairs, records without predictions, fewer than two images in common.
    """
    if not pairs:
        raise PrunescopeError("hits: there are no tickets to compare with their dense networks")
    records = list({id(record): record for pair in pairs for record in pair}.values())
    ids, rows = common_images(records, "hits")
    predicted = {
        id(record): _predicted(record)[chosen].astype(np.int64) for record, chosen in zip(records, rows, strict=True)
    }
    before = np.stack([predicted[id(dense)] for dense, _ in pairs])
    after = np.stack([predicted[id(ticket)] for _, ticket in pairs])
    dense = np.stack([predicted[key] for key in dict.fromkeys(id(dense) for dense, _ in pairs)])
    between = [dense[i] != dense[j] for i, j in combinations(range(len(dense)), 2)]
    return Hits(
        ids=ids,
        labels=records[0].arrays["image.label"][rows[0]],
        flipped=predictions.flip_share(before, after),
        between_dense=np.mean(between, axis=0) if between else np.full(len(ids), np.nan),
        pie=predictions.pies(dense, after, _classes(records)),
    )


def _predicted(record: Record) -> Array:
    if "image.predicted" not in record.arrays:
        raise PrunescopeError(f"record of probe {record.probe!r} has no predictions: give `performance` records")
    return record.arrays["image.predicted"]


def _classes(records: Sequence[Record]) -> int:
    """Number of classes: as the records name them, else as many as are predicted."""
    named = max(len(record.info.get("classes", ())) for record in records)
    return max(named, *(int(_predicted(record).max()) + 1 for record in records))
