"""The machine interpretability score: how well a unit's most and least activating images tell which way others drive it
(Zimmermann, Klindt and Brendel 2024).

A task shows K images that drive the unit up and K that drive it down, and asks of two more which is which. With
similarity s (a dot product here) and a(q, E) its mean over E, the answer's margin is

    D = [a(q+, E+) - a(q+, E-)] - [a(q-, E+) - a(q-, E-)],

the answer is right where D > 0, and a person's chance to be right is modelled as 1 / (1 + exp(-alpha D)). The score is
its mean over the unit's tasks; 0.5 is chance. The margin is the same for any embedding that lies elsewhere, and for
s = -|q - e|^2 it is twice this one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.sparse import csr_array
from scipy.special import expit

from prunescope.core.errors import PrunescopeError
from prunescope.core.seeds import numpy_generator
from prunescope.core.types import Array

#: Standard deviation of alpha D over tasks, as the released scores of a dense GoogLeNet have it.
SPREAD = 2.2
_ROWS = 1 << 16  # tasks that are embedded at once


@dataclass(frozen=True, eq=False)
class Tasks:
    """N tasks for each of U units; positions of images. No image of a unit stands in two of its tasks.

    Attributes:
        up, down: (U, N, K + 1), the query first, then its K references.
    """

    up: Array
    down: Array

    @property
    def shape(self) -> tuple[int, int, int]:
        """(units, tasks, references a side)."""
        units, tasks, images = self.up.shape
        return units, tasks, images - 1


def draw_tasks(top: Array, bottom: Array, tasks: int, *, seed: int) -> Tasks:
    """Tasks of equal difficulty from each unit's most and least activating images.

    The images of a side are cut by rank into K + 1 bins of N images and shuffled inside each; task i takes the i-th
    image of every bin. The most extreme bin has the queries.

    Args:
        top, bottom: positions (U, N (K + 1)), the most extreme first.
        tasks: N.
    """
    if top.shape != bottom.shape or top.ndim != 2 or tasks < 1 or top.shape[1] % tasks or top.shape[1] < 2 * tasks:
        raise PrunescopeError(
            f"tasks: expected two arrays (units, images) of a multiple of {tasks} images, at least twice as many, "
            f"got {top.shape} and {bottom.shape}"
        )
    generator = numpy_generator(seed, "mis tasks")
    return Tasks(*(_shuffled_bins(side, tasks, generator) for side in (top, bottom)))


def _shuffled_bins(ranked: Array, tasks: int, generator: np.random.Generator) -> Array:
    bins = ranked.reshape(len(ranked), -1, tasks)
    found: Array = generator.permuted(bins, axis=2).transpose(0, 2, 1)
    return found


def margins(tasks: Tasks, embedding: Array) -> Array:
    """The margin D of every task, float64 (U, N).

    Args:
        embedding: (images, d), rows whose dot product is the similarity.

    D is linear in both sides, so a task is one product: (q+ - q-) . (mean of E+ - mean of E-).
    """
    units, number, references = tasks.shape
    if embedding.ndim != 2:
        raise PrunescopeError(f"an embedding must be finite vectors (images, d), got {embedding.shape}")
    broken = np.flatnonzero(~np.isfinite(embedding).all(axis=1))
    if len(broken):
        raise PrunescopeError(
            f"the embedding is not finite for {len(broken)} of {len(embedding)} images, first for the one at "
            f"{broken[0]}"
        )
    rows = np.concatenate([tasks.up, tasks.down], axis=2).reshape(units * number, 2 * (references + 1))
    if rows.size and not 0 <= rows.min() <= rows.max() < len(embedding):
        raise PrunescopeError(f"tasks name images {rows.min()} to {rows.max()}, and {len(embedding)} are embedded")
    signs = np.repeat([1, -1], references)  # divided by K at the end: whole numbers, as of labels, stay exact
    queries, shown = rows[:, [0, references + 1]], np.delete(rows, [0, references + 1], axis=1)
    found = np.empty(len(rows))
    for start in range(0, len(rows), _ROWS):
        part = slice(start, start + _ROWS)
        asked = embedding[queries[part, 0]] - embedding[queries[part, 1]]
        found[part] = np.einsum("id,id->i", asked, _combined(shown[part], signs, embedding), dtype=np.float64)
    return found.reshape(units, number) / references


def _combined(rows: Array, signs: Array, embedding: Array) -> Array:
    """sum_j signs[j] embedding[rows[:, j]], without a copy of all those vectors."""
    ends = np.arange(0, rows.size + 1, rows.shape[1])
    repeated = np.tile(signs, len(rows)).astype(embedding.dtype)
    found: Array = csr_array((repeated, rows.ravel(), ends), shape=(len(rows), len(embedding))) @ embedding
    return found


def task_accuracy(margin: Array) -> Array:
    """Share of each unit's tasks that are answered rightly (U, N) -> (U,); a margin of 0 is a coin's toss: one half.

    Knows no alpha. 0.5 is chance.

    >>> task_accuracy(np.array([[0.2, -0.1, 0.0, 3.0]])).tolist()
    [0.625]
    """
    found: Array = ((margin > 0) + 0.5 * (margin == 0)).mean(axis=-1)
    return found


def score(margin: Array, alpha: float) -> Array:
    """MIS of every unit: the mean chance to be right (U, N) -> (U,), 0 to 1."""
    found: Array = expit(alpha * margin).mean(axis=-1)
    return found


def alpha_for_spread(margin: Array, spread: float = SPREAD) -> float:
    """The alpha at which the logits alpha D have this standard deviation over all tasks.

    Raises:
        PrunescopeError: the margins do not vary.
    """
    deviation = float(np.std(margin)) if margin.size else 0.0
    if not deviation > 0:
        raise PrunescopeError("alpha cannot be fitted: all tasks have the same margin; give alpha")
    return spread / deviation


def chance_alpha(
    embedding: Array, *, tasks: int, references: int, seed: int = 0, units: int = 500, spread: float = SPREAD
) -> float:
    """The alpha at which tasks of random images have logits of this standard deviation (and mean 0).

    It belongs to the embedding and the images, not to a network: so the scores of all networks have one scale.

    Args:
        units: how many units that pick images at random are simulated.
    """
    images = tasks * (references + 1)
    if 2 * images > len(embedding):
        raise PrunescopeError(f"{tasks} tasks of {references} references need {2 * images} images: {len(embedding)}")
    generator = numpy_generator(seed, "mis alpha")
    drawn = np.stack([generator.permutation(len(embedding))[: 2 * images] for _ in range(units)])
    chance = draw_tasks(drawn[:, :images], drawn[:, images:], tasks, seed=seed)
    return alpha_for_spread(margins(chance, embedding), spread)


def alpha_for_people(margin: Array, people: Array) -> float:
    """The alpha whose scores lie nearest (least squares) to people's share of right answers.

    Args:
        margin: (U, N).  people: (U,), 0 to 1; NaN for units that were not asked about.

    Raises:
        PrunescopeError: shapes that do not fit, fewer than two units, or shares outside 0 to 1.
    """
    known = np.isfinite(people)
    if people.shape != margin.shape[:1] or known.sum() < 2:
        raise PrunescopeError(f"people's scores must be one for each of {len(margin)} units, at least 2 known")
    if not ((people[known] >= 0) & (people[known] <= 1)).all():
        raise PrunescopeError("people's scores must be shares of right answers, 0 to 1")
    margin, people, unit = margin[known], people[known], alpha_for_spread(margin[known], 1.0)

    def error(power: float) -> float:
        return float(((score(margin, unit * np.exp(power)) - people) ** 2).sum())

    grid = np.linspace(-6, 6, 49)  # the error may have several valleys
    best = int(np.argmin([error(power) for power in grid]))
    ends = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    return float(unit * np.exp(minimize_scalar(error, bounds=ends, method="bounded", options={"xatol": 1e-6}).x))
