"""Concept activation vectors of one layer: of all concepts and repeats, and the random ones, by one fit."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from prunescope.probes.concepts.cav import fit_cavs
from prunescope.probes.tcav.examples import Dealt


@dataclass(frozen=True, eq=False)
class LayerVectors:
    """Vectors in the layer's own space.

    Attributes:
        directions: float32 (V, D), of length 1; 0 where there is none (nothing varies).
        auroc: (K,) of reading each concept from held-out images, mean over its repeats; NaN without vectors.
        c: the regularisation that was chosen.
    """

    directions: Tensor
    auroc: Tensor
    c: float


def layer_vectors(
    fit: Tensor, held: Tensor, dealt: Dealt, held_concepts: Tensor, grid: tuple[float, ...]
) -> LayerVectors:
    """Normals of the hyperplanes that linear SVMs put between positives and negatives.

    Features share one centre and one scale: rescaling each by its own spread would change what a normal means in the
    space that the gradient lives in.

    Args:
        fit, held: activations (N, D) of the dealt images and of others.
        held_concepts: labels (M, K) of the others.
        grid: values of C; the strongest whose mean held-out AUROC is within 0.005 of the best.
    """
    x = fit.double()
    mean = x.mean(0)
    spread = (x - mean).square().mean().sqrt()
    factor = 1 / spread if spread > 1e-12 * mean.abs().max().clamp_min(1e-12) else torch.zeros_like(spread)
    owner = dealt.concept
    asked = torch.where(owner >= 0, held_concepts[:, owner.clamp_min(0)], -1)
    found = fit_cavs(((x - mean) * factor, dealt.labels), ((held.double() - mean) * factor, asked), grid=grid)
    weights = found.svm.weights
    directions = weights / weights.norm(dim=1, keepdim=True).clamp_min(1e-300)
    auroc = torch.full((held_concepts.shape[1],), torch.nan, dtype=torch.float64)
    for concept in owner[owner >= 0].unique().tolist():
        auroc[concept] = found.auroc[dealt.vectors_of(concept)].mean()
    return LayerVectors(directions.float(), auroc, found.c)
