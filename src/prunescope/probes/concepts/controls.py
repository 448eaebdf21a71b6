"""What a bottleneck and its concept vectors would look like without any concept in them."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from prunescope.core.seeds import torch_generator
from prunescope.probes.concepts.bottleneck import Bottleneck, Examples
from prunescope.probes.concepts.cav import Cavs, auroc
from prunescope.probes.concepts.svm import Table, linear_svm


def random_directions(examples: Examples, count: int, seed: int) -> tuple[Bottleneck, Tensor]:
    """A bottleneck on `count` random directions instead of concepts, and the directions (count, D).

    Random projections keep much of what a network knows: concepts explain a class only as far as their bottleneck
    does better than this one.

    Args:
        examples: whose values are standardised embeddings (N, D).
    """
    generator = torch_generator(seed, "concepts", "random directions")
    dim = examples.train[0].shape[1]
    directions = torch.randn(count, dim, generator=generator, dtype=torch.float64) / dim**0.5
    (train, y), (val, y_val) = examples.train, examples.val
    projected = replace(examples, train=(train @ directions.T, y), val=(val @ directions.T, y_val))
    return Bottleneck.of(projected), directions


def shuffled_auroc(table: Table, labels: Tensor, held: tuple[Tensor, Tensor], cavs: Cavs, seed: int) -> Tensor:
    """Held-out AUROC (K,) of vectors fitted, as `cavs` were, to labels dealt to other images: 0.5 +- noise."""
    order = torch.randperm(len(labels), generator=torch_generator(seed, "concepts", "shuffled labels"))
    svm = linear_svm(table, labels[order], c=cavs.c)
    return auroc(replace(cavs, svm=svm).distances(held[0]), held[1])
