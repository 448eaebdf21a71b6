"""A post-hoc concept bottleneck (Yuksekgonul, Wang & Zou 2023): embeddings to concept scores to classes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from prunescope.core.seeds import torch_generator
from prunescope.probes.concepts.elastic_net import ElasticNet
from prunescope.probes.concepts.head import Head, bootstrap_weights, fit_head

#: Numbers (replicates x images x classes) that the bootstrap refits at once.
_BLOCK = 40_000_000


@dataclass(frozen=True, eq=False)
class Examples:
    """What a bottleneck is fitted to: values (N, G) and classes (N,) of the training and of the validation split."""

    train: tuple[Tensor, Tensor]
    val: tuple[Tensor, Tensor]
    classes: int
    l1_ratio: float


@dataclass(frozen=True, eq=False)
class Bottleneck:
    """A sparse head on standardised values.

    Attributes:
        mean, std: of the G values on the training split.
        head: on the standardised values; its weights (C, G) are contributions: weight x standard deviation.
    """

    examples: Examples
    mean: Tensor
    std: Tensor

    @classmethod
    def of(cls, examples: Examples) -> Bottleneck:
        """A bottleneck fitted to the examples."""
        values = examples.train[0]
        return cls(examples, values.mean(0), values.std(0, correction=0).clamp_min(1e-12))

    @cached_property
    def problem(self) -> ElasticNet:
        """The head's fitting problem."""
        scores, labels = self.scores(self.examples.train[0]), self.examples.train[1]
        return ElasticNet(scores, labels, self.examples.classes, self.examples.l1_ratio)

    @cached_property
    def head(self) -> Head:
        """The sparse head: the largest penalty within one standard error of the best mean recall on validation images.

        Mean recall, because where most images are of one class an empty head is nearly as accurate as any.
        """
        return fit_head(self.problem, (self.scores(self.examples.val[0]), self.examples.val[1]), balanced=True)

    def scores(self, values: Tensor) -> Tensor:
        """Standardised values."""
        return (values - self.mean) / self.std

    def logits(self, values: Tensor) -> Tensor:
        """Class logits (N, C) from values (N, G)."""
        return self.head.logits(self.scores(values))

    def resampled(self, replicates: int, seed: int) -> Tensor:
        """Weights (replicates, C, G) of heads refitted, with the chosen penalty, on images drawn with replacement."""
        n = len(self.problem.x)
        generator = torch_generator(seed, "concepts", "bootstrap")
        draws = torch.randint(n, (replicates, n), generator=generator)
        counts = torch.zeros(replicates, n).scatter_add_(1, draws, torch.ones(replicates, n))
        size = max(1, _BLOCK // (n * self.examples.classes))
        return torch.cat([bootstrap_weights(self.problem, self.head, part) for part in counts.split(size)])
