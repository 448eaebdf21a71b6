"""Which candidates can still win, before all images were seen: the search for the unit whose removal costs least.

A candidate's count is of the images that the network gets right without it; the largest count wins.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from scipy import special

from prunescope.core.errors import PrunescopeError
from prunescope.core.types import Array

#: Of the second term of the empirical Bernstein-Serfling bound.
_KAPPA = 7 / 3 + 3 / math.sqrt(2)


def can_win(correct: Array, undecided: Array) -> Array:
    """Whether a candidate's final count can still be the largest, bool (candidates,). Certain, for any order of images.

    Args:
        correct: images right so far (candidates,), those certified to stay right among them.
        undecided: images that are neither seen nor certified (candidates,).

    One that can only draw level is kept: ties are for the caller to break. Counts of a candidate that dropped out may
    stay as they were then.

    >>> can_win(np.array([5, 3, 2]), np.array([1, 2, 2])).tolist()
    [True, True, False]
    """
    found: Array = correct + undecided >= correct.max()
    return found


def unbeaten(
    correct: Array,
    images: int,
    *,
    delta: float,
    candidates: int,
    checks: int,
    by: Literal["sign", "bernstein"] = "sign",
) -> Array:
    """Whether a candidate may still be the best, bool (alive,); the best is lost with probability <= delta.

    Each is compared with the leader on the same images, which is why it pays: most decisions are the same. The best
    candidate can only be lost to one of `candidates - 1` others at one of `checks`, so each comparison may err with
    delta / (candidates checks). When all images are seen the answer is certain, and ties stay.

    Args:
        correct: bool (alive, seen): right so far? The images must come in an order drawn at random beforehand.
        images: how many there are in all.
        candidates: how many began.
        checks: how often the race asks, at numbers of images fixed beforehand.
        by: `sign`: of the images in which the two differ, is a majority so large likely if the candidate were as good?
            A sign test: drawn without replacement, the count is no more spread than the binomial (Hoeffding 1956).
            `bernstein`: does the mean difference exceed the `radius`?
    """
    if not 0 < delta < 0.25 or not 0 < len(correct) <= candidates or checks < 1 or not 0 < correct.shape[1] <= images:
        raise PrunescopeError(
            f"a race needs 0 < delta < 0.25, 1 to `candidates` rows, checks >= 1 and 0 < seen <= images; got "
            f"delta={delta}, {len(correct)} rows of {candidates}, {checks} checks, {correct.shape[1]} of {images}"
        )
    leader = correct[correct.sum(axis=1).argmax()]
    ahead, behind = (leader & ~correct).sum(axis=1), (~leader & correct).sum(axis=1)
    share, seen = delta / (candidates * checks), correct.shape[1]
    if seen == images:
        return ahead <= behind
    if by == "sign":
        found: Array = special.bdtr(behind, ahead + behind, 0.5) > share  # P(as few or fewer of the flips)
        return found
    mean = (ahead - behind) / seen
    return mean <= radius((ahead + behind) / seen - mean**2, seen, images, delta=share)


def radius(variance: Array, seen: int, images: int, *, delta: float, span: float = 2.0) -> Array:
    """How far a mean may lie above the one over all images, with probability 1 - delta, on `seen` drawn without
    replacement: the empirical Bernstein-Serfling bound (Bardenet and Maillard 2015, section 4). 0 when all are seen.

    Args:
        variance: of the values seen (divided by `seen`).
        span: largest less smallest possible value; 2 for differences of two decisions.
    """
    if seen == images:
        return np.zeros_like(variance, dtype=np.float64)
    unseen = 1 - (seen - 1) / images if seen <= images / 2 else (1 - seen / images) * (1 + 1 / seen)
    log = math.log(5 / delta)
    return np.sqrt(2 * unseen * log * variance / seen) + _KAPPA * span * log / seen
