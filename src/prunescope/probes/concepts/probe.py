"""Which concepts a network's features hold, and which of them speak for its classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from prunescope.core.errors import PrunescopeError
from prunescope.core.seeds import torch_generator
from prunescope.core.types import Record
from prunescope.data.split import NAMES
from prunescope.engine.sweep import Needs, Pass
from prunescope.probes.base import Probe, Subject, probes
from prunescope.probes.concepts.analysis import Analysis
from prunescope.probes.concepts.embeddings import Embedded, Embeddings, embedding_layer
from prunescope.probes.concepts.labelled import labelled_split
from prunescope.probes.concepts.record import class_arrays, concept_arrays, stability
from prunescope.probes.concepts.threads import threads_for


@probes.register("concepts")
@dataclass(frozen=True)
class Concepts(Probe):
    """Concept vectors with their quality, a sparse concept bottleneck, and the top concepts of every class.

    After post-hoc concept bottleneck models (Yuksekgonul et al. 2023), with a quality gate, exact zeros, and controls.
    Vectors are fitted on the training split (or a concept bank), everything is chosen on validation images, and the
    test split is only ever looked at.

    `completeness` (Yeh et al. 2020) is the share of the network's accuracy above chance that its own head reaches on
    features rebuilt from the good concepts' scores, cut to [0, 1] (`completeness_raw`: as it is), beside that of as
    many random directions. NaN for a network at chance, and where features do not go straight into a last linear layer.

    Attributes:
        layer: module whose output is the embedding (maps are averaged over positions), or `NAME:input`; "" is what
            goes into the last linear layer.
        min_auroc: held-out AUROC that a concept needs to enter the bottleneck.
        min_examples: positives and negatives that it needs, each; of held-out ones a quarter of it.
        top: concepts listed per class.
        l1_ratio: share of the head's penalty that is L1.
        bootstrap: refits behind `class.top_frequency`.
        target: the bottleneck learns the `label`s, or the network's own `prediction`s.
        c: regularisations of the vectors to choose from, as `C` of LinearSVC.
        max_train: training images used, at most, drawn at random.
    """

    layer: str = ""
    min_auroc: float = 0.7
    min_examples: int = 20
    top: int = 5
    l1_ratio: float = 0.99
    bootstrap: int = 50
    target: Literal["label", "prediction"] = "label"
    c: tuple[float, ...] = (0.001, 0.01, 0.1)
    max_train: int = 20_000

    distances: ClassVar[Mapping[str, str]] = {"image.scores": "scores", "class.contributions": "rankings"}
    needs_concepts: ClassVar[bool] = True
    summary: ClassVar[str] = "concept vectors, sparse concept bottleneck, top concepts per class"

    def __post_init__(self) -> None:
        if not 0 <= self.min_auroc <= 1:
            raise PrunescopeError(f"concepts: min_auroc must be in [0, 1], got {self.min_auroc}")
        if not 0 < self.l1_ratio <= 1:
            raise PrunescopeError(f"concepts: l1_ratio must be in (0, 1], got {self.l1_ratio}")
        for name, least in (("min_examples", 1), ("top", 1), ("bootstrap", 0), ("max_train", 2)):
            if getattr(self, name) < least:
                raise PrunescopeError(f"concepts: {name} must be at least {least}, got {getattr(self, name)}")
        if not self.c or min(self.c) <= 0:
            raise PrunescopeError(f"concepts: c must be one or more numbers above 0, got {self.c}")

    def start(self, subject: Subject) -> _Gatherer:
        data = subject.data
        if labelled_split(data).concepts is None:
            raise PrunescopeError(f"concepts: data {data.name!r} has no concept labels")
        names = (*NAMES, *(("concepts",) if data.concept_bank is not None else ()))
        rows = {}
        if len(data.train) > self.max_train:
            generator = torch_generator(subject.seed, "concepts", "training images")
            rows["train"] = torch.randperm(len(data.train), generator=generator)[: self.max_train].sort().values
        layer = embedding_layer(subject.model, self.layer)
        return _Gatherer(self, subject, Embeddings(layer, {name: data[name] for name in names}, rows))


@dataclass(frozen=True, eq=False)
class _Gatherer:
    options: Concepts
    subject: Subject
    embeddings: Embeddings

    @property
    def needs(self) -> Needs:
        return self.embeddings.needs

    def update(self, batch: Pass) -> None:
        self.embeddings.update(batch)

    def finish(self) -> Record:
        splits = self.embeddings.collected()
        with torch.inference_mode(), threads_for(splits["train"].x.numel()):
            return self._record(splits)

    def _record(self, splits: Mapping[str, Embedded]) -> Record:
        options, seed, test = self.options, self.subject.seed, self.subject.data.test
        found = Analysis(
            self.subject, splits, layer=self.embeddings.layer, min_auroc=options.min_auroc,
            min_examples=options.min_examples, grid=options.c, l1_ratio=options.l1_ratio, target=options.target,
        )  # fmt: skip
        cavs, shuffled = found.vectors
        arrays = {
            "image.scores": found.scores.float().numpy(),
            "concept.directions": found.directions.float().numpy(),
            **concept_arrays(cavs, found.good, found.test_auroc, shuffled),
            **class_arrays(found.bottleneck, found.good, len(test.classes), count=options.top),
        }
        arrays["class.top_frequency"] = stability(
            found.bottleneck, found.good, arrays["class.top"], replicates=options.bootstrap, seed=seed
        )
        metrics = {
            "mean_auroc": _mean(cavs.auroc),
            "mean_test_auroc": _mean(found.test_auroc),
            "shuffled_auroc": _mean(shuffled),
            "good_share": float(found.good.double().mean()),
            **found.accuracies(),
            **found.completeness(),
        }
        return Record("concepts", metrics, arrays, test.ids, self._info(found))

    def _info(self, found: Analysis) -> dict[str, Any]:
        data, options, bottleneck = self.subject.data, self.options, found.bottleneck
        source, good = labelled_split(data), found.good.tolist()
        facts = {
            "concept_names": list(source.concept_names),
            "concept_level": source.concept_level,
            "concept_level_note": _LEVELS.get(source.concept_level, ""),
            "concept_source": "train" if data.concept_bank is None else "bank",
            "classes": list(data.classes),
            "layer": self.embeddings.layer,
            "target": options.target,
            "c": found.vectors[0].c,
            "penalty": None if bottleneck is None else bottleneck.head.penalty,
            "penalty_rule": "largest within one standard error of the best mean recall on validation images",
            "gate": {"min_auroc": options.min_auroc, "min_examples": options.min_examples},
            "training_images": len(found.splits["train"].x),
            "not_good": [n for n, fine in zip(source.concept_names, good, strict=True) if not fine],
        }
        if found.rebuilding is None:
            facts["no_completeness"] = (
                "Completeness needs the features that go into a last linear layer, which alone makes the decision."
            )
        if bottleneck is None:
            facts["warning"] = "No concept can be read from this network (quality gate), so it has no bottleneck."
        return facts


_LEVELS = {
    "image": "Concepts are labelled per image.",
    "class": "Concepts are labelled per class: a bottleneck on them can name the class whatever the network sees.",
}


def _mean(values: Tensor) -> float:
    return float(values.nanmean())
