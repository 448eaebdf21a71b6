"""Seeded train, val and test parts in which classes keep their shares and groups stay together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prunescope.core.errors import PrunescopeError
from prunescope.core.seeds import derive
from prunescope.data.subsets import stratified


def partition(
    labels: Tensor,
    fractions: Sequence[float],
    *,
    seed: int,
    where: str,
    classes: Sequence[str],
    groups: np.ndarray[Any, Any] | None = None,
) -> list[Tensor]:
    """Sorted positions of the rest, then of one held-out part per fraction. Together they are all positions.

    Args:
        labels: int64 (N,).
        fractions: shares of the images to hold out, each above 0, together below 1: `(test, val)` gives
            `[train, test, val]`. A part drawn earlier does not depend on later fractions.
        groups: (N,) names; images of one group (a patient, a lesion) go to the same part. Shares are then shares of
            groups, each of which counts for the class of its first image.
        where: for messages.
        classes: names of the labels, for messages.

    Raises:
        PrunescopeError: fractions out of range, or a class with fewer images (groups) than there are parts.
    """
    if not all(f > 0 for f in fractions) or sum(fractions) >= 1:
        shown = ", ".join(map(str, fractions))
        raise PrunescopeError(f"{where}: fractions held out must be above 0 and sum to less than 1, got {shown}")
    member = np.arange(len(labels)) if groups is None else np.unique(groups, return_inverse=True)[1]
    _, first = np.unique(member, return_index=True)
    of_group = labels[torch.from_numpy(first)]
    counts = torch.bincount(of_group, minlength=len(classes))
    few = [f"{classes[i]!r} ({counts[i]})" for i in range(len(classes)) if counts[i] < len(fractions) + 1]
    if few:
        kind = "images" if groups is None else "groups of images"
        named = ", ".join(few[:5]) + (", ..." if len(few) > 5 else "")
        raise PrunescopeError(f"{where}: {len(fractions) + 1} parts need as many {kind} of every class, got {named}")
    part = np.zeros(len(of_group), np.int64)
    for i, fraction in enumerate(fractions, 1):
        rest = np.flatnonzero(part == 0)
        # At least one of every class in every part, and no less than one left for training.
        count = int(np.clip(round(fraction * len(of_group)), len(classes), len(rest) - len(classes)))
        chosen = stratified(of_group[torch.from_numpy(rest)], count, seed=derive(seed, "partition", i))
        part[rest[chosen.numpy()]] = i
    return [torch.from_numpy(np.flatnonzero(part[member] == i)) for i in range(len(fractions) + 1)]
