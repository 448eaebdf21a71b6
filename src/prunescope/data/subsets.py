"""Some of the images, with every class in its share."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from prunescope.core.errors import PrunescopeError
from prunescope.core.seeds import numpy_generator


def stratified(labels: Tensor, count: int, *, seed: int) -> Tensor:
    """Sorted positions of `count` random images in which classes keep their shares.

    Every class is represented when there are at least as many images as classes. Subsets of one seed are nested: a
    smaller one is part of a larger one.

    >>> stratified(torch.tensor([0] * 6 + [1] * 3), 3, seed=0).tolist().__len__()
    3

    Raises:
        PrunescopeError: `count` is not in 1 .. number of images.
    """
    n = len(labels)
    if not 1 <= count <= n:
        raise PrunescopeError(f"a subset of {count} images cannot be taken from {n}: allowed are 1 .. {n}")
    random = numpy_generator(seed, "stratified")
    classes = labels.numpy()
    turn = np.empty(n)
    for label in np.unique(classes):
        members = random.permutation(np.flatnonzero(classes == label))
        # Evenly spaced turns in (0, 1] give each class its share of any first `count`; the first one always comes in.
        turn[members] = (np.arange(len(members)) + 0.5) / len(members)
        turn[members[0]] = 0
    order = np.lexsort((random.random(n), turn))
    return torch.from_numpy(np.sort(order[:count]))
