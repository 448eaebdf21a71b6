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
from prunescope.engine.units import KINDS, Kind, unit_layers
from prunescope.metrics.mis import Tasks, chance_alpha, draw_tasks, margins, score, task_accuracy
from prunescope.metrics.unit_scores import padded, row_means

#: Units whose activation ranges over less than this, or this share of its size, are constant.
_ABSOLUTE, _RELATIVE = 1e-8, 1e-6


@dataclass(frozen=True, eq=False)
class UnitScores:
    """MIS of every unit of some layers.

    Attributes:
        layers: {layer: how many units}, in the order of the rows.
        margin: float64 (U, N), of every task; NaN for units that were not scored.
        alpha: of `score`.
        constant: bool (U,), units that no image changes: dead ones. Their tasks would tell what is first in the split.
        tied: bool (U,), units that are not constant, of which chance chose among images of equal activation.
        references: images a side of each task.
        images: how many there were to choose from.
    """

    layers: Mapping[str, int]
    margin: Array
    alpha: float
    constant: Array
    tied: Array
    references: int
    images: int

    @cached_property
    def accuracy(self) -> Array:
        """(U,), share of right tasks, which knows no alpha; NaN for units that were not scored."""
        return np.where(self.scored, task_accuracy(self.margin), np.nan)

    @cached_property
    def mis(self) -> Array:
        """(U,), NaN for units that were not scored; 0.5 is chance."""
        return np.where(self.scored, score(self.margin, self.alpha), np.nan)

    @property
    def scored(self) -> Array:
        """Bool (U,): neither constant nor tied."""
        return ~(self.constant | self.tied)

    def table(self, values: Array) -> Array:
        """A value of every unit (U,) as (layers, units of the widest), NaN behind the end of the narrower."""
        return padded(np.split(values, np.cumsum(list(self.layers.values()))[:-1]))

    def mean(self, values: Array) -> float:
        """The mean over layers of their means over scored units: pruning units gives no layer more weight."""
        found = row_means(self.table(values))
        return float(found[np.isfinite(found)].mean()) if np.isfinite(found).any() else float("nan")


def mis(
    model: nn.Module,
    split: Split,
    similarity: Embedding | Array | str | Mapping[str, Any] = "encoder",
    *,
    layers: Sequence[str] = (),
    kinds: Sequence[Kind] = KINDS,
    tasks: int = 20,
    references: int = 9,
    alpha: float = 0.0,
    seed: int = 0,
    batch_size: int = 256,
    device: torch.device | str = "cpu",
    on_batch: Callable[[int], None] | None = None,
) -> UnitScores:
    """How well each unit's most and least activating images tell which way others drive it (Zimmermann et al. 2024).

    A unit's activation on an image is the mean over positions of what its layer gives, before any ReLU behind it. A
    score says that extreme images look alike, not that the unit matters or that the network is right.

    Args:
        split: the images to choose from; the paper takes the training images.
        similarity: who judges what looks alike: an embedding, its name with or without options, or vectors (N, d).
        layers, kinds: see `engine.units.unit_layers`.
        tasks, references: for each unit; fewer tasks on small splits (`tasks_of`). How extreme the images are depends
            on the split: compare scores on equal splits only.
        alpha: 0: `metrics.mis.chance_alpha`, which belongs to embedding and split, so it is the same for all networks.
        seed: of ties and tasks.

    Raises:
        PrunescopeError: a split that is too small, or what `unit_layers`, `embed` and `extremes` refuse.
    """
    number = tasks_of(len(split), tasks, references)
    names = [f"{name}:pooled" for name in unit_layers(model, layers, kinds)]
    gatherer = ExtremesGatherer(names, number * (references + 1), split="images", seed=seed)
    vectors = _vectors(similarity, split, batch_size, device)
    sweep(model, {"images": split}, [gatherer], batch_size=batch_size, device=device, on_batch=on_batch)
    return unit_scores(gatherer.found, vectors, references=references, alpha=alpha, seed=seed)


def tasks_of(images: int, tasks: int, references: int) -> int:
    """How many tasks a unit gets: as asked for, or as many as leave the two ends of all images apart.

    >>> tasks_of(50_000, 20, 9), tasks_of(96, 20, 9)
    (20, 4)

    Raises:
        PrunescopeError: not one.
    """
    if tasks < 1 or references < 1:
        raise PrunescopeError(f"mis: tasks and references must be at least 1, got {tasks} and {references}")
    if images < 2 * (references + 1):
        raise PrunescopeError(
            f"mis: a task of {references} references a side needs {2 * (references + 1)} images, the split has {images}"
        )
    return min(tasks, images // (2 * (references + 1)))


def _vectors(
    similarity: Embedding | Array | str | Mapping[str, Any], split: Split, batch_size: int, device: torch.device | str
) -> Array:
    if not isinstance(similarity, np.ndarray):
        return embed(embedding_of(similarity, "mis: similarity"), split, batch_size=batch_size, device=device)
    if similarity.ndim != 2 or len(similarity) != len(split):
        raise PrunescopeError(f"mis: expected vectors ({len(split)}, d), one per image, got {similarity.shape}")
    return similarity


def unit_scores(
    found: Mapping[str, Extremes], vectors: Array, *, references: int, alpha: float = 0.0, seed: int = 0
) -> UnitScores:
    """The scores of units whose extreme images are known.

    Args:
        found: {layer: its extremes}, of tasks x (references + 1) images a side.
        vectors: (images, d).
    """
    top, bottom = (np.concatenate([getattr(item, end).images for item in found.values()]) for end in ("top", "bottom"))
    number = top.shape[1] // (references + 1)
    high, low = (
        np.concatenate([getattr(item, end).values[:, 0] for item in found.values()]).astype(np.float64)
        for end in ("top", "bottom")
    )
    constant = high - low <= _ABSOLUTE + _RELATIVE * np.maximum(np.abs(high), np.abs(low))
    tied = np.concatenate([item.tied for item in found.values()]) & ~constant
    drawn = draw_tasks(top, bottom, number, seed=seed)
    kept = ~(constant | tied)
    margin = np.full((len(top), number), np.nan)
    margin[kept] = margins(Tasks(drawn.up[kept], drawn.down[kept]), vectors)
    alpha = alpha or chance_alpha(vectors, tasks=number, references=references)
    layers = {name.removesuffix(":pooled"): len(item.dead) for name, item in found.items()}
    return UnitScores(layers, margin, alpha, constant, tied, references, len(vectors))
