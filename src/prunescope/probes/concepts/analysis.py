"""Everything the probe computes from embeddings, each part when it is first asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from prunescope.core.seeds import torch_generator
from prunescope.data.split import NAMES
from prunescope.probes.base import Subject
from prunescope.probes.concepts.bottleneck import Bottleneck, Examples
from prunescope.probes.concepts.cav import Cavs, Scaling, auroc, fit_cavs
from prunescope.probes.concepts.completeness import Rebuilding
from prunescope.probes.concepts.controls import random_directions, shuffled_auroc
from prunescope.probes.concepts.embeddings import Embedded
from prunescope.probes.concepts.labelled import labelled, labelled_split
from prunescope.probes.concepts.residual import fit_residual
from prunescope.probes.concepts.svm import Table


@dataclass(frozen=True, eq=False)
class Analysis:
    """Of one network.

    Attributes:
        splits: embeddings of train, val, test, and of the concept bank if there is one.
        layer: where they come from.
        min_auroc, min_examples, grid, l1_ratio, target: as the options of the probe.
    """

    subject: Subject
    splits: Mapping[str, Embedded]
    layer: str
    min_auroc: float
    min_examples: int
    grid: tuple[float, ...]
    l1_ratio: float
    target: Literal["label", "prediction"]

    @cached_property
    def scaling(self) -> Scaling:
        return Scaling.of(self.splits["train"].x)

    @cached_property
    def z(self) -> dict[str, Tensor]:
        """Standardised embeddings of the splits that are classified."""
        return {name: self.scaling(self.splits[name].x) for name in NAMES}

    @cached_property
    def vectors(self) -> tuple[Cavs, Tensor]:
        """The concept vectors, and the AUROC of those fitted to shuffled labels."""
        taught = labelled(self.splits, self.subject.seed)
        assert taught.fit.concepts is not None
        assert taught.held.concepts is not None
        table = Table.of(self.scaling(taught.fit.x))
        held = (self.scaling(taught.held.x), taught.held.concepts)
        cavs = fit_cavs((table, taught.fit.concepts), held, grid=self.grid)
        return cavs, shuffled_auroc(table, taught.fit.concepts, held, cavs, self.subject.seed)

    @cached_property
    def good(self) -> Tensor:
        return self.vectors[0].good(self.min_auroc, self.min_examples)

    @cached_property
    def distances(self) -> dict[str, Tensor]:
        """Signed distances (N, K) to the concepts' hyperplanes."""
        return {name: self.vectors[0].distances(z) for name, z in self.z.items()}

    @cached_property
    def scores(self) -> Tensor:
        """Of the test images, in standard deviations of the training images."""
        train = self.distances["train"]
        return (self.distances["test"] - train.mean(0)) / train.std(0, correction=0).clamp_min(1e-12)

    @cached_property
    def directions(self) -> Tensor:
        """(K, D): scores are `directions @ e` of an embedding e, but for a constant; NaN: a concept has no vector."""
        features = self.splits["train"].x.shape[1]
        distances = self.vectors[0].distances(self.scaling(torch.eye(features + 1, features)))  # the last one is 0
        std = self.distances["train"].std(0, correction=0).clamp_min(1e-12)
        return ((distances[:-1] - distances[-1]) / std).T

    @cached_property
    def test_auroc(self) -> Tensor:
        """NaN where the test split has no labels of these concepts."""
        source, test = labelled_split(self.subject.data), self.subject.data.test
        if test.concepts is None or test.concept_names != source.concept_names:
            return torch.full((len(source.concept_names),), torch.nan, dtype=torch.float64)
        return auroc(self.distances["test"], test.concepts)

    @cached_property
    def bottleneck(self) -> Bottleneck | None:
        """On the good concepts; None when there is none."""
        if not self.good.any():
            return None
        return Bottleneck.of(self.examples({name: values[:, self.good] for name, values in self.distances.items()}))

    def examples(self, values: Mapping[str, Tensor]) -> Examples:
        train, val = ((values[name], self.answers(name)) for name in ("train", "val"))
        return Examples(train, val, len(self.subject.data.classes), self.l1_ratio)

    def answers(self, name: str) -> Tensor:
        """What the bottleneck is to say of a split's images."""
        return self.splits[name].labels if self.target == "label" else self.splits[name].predicted

    def accuracies(self) -> dict[str, float]:
        """How well the bottleneck classifies, alone, with the rest of the features, and without concepts."""
        names = ("bottleneck_accuracy", "bottleneck_h_accuracy", "fidelity", "nonzeros", "random_concept_accuracy")
        bottleneck = self.bottleneck
        if bottleneck is None:
            return dict.fromkeys(names, float("nan"))
        logits = {name: bottleneck.logits(values[:, self.good]) for name, values in self.distances.items()}
        train, val = ((self.z[name], self.answers(name), logits[name]) for name in ("train", "val"))
        rest = fit_residual(train, val)
        control, directions = random_directions(self.examples(self.z), int(self.good.sum()), self.subject.seed)
        test = self.splits["test"]
        own = logits["test"].argmax(1)
        found = (
            _share(own == test.labels),
            _share((logits["test"] + rest.logits(self.z["test"])).argmax(1) == test.labels),
            _share(own == test.predicted),
            float((bottleneck.head.weights != 0).sum()),
            _share(control.logits(self.z["test"] @ directions.T).argmax(1) == test.labels),
        )
        return dict(zip(names, found, strict=True))

    @cached_property
    def rebuilding(self) -> Rebuilding | None:
        return Rebuilding.of(self.subject.model, self.layer, self.splits, self.subject.seed)

    def completeness(self) -> dict[str, float]:
        """How much of the accuracy the good concepts' scores give back, and as many random directions' do."""
        names = ("completeness", "completeness_raw", "random_completeness")
        if self.rebuilding is None or not self.good.any():
            return dict.fromkeys(names, float("nan"))
        bounded, raw = self.rebuilding.completeness({n: values[:, self.good] for n, values in self.distances.items()})
        generator = torch_generator(self.subject.seed, "concepts", "completeness")
        directions = torch.randn(self.z["train"].shape[1], int(self.good.sum()), generator=generator).double()
        chance, _ = self.rebuilding.completeness({name: z @ directions for name, z in self.z.items()})
        return dict(zip(names, (bounded, raw, chance), strict=True))


def _share(hits: Tensor) -> float:
    return float(hits.double().mean())
