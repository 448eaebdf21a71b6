"""Records of several networks, brought to the same images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from prunescope.core.errors import PrunescopeError
from prunescope.core.types import Record

Array = np.ndarray[Any, np.dtype[Any]]


def common_images(records: Sequence[Record], what: str) -> tuple[Array, list[Array]]:
    """Ids that all records have, in the first one's order, and the rows where each record keeps them.

    Args:
        what: names the records in an error.

    Raises:
        PrunescopeError: a record without ids, or with an id twice; fewer than two images in common.
    """
    ids = [_ids(record, what) for record in records]
    first = ids[0]
    if all(np.array_equal(first, other) for other in ids[1:]):
        common, rows = first, [np.arange(len(first)) for _ in ids]
    else:
        places = [{name: i for i, name in enumerate(names.tolist())} for names in ids]
        kept = [name for name in first.tolist() if all(name in place for place in places)]
        common, rows = (
            np.array(kept, dtype=np.str_),
            [np.array([place[n] for n in kept], dtype=int) for place in places],
        )
    if len(common) < 2:
        raise PrunescopeError(f"{what}: the records have {len(common)} images in common; were they made on other data?")
    return common, rows


def _ids(record: Record, what: str) -> Array:
    if record.ids is None:
        raise PrunescopeError(f"{what}: a record has no image ids, so it cannot be aligned with another")
    names, counts = np.unique(record.ids, return_counts=True)
    if len(names) < len(record.ids):
        raise PrunescopeError(f"{what}: image id {str(names[counts.argmax()])!r} is there {counts.max()} times")
    return record.ids
