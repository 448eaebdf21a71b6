"""The machine interpretability score (MIS) of every unit of a network: what `metrics.mis` computes, from images on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import nn

from prunescope.core.errors import PrunescopeError
from prunescope.core.types import Array
from prunescope.data.split import Split
from prunescope.engine.embedding.base import Embedding, embed, embedding_of
from prunescope.engine.extremes import Extremes, ExtremesGatherer
from prunescope.engine.sweep import sweep
from prunescope.engine.units import KINDS, Kind, Pool, unit_layers
from prunescope.metrics.mis import Tasks, alpha_for_spread, chance_alpha, draw_tasks, margins, score, task_accuracy
from prunescope.metrics.unit_scores import by_layer, known_mean, row_means

#: Tasks of a unit (N) where nothing else is asked for and the images suffice.
TASKS = 20
#: Units whose activation ranges over less than this, or this share of its size, are constant.
_ABSOLUTE, _RELATIVE = 1e-8, 1e-6


@dataclass(frozen=True, eq=False)
class UnitTasks:
    """The tasks of every unit of some layers; they do not depend on who judges.

    Attributes:
        layers: {layer: how many units}, in the order of the rows.
        tasks: of every unit, also of dead ones, of which they say nothing.
        constant: bool (U,), units that no image changes. Their tasks would tell what is first in the split.
        tied: bool (U,), units that are not constant, of which chance chose among images of equal activation.
        images: how many there were to choose from.
    """

    layers: Mapping[str, int]
    tasks: Tasks
    constant: Array
    tied: Array
    images: int

    @property
    def dead(self) -> Array:
        """Bool (U,): constant or tied, and so without a score."""
        return self.constant | self.tied

    @property
    def scored(self) -> Array:
        """Bool (U,): neither constant nor tied."""
        return ~self.dead

    @property
    def references(self) -> int:
        """Images a side of each task besides the query (K)."""
        return self.tasks.shape[2]

    def table(self, values: Array) -> Array:
        """A value of every unit (U,) as (layers, units of the widest), NaN behind the end of the narrower."""
        return by_layer(values, self.layers)

    def mean(self, values: Array) -> float:
        """The mean over layers of their means over scored units: pruning units gives no layer more weight."""
        return known_mean(row_means(self.table(values)))


@dataclass(frozen=True, eq=False)
class UnitScores(UnitTasks):
    """MIS of every unit of some layers: `UnitTasks`, judged.

    Attributes:
        margin: float64 (U, N), of every task; NaN for units that were not scored.
        alpha: of `score`.
    """

    margin: Array
    alpha: float

    @cached_property
    def accuracy(self) -> Array:
        """(U,), share of right tasks, which knows no alpha; NaN for units that were not scored."""
        return np.where(self.scored, task_accuracy(self.margin), np.nan)

    @cached_property
    def mis(self) -> Array:
        """(U,), NaN for units that were not scored; 0.5 is chance."""
        return np.where(self.scored, score(self.margin, self.alpha), np.nan)


def mis(
    model: nn.Module,
    split: Split,
    similarity: Embedding | Array | str | Mapping[str, Any] = "encoder",
    *,
    layers: Sequence[str] = (),
    kinds: Sequence[Kind] = KINDS,
    pool: Pool = "mean",
    tasks: int = 0,
    references: int = 9,
    alpha: float = 0.0,
    seed: int = 0,
    batch_size: int = 256,
    device: torch.device | str = "cpu",
    on_batch: Callable[[int], None] | None = None,
) -> UnitScores:
    """How well each unit's most and least activating images tell which way others drive it (Zimmermann et al. 2024).

    A unit's activation on an image is what its layer gives, before any ReLU behind it, averaged over positions. A
    score says that extreme images look alike, not that the unit matters or that the network is right.

    Args:
        split: the images to choose from; the paper takes the training images.
        similarity: who judges what looks alike: an embedding, its name with or without options, or vectors (N, d).
        layers, kinds: see `engine.units.unit_layers`.
        pool: how positions become one number; the paper takes the mean.
        tasks: of each unit (N), which needs 2 N (K + 1) images; 0: 20, or as many as a small split allows.
        references: images a side of each task (K). How extreme they are depends on N, K and the split: compare
            scores on equal ones only.
        alpha: 0: fitted to this network (`fitted_alpha`). To compare networks, fit it on the dense one and give its
            `UnitScores.alpha` for all others.
        seed: of ties and tasks.

    Raises:
        PrunescopeError: a split that is too small, or what `unit_layers`, `embed` and `extremes` refuse.
    """
    number = tasks_of(len(split), tasks, references)
    names = [f"{name}:{pool}" for name in unit_layers(model, layers, kinds)]
    gatherer = ExtremesGatherer(names, number * (references + 1), "mean", "images", seed)
    vectors = _vectors(similarity, split, batch_size, device)
    sweep(model, {"images": split}, [gatherer], batch_size=batch_size, device=device, on_batch=on_batch)
    return judged(drawn_units(gatherer.found, len(split), references=references, seed=seed), vectors, alpha)


def tasks_of(images: int, tasks: int, references: int) -> int:
    """How many tasks a unit gets: as asked for; 0: 20, or as many as leave the two ends of all images apart.

    >>> tasks_of(50_000, 0, 9), tasks_of(96, 0, 9), tasks_of(96, 3, 9)
    (20, 4, 3)

    Raises:
        PrunescopeError: there are too few images for so many, or for one.
    """
    if tasks < 0 or references < 1:
        raise PrunescopeError(
            f"mis: tasks must be 0 (as many as fit, up to {TASKS}) or more and references at least 1, "
            f"got {tasks} and {references}"
        )
    each, wanted = 2 * (references + 1), max(tasks, 1)
    if images < each * wanted:
        raise PrunescopeError(
            f"mis: {wanted} tasks (N) of {references} references a side (K) need 2 N (K + 1) = {each * wanted} images, "
            f"the split has {images}{_what_fits(images, each, references)}"
        )
    return tasks or min(TASKS, images // each)


def _what_fits(images: int, each: int, references: int) -> str:
    if images >= each:
        return f"; enough for N = {images // each} with K = {references}"
    return f"; enough for N = 1 with K = {images // 2 - 1}" if images >= 4 else ""


def _vectors(
    similarity: Embedding | Array | str | Mapping[str, Any], split: Split, batch_size: int, device: torch.device | str
) -> Array:
    if not isinstance(similarity, np.ndarray):
        return embed(embedding_of(similarity, "mis: similarity"), split, batch_size=batch_size, device=device)
    if similarity.ndim != 2 or len(similarity) != len(split):
        raise PrunescopeError(f"mis: expected vectors ({len(split)}, d), one per image, got {similarity.shape}")
    return similarity


def drawn_units(found: Mapping[str, Extremes], images: int, *, references: int, seed: int = 0) -> UnitTasks:
    """The tasks of units whose extreme images are known.

    Args:
        found: {layer: its extremes}, of tasks x (references + 1) images a side; what stands behind a colon in a
            layer's name is left off.
        images: in the split.
    """
    top, bottom = (np.concatenate([getattr(item, end).images for item in found.values()]) for end in ("top", "bottom"))
    high, low = (
        np.concatenate([getattr(item, end).values[:, 0] for item in found.values()]).astype(np.float64)
        for end in ("top", "bottom")
    )
    constant = high - low <= _ABSOLUTE + _RELATIVE * np.maximum(np.abs(high), np.abs(low))
    tied = np.concatenate([item.tied for item in found.values()]) & ~constant
    tasks = draw_tasks(top, bottom, top.shape[1] // (references + 1), seed=seed)
    layers = {name.partition(":")[0]: len(item.dead) for name, item in found.items()}
    return UnitTasks(layers, tasks, constant, tied, images)


def judged(units: UnitTasks, vectors: Array, alpha: float = 0.0) -> UnitScores:
    """The scores of units whose tasks are known, by vectors (images, d).

    Args:
        alpha: 0: `fitted_alpha`.
    """
    margin = np.full(units.tasks.shape[:2], np.nan)
    kept = units.scored
    margin[kept] = margins(Tasks(units.tasks.up[kept], units.tasks.down[kept]), vectors)
    return UnitScores(
        units.layers, units.tasks, units.constant, units.tied, units.images, margin,
        alpha or fitted_alpha(margin[kept], vectors, units.references),
    )  # fmt: skip


def fitted_alpha(margin: Array, vectors: Array, references: int) -> float:
    """The alpha at which the logits of all tasks (U, N) of a network's scored units have the standard deviation
    `metrics.mis.SPREAD`. Of a network without such units it is that of tasks of random images."""
    if margin.size and np.ptp(margin) > 0:
        return alpha_for_spread(margin)
    return chance_alpha(vectors, tasks=margin.shape[1], references=references)
