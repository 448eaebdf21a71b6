"""How alike two networks arrange the same images in a layer: linear CKA with the unbiased HSIC.

Of two layers' features of n images let K and L be the tables of inner products. HSIC measures how far images that are
near each other for the one network are so for the other, whatever the order, number or rotation of units. Its plain
estimator is biased upwards, so much that wide layers of unrelated networks look alike: here all sums run over images
that are different from each other (HSIC_1, Song et al. 2012, "Feature selection via dependence maximization", eq. 5).

CKA = HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)) (Kornblith et al. 2019; with HSIC_1: Nguyen et al. 2021).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from prunescope.core.errors import PrunescopeError
from prunescope.core.types import Array

#: Numbers in one block of rows of K: bounds memory at about 50 MB a table.
_BLOCK = 6_000_000
#: Below this share of the mean squared inner product, HSIC(K, K) is what rounding leaves of 0.
_ROUNDING = 1e-10


def cka(a: Array, b: Array, weights: Array | None = None) -> Array:
    """Unbiased linear CKA of every layer, features (N, L, W) twice -> (L,), or (draws, L) with weights; -1 to 1.

    1 where one network's features are the other's but for rotation, shift and scale; about 0 where they have nothing to
    do with each other. Widths may differ; columns of zeros, such as fill a narrow layer up, change nothing.

    Args:
        weights: (draws, N) counts of a bootstrap over images. Copies of an image are never held against each other, as
            an image is not against itself: U-statistics of the weighted images, which are those of the plain ones
            where all weights are 1.

    NaN for fewer than four different images and where either network gives all of them the same features.

    >>> x = np.random.default_rng(0).normal(size=(50, 1, 8))
    >>> cka(x, 3 * x[:, :, ::-1] + 1).round(6).tolist()
    [1.0]

    Raises:
        PrunescopeError: other numbers of images or layers.
    """
    if a.ndim != 3 or b.ndim != 3 or a.shape[:2] != b.shape[:2]:
        raise PrunescopeError(f"features must be (images, layers, units) of the same two, got {a.shape} and {b.shape}")
    rows = np.ones((1, len(a))) if weights is None else np.asarray(weights, dtype=np.float64)
    found = np.stack([_cka(a[:, layer], b[:, layer], rows) for layer in range(a.shape[1])], axis=1)
    return found[0] if weights is None else found


def _cka(x: Array, y: Array, weights: Array) -> Array:
    sums = _sums(_centred(x), _centred(y), weights)
    both, first, second = (_hsic(found, weights) for found in sums)
    for own, found in ((first, sums[1]), (second, sums[2])):
        with np.errstate(invalid="ignore", divide="ignore"):
            own[~(own > _ROUNDING * found.p11 / weights.sum(axis=1) ** 2)] = np.nan
    product: Array = np.sqrt(first) * np.sqrt(second)  # NaN of what is below 0 was set above
    return np.asarray(both / product)


def _centred(x: Array) -> Array:
    """HSIC_1 does not see a shift; without it less is lost to rounding."""
    x = x.astype(np.float64)
    shifted = x - x.mean(axis=0)
    shifted[:, np.ptp(x, axis=0) == 0] = 0
    return shifted


class _Sums(NamedTuple):
    """Of every draw of weights w, (draws,): k and l are K and L with zeros in the diagonal."""

    p11: Array  #: sum of w_i w_j k_ij l_ij
    p12: Array  #: sum of w_i w_j^2 k_ij l_ij
    p13: Array  #: sum of w_i w_j^3 k_ij l_ij
    p22: Array  #: sum of w_i^2 w_j^2 k_ij l_ij
    paths: Array  #: sum of w_i (k w)_i (l w)_i
    turns: Array  #: sum of w_i^2 (k w)_i (l w)_i
    ends: Array  #: sum of w_i ((k w^2)_i (l w)_i + (k w)_i (l w^2)_i)
    k: Array  #: sum of w_i w_j k_ij
    l: Array  #: the same of l


def _sums(x: Array, y: Array, weights: Array) -> tuple[_Sums, _Sums, _Sums]:
    """For (K, L), (K, K) and (L, L), a block of rows after the other."""
    w, n = weights.T, len(x)
    total = np.zeros((3, len(_Sums._fields), len(weights)))
    step = max(1, _BLOCK // n)
    for start in range(0, n, step):
        own = w[start : start + step]
        tables = [_without_diagonal(z[start : start + step] @ z.T, start) for z in (x, y)]
        linear, squared = ([table @ power for table in tables] for power in (w, w**2))
        for row, (one, two) in enumerate(((0, 1), (0, 0), (1, 1))):
            product = tables[one] * tables[two]
            once, twice, thrice = (product @ w**power for power in (1, 2, 3))
            joined, ends = linear[one] * linear[two], squared[one] * linear[two] + linear[one] * squared[two]
            terms = (
                own * once, own * twice, own * thrice, own**2 * twice, own * joined, own**2 * joined, own * ends,
                own * linear[one], own * linear[two],
            )  # fmt: skip
            total[row] += [term.sum(axis=0) for term in terms]
    first, second, third = (_Sums(*rows) for rows in total)
    return first, second, third


def _without_diagonal(block: Array, start: int) -> Array:
    rows = np.arange(len(block))
    block[rows, start + rows] = 0
    return block


def _hsic(s: _Sums, weights: Array) -> Array:
    """Mean of k_ij l_ij - 2 k_ij l_iq + k_ij l_qr over quadruples of different images, each weighing the product of its
    four weights; written out by inclusion and exclusion. NaN where there is no such quadruple.
    """
    p1, p2, p3, p4 = ((weights**power).sum(axis=1) for power in (1, 2, 3, 4))
    pairs = (p1**2 - p2) * s.p11 - 4 * p1 * s.p12 + 4 * s.p13 + 2 * s.p22
    triples = p1 * (s.paths - s.p12) - (s.turns - s.p22) - (s.ends - 2 * s.p13)
    quadruples = s.k * s.l - 4 * s.turns + 2 * s.p22
    mass = p1**4 - 6 * p1**2 * p2 + 3 * p2**2 + 8 * p1 * p3 - 6 * p4
    some = ((weights > 0).sum(axis=1) >= 4) & (mass > 0)
    return np.asarray((pairs - 2 * triples + quadruples) / np.where(some, mass, np.nan))
