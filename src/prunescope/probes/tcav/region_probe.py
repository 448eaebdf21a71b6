"""Which concept regions the images of a class lie in, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from prunescope.core.errors import PrunescopeError
from prunescope.core.seeds import torch_generator
from prunescope.core.types import Array, Record
from prunescope.data.split import Split
from prunescope.engine.sweep import Gatherer, Needs, Pass, sweep
from prunescope.metrics.unit_scores import known_mean
from prunescope.probes.base import Probe, Subject, probes
from prunescope.probes.concepts.threads import threads_for
from prunescope.probes.tcav.concepts import few_examples, named_concepts, require_concepts
from prunescope.probes.tcav.examples import Dealt, deal, example_splits
from prunescope.probes.tcav.gather import Layers, activations, as_vectors, chosen_layers
from prunescope.probes.tcav.regions import Judged, Space, judged_regions

#: {metric: (title, unit, whether more is better; None when neither)}
FACTS: dict[str, tuple[str, str, bool | None]] = {
    "accuracy": ("How well concept regions hold", "mean balanced accuracy, held out", True),
    "linear_accuracy": ("The same for linear concept vectors", "mean balanced accuracy, held out", True),
    "readable": ("Concepts that have a region, over layers", "share of concepts", True),
    "better_than_shuffled": ("Concept regions better than with shuffled labels", "share of concepts, p < 0.05", True),
}


@probes.register("concept_regions")
@dataclass(frozen=True)
class ConceptRegions(Probe):
    """Concept activation regions (Crabbe and van der Schaar 2022), which need not be half spaces as linear vectors do.

    A Gaussian-kernel SVM of each concept on activations averaged over positions; `class.regions` is the share of a
    class's test images within the region (the paper's TCAR score). It says that the class's images have the concept as
    the layer sees it, not that the decision depends on it. It takes no gradient, so no layer is refused.

    Arrays: `class.regions` (C, L, K) of classes, layers, concepts, NaN for concepts below the gate and classes without
    images; `class.images` (C,); `concept.accuracy`, `concept.linear_accuracy` (balanced), `concept.auroc`, `concept.p`
    (against shuffled labels, corrected for the number of concepts) and `concept.readable`, all (K, L).

    Attributes:
        layers, concepts, images, min_auroc: as of the probe `tcav`.
        examples, min_examples: of each kind, at most and at least.
        gammas: widths to choose from, in units of the mean squared distance between examples.
        c: regularisations to choose from, as `C` of SVC.
        shuffles: refits on shuffled labels; 0: no test.
    """

    layers: tuple[str, ...] = ()
    concepts: tuple[str, ...] = ()
    examples: int = 200
    min_examples: int = 10
    min_auroc: float = 0.7
    images: int = 2000
    gammas: tuple[float, ...] = (0.5, 2.0, 8.0)
    c: tuple[float, ...] = (1.0, 10.0)
    shuffles: int = 20

    distances: ClassVar[Mapping[str, str]] = {"class.regions": "regions"}
    needs_concepts: ClassVar[bool] = True
    summary: ClassVar[str] = "share of a class's images within concept regions (Crabbe and van der Schaar 2022)"

    def __post_init__(self) -> None:
        for name, least in {"min_examples": 2, "examples": self.min_examples, "images": 4, "shuffles": 0}.items():
            if getattr(self, name) < least:
                raise PrunescopeError(f"concept_regions: {name} must be at least {least}, got {getattr(self, name)}")
        if not 0 <= self.min_auroc <= 1:
            raise PrunescopeError(f"concept_regions: min_auroc must be in [0, 1], got {self.min_auroc}")
        for name in ("gammas", "c"):
            if not getattr(self, name) or min(getattr(self, name)) <= 0:
                raise PrunescopeError(
                    f"concept_regions: {name} must be one or more numbers above 0, got {getattr(self, name)}"
                )

    def check(self, subject: Subject) -> None:
        chosen_layers(subject.model, self.layers, subject.data.test)
        self._examples(subject)

    def _examples(self, subject: Subject) -> tuple[Split, Split, Dealt, dict[str, str]]:
        """Images to fit on and to judge by, which of them are for which concept, and {concept: why it has too few}."""
        require_concepts(subject.data, self.name)
        fit, held = (
            named_concepts(split, self.concepts, self.name)
            for split in example_splits(subject.data, self.images, subject.seed)
        )
        assert fit.concepts is not None
        # One "repeat" of at most `examples` of each kind.
        generator = torch_generator(subject.seed, "regions", "deal")
        dealt = deal(fit.concepts, 1, 0, (self.min_examples, self.examples), generator)
        few = few_examples(fit, dealt.sizes, 1, self.min_examples, named=bool(self.concepts), where=self.name)
        return fit, held, dealt, few

    def start(self, subject: Subject) -> Gatherer:
        raise PrunescopeError("the concept_regions probe does not stream: call `measure`")

    def measure(self, subject: Subject, *, batch_size: int = 256) -> Record:
        layers = chosen_layers(subject.model, self.layers, subject.data.test)
        fit, held, dealt, few = self._examples(subject)
        assert fit.concepts is not None
        assert held.concepts is not None
        labels = torch.full_like(fit.concepts, -1)
        labels[:, dealt.concept] = dealt.labels
        found = activations(
            subject.model, {"fit": fit, "held": held}, layers, batch_size=batch_size, device=subject.device
        )
        within, judged = _Within(layers, len(subject.data.classes)), dict[str, Judged]()
        with torch.inference_mode(), threads_for(found.of("fit", next(iter(layers))).numel()):
            for layer in layers:
                x = found.of("fit", layer)
                within.spaces[layer] = space = Space.of(x)
                judged[layer] = judged_regions(
                    (space(x), labels), (space(found.of("held", layer)), held.concepts), gammas=self.gammas,
                    grid=self.c, shuffles=self.shuffles, generator=torch_generator(subject.seed, "regions", layer),
                )  # fmt: skip
        within.judged = judged
        sweep(subject.model, {"test": subject.data.test}, [within], batch_size=batch_size, device=subject.device)
        info = {
            "layers": list(layers), "classes": list(subject.data.classes), "concept_names": list(fit.concept_names),
            "concept_level": fit.concept_level, "few_examples": few, "refused": {},
            "gamma": {layer: item.regions.gamma for layer, item in judged.items()},
            "c": {layer: item.c for layer, item in judged.items()},
            "test": "refits on shuffled labels, best concept of each (Westfall and Young)",
        }  # fmt: skip
        return self._record(judged, within, info)

    def _record(self, judged: Mapping[str, Judged], within: _Within, info: Mapping[str, object]) -> Record:
        arrays: dict[str, Array] = {
            f"concept.{name}": np.stack([getattr(item, name).numpy() for item in judged.values()], axis=1)
            for name in ("accuracy", "linear_accuracy", "auroc", "p")
        }
        readable = arrays["concept.auroc"] >= self.min_auroc
        shares = np.stack([within.shares(layer).numpy() for layer in judged], axis=1)
        arrays |= {
            "concept.readable": readable, "class.images": within.images.numpy(),
            "class.regions": np.where(readable.T, shares, np.nan),
        }  # fmt: skip
        p = arrays["concept.p"]
        metrics = {
            "accuracy": known_mean(arrays["concept.accuracy"]),
            "linear_accuracy": known_mean(arrays["concept.linear_accuracy"]),
            "readable": float(readable.mean()),
            "better_than_shuffled": known_mean(np.where(np.isfinite(p), p < 0.05, np.nan)),
        }  # fmt: skip
        return Record(self.name, metrics, arrays, info=info)


class _Within:
    """The pass over the test images: how many of each class lie in each region."""

    def __init__(self, layers: Layers, classes: int) -> None:
        self.layers = layers
        self.spaces: dict[str, Space] = {}
        self.judged: Mapping[str, Judged] = {}
        self.images = torch.zeros(classes, dtype=torch.int64)
        self.counts: dict[str, Tensor] = {}

    @property
    def needs(self) -> Needs:
        return Needs(layers=tuple(self.judged))

    def update(self, batch: Pass) -> None:
        classes = torch.nn.functional.one_hot(batch.y.cpu(), len(self.images))
        self.images += classes.sum(0)
        for layer, item in self.judged.items():
            found = as_vectors(batch.activations[layer].detach(), layer, "mean", self.layers[layer])
            z = self.spaces[layer](found.float().cpu())
            inside = (item.regions.decisions(z) > 0).double()
            count = classes.double().T @ inside
            self.counts[layer] = self.counts[layer] + count if layer in self.counts else count

    def shares(self, layer: str) -> Tensor:
        """(C, K); NaN for a class without images."""
        return self.counts[layer] / self.images[:, None]

    def finish(self) -> Record:
        return Record("concept_regions")
