"""Which concepts a class is sensitive to, layer by layer, beyond what random images would give (TCAV)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import comb
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import torch
from torch import nn

from prunescope.core.errors import PrunescopeError, choices
from prunescope.core.seeds import torch_generator
from prunescope.core.types import Array, Record
from prunescope.data.split import Dataset, Split
from prunescope.engine.sweep import Gatherer, sweep
from prunescope.metrics.unit_scores import known_mean
from prunescope.probes.base import Probe, Subject, measure, probe, probes
from prunescope.probes.concepts.threads import threads_for
from prunescope.probes.tcav.cavs import LayerVectors, layer_vectors
from prunescope.probes.tcav.concepts import few_examples, named_concepts, require_concepts
from prunescope.probes.tcav.examples import Dealt, deal, example_splits
from prunescope.probes.tcav.gather import Positions, activations, chosen_layers
from prunescope.probes.tcav.linear import AT_THESE_IMAGES, BY_STRUCTURE, linear_behind
from prunescope.probes.tcav.record import LayerScores, layer_scores, readable, stacked
from prunescope.probes.tcav.sensitivity import Sensitivities
from prunescope.probes.tcav.table import TcavTable

#: {metric: (title, unit, whether more is better; None when neither)}
FACTS: dict[str, tuple[str, str, bool | None]] = {
    "found": ("Concepts that classes are sensitive to for sure", "share of the class-concept pairs tested", None),
    "readable": ("Concepts that can be read, over layers", "share of concepts", True),
    "mean_auroc": ("How well TCAV's concept vectors read", "mean AUROC, held out", True),
    "chance_sd": ("Spread of TCAV scores of random vectors", "standard deviation of the share", None),
    "silent": ("Images whose class no activation moves", "share of test images, over layers", None),
    "refused": ("Layers where TCAV says nothing", "share of layers", None),
}
#: Images at which it is seen whether what lies behind a layer is linear.
_FEW = 16


@probes.register("tcav")
@dataclass(frozen=True)
class Tcav(Probe):
    """Testing with concept activation vectors (Kim et al. 2018), with random vectors and a test that holds.

    The score of a class and concept at a layer is the share of the class's test images whose own logit rises along the
    concept's vector; its strength is the mean cosine between gradient and vector, which also says how much. Vectors are
    fitted `repeats` times, on images that the repeats do not share, and `random` times on random images against random
    images. A two-sided Mann-Whitney test compares the two, Holm over all classes and concepts of a layer.

    Activations are averaged over positions, and gradients summed: the derivative for adding the vector at every
    position. With `positions: all` the maps are laid out in full, as in the paper: far more dimensions, fitted on as
    few images.

    A layer behind which everything is linear has a constant gradient, so that each score is 0 or 1: refused. One that
    is named is an error; one that was chosen here is NaN, with the reason in `info["refused"]`, and so is one that is
    linear only at the images at hand, as what heavy pruning leaves can be.

    One pass over the examples, one over the test images with one backward pass a batch; all vectors are fitted, and all
    gradients projected, at once. Memory does not grow with test images; fitting takes about 300 bytes for each example
    and vector (2,000 examples, 112 concepts and 10 repeats: 1 GB).

    Arrays (C, L, K) of classes, layers, concepts: `class.tcav` and its 95 % t interval over repeats `class.low`,
    `class.high`; `class.strength`; `class.p`, `class.p_holm`; `class.found` (1: speaks for the class for sure, -1:
    against it, 0: neither); `class.chance` and `class.chance_sd`, mean and spread of random vectors' scores.
    `class.images` (C,). `concept.auroc`, `concept.readable` (K, L). `concept.examples` (K,): positives per repeat.

    Attributes:
        layers: modules with outputs (B, C, h, w), (B, h, w, C), (B, T, C) or (B, C); none: the last of every stage.
        concepts: names; none: all. A named concept without enough examples is an error, others are NaN.
        repeats: vectors per concept.
        random: random vectors; at least as many as `repeats`, better three times as many.
        examples: positives, and as many negatives, of a vector at most.
        min_examples: at least.
        min_auroc: mean held-out AUROC that a concept's vectors need; others are NaN.
        images: labelled images used at most, and of held-out ones; about as many of every concept.
        statistic: what is tested: `strength`, or `share`, which piles up at 0 and 1 where gradients vary little.
        positions: `mean` or `all`.
        c: regularisations to choose from, as `C` of LinearSVC.
        alpha: level of the test.
    """

    layers: tuple[str, ...] = ()
    concepts: tuple[str, ...] = ()
    repeats: int = 10
    random: int = 30
    examples: int = 50
    min_examples: int = 3
    min_auroc: float = 0.7
    images: int = 2000
    statistic: Literal["strength", "share"] = "strength"
    positions: Positions = "mean"
    c: tuple[float, ...] = (0.001, 0.01, 0.1)
    alpha: float = 0.05

    distances: ClassVar[Mapping[str, str]] = {"class.tcav": "tcav", "class.found": "tcav_found"}
    needs_concepts: ClassVar[bool] = True
    summary: ClassVar[str] = "which concepts a class is sensitive to, against random ones (Kim et al. 2018)"

    def __post_init__(self) -> None:
        least = {"repeats": 3, "random": self.repeats, "min_examples": 2, "examples": self.min_examples, "images": 4}
        for name, value in least.items():
            if getattr(self, name) < value:
                raise PrunescopeError(f"tcav: {name} must be at least {value}, got {getattr(self, name)}")
        for name in ("min_auroc", "alpha"):
            if not 0 <= getattr(self, name) <= 1:
                raise PrunescopeError(f"tcav: {name} must be in [0, 1], got {getattr(self, name)}")
        if not self.c or min(self.c) <= 0:
            raise PrunescopeError(f"tcav: c must be one or more numbers above 0, got {self.c}")
        for name, allowed in (("statistic", ("strength", "share")), ("positions", get_args(Positions))):
            if getattr(self, name) not in allowed:
                raise choices(name, getattr(self, name), allowed, "tcav")

    def check(self, subject: Subject) -> None:
        layers, test = chosen_layers(subject.model, self.layers, subject.data.test), subject.data.test
        self._examples(subject)
        some = test.subset(torch.arange(min(_FEW, len(test))))
        activations(subject.model, {"some": some}, layers, self.positions, batch_size=_FEW, device=subject.device)
        self._require_layers(self._linear(subject, layers), list(layers))

    def start(self, subject: Subject) -> Gatherer:
        raise PrunescopeError("the tcav probe does not stream: call `measure`")

    def measure(self, subject: Subject, *, batch_size: int = 256) -> Record:
        layers = chosen_layers(subject.model, self.layers, subject.data.test)
        fit, held, dealt, few = self._examples(subject)
        assert held.concepts is not None
        found = activations(
            subject.model, {"fit": fit, "held": held}, layers, self.positions,
            batch_size=batch_size, device=subject.device,
        )  # fmt: skip
        vectors: dict[str, LayerVectors] = {}
        with torch.inference_mode(), threads_for(found.of("fit", next(iter(layers))).numel()):
            for layer in layers:
                x, y = found.of("fit", layer), found.of("held", layer)
                vectors[layer] = layer_vectors(x, y, dealt, held.concepts, self.c)
        test = subject.data.test
        sums = Sensitivities(layers, self.positions, vectors, len(test.classes), device=subject.device)
        sweep(subject.model, {"test": test}, [sums], batch_size=batch_size, device=subject.device)
        return self._record(subject.data, fit, dealt, sums, {"few": few, "refused": self._refused(subject, sums)})

    def _examples(self, subject: Subject) -> tuple[Split, Split, Dealt, dict[str, str]]:
        """Images to fit on and to judge by, how they are dealt out, and {concept: why it has too few}."""
        require_concepts(subject.data, "tcav")
        fit, held = (
            named_concepts(split, self.concepts, "tcav")
            for split in example_splits(subject.data, self.images, subject.seed)
        )
        assert fit.concepts is not None
        generator = torch_generator(subject.seed, "tcav", "deal")
        dealt = deal(fit.concepts, self.repeats, self.random, (self.min_examples, self.examples), generator)
        few = few_examples(fit, dealt.sizes, self.repeats, self.min_examples, named=bool(self.concepts))
        return fit, held, dealt, few

    def _linear(self, subject: Subject, layers: Iterable[str]) -> list[str]:
        """Those behind which everything is linear by structure."""
        _, x, _ = next(subject.data.test.batches(_FEW, subject.device))
        return [layer for layer in layers if linear_behind(subject.model, layer, x)]

    def _refused(self, subject: Subject, sums: Sensitivities) -> dict[str, str]:
        """{layer: why its scores mean nothing}."""
        constant = [layer for layer, found in sums.found.items() if found.degenerate]
        linear = self._linear(subject, constant)
        self._require_layers(linear, list(sums.found))
        return {layer: BY_STRUCTURE if layer in linear else AT_THESE_IMAGES for layer in constant}

    def _record(
        self, data: Dataset, fit: Split, dealt: Dealt, sums: Sensitivities, why: Mapping[str, dict[str, str]]
    ) -> Record:
        refused = why["refused"]
        scores: dict[str, LayerScores | None] = {
            layer: None if layer in refused else layer_scores(
                found, sums.vectors[layer], dealt, min_auroc=self.min_auroc, alpha=self.alpha, statistic=self.statistic
            )
            for layer, found in sums.found.items()
        }  # fmt: skip
        tables = stacked(scores, (len(data.classes), len(fit.concept_names)))
        aurocs = np.stack([vectors.auroc.numpy() for vectors in sums.vectors.values()], axis=1)
        seen = next(iter(sums.found.values()))
        silent = torch.stack([found.silent for found in sums.found.values()], 1).numpy()
        arrays: dict[str, Array] = {
            "class.tcav": tables.pop("share"), **{f"class.{name}": table for name, table in tables.items()},
            "class.images": seen.images.numpy(), "class.silent": silent, "concept.auroc": aurocs,
            "concept.readable": np.stack(
                [readable(v, self.min_auroc).numpy() for v in sums.vectors.values()], axis=1
            ),
            "concept.examples": dealt.sizes.numpy(),
        }  # fmt: skip
        metrics = {
            "found": known_mean(np.where(np.isfinite(arrays["class.found"]), arrays["class.found"] != 0, np.nan)),
            "readable": float(arrays["concept.readable"].mean()), "mean_auroc": known_mean(aurocs),
            "chance_sd": known_mean(arrays["class.chance_sd"]),
            "silent": float(silent.sum() / max(1, arrays["class.images"].sum() * silent.shape[1])),
            "refused": len(refused) / len(sums.found),
        }  # fmt: skip
        return Record("tcav", metrics, arrays, info=self._info(data, fit, sums, why))

    def _require_layers(self, linear: Sequence[str], layers: Sequence[str]) -> None:
        """Only the network's structure is an error: a ticket must not end a study that its dense network began."""
        named = [layer for layer in linear if layer in self.layers]
        if named:
            raise PrunescopeError(
                f"tcav: at layer {named[0]!r} {BY_STRUCTURE}; name a layer with a non-linearity behind it"
            )
        if len(linear) == len(layers):
            raise PrunescopeError(
                f"tcav: at every layer that ends a stage ({', '.join(layers)}) {BY_STRUCTURE}; name an earlier layer, "
                "such as a convolution in front of a ReLU"
            )

    def _info(
        self, data: Dataset, fit: Split, sums: Sensitivities, why: Mapping[str, dict[str, str]]
    ) -> dict[str, Any]:
        least, aurocs = 2 / comb(self.repeats + self.random, self.repeats), sums.vectors
        info: dict[str, Any] = {
            "layers": list(sums.found), "classes": list(data.classes), "refused": why["refused"],
            "concept_names": list(fit.concept_names), "concept_level": fit.concept_level, "few_examples": why["few"],
            "unread": {
                layer: [
                    name for name, fine in zip(fit.concept_names, readable(v, self.min_auroc).tolist(), strict=True)
                    if not fine
                ]
                for layer, v in aurocs.items()
            },
            "constant_classes": {
                layer: [data.classes[k] for k in found.constant.nonzero()[:, 0].tolist()]
                for layer, found in sums.found.items() if layer not in why["refused"] and found.constant.any()
            },
            "c": {layer: v.c for layer, v in aurocs.items()}, "positions": self.positions,
            "statistic": self.statistic, "alpha": self.alpha, "repeats": self.repeats, "random": self.random,
            "smallest_p": least, "test": "two-sided Mann-Whitney; Holm over the classes and concepts of a layer",
        }  # fmt: skip
        tests = len(data.classes) * len(fit.concept_names)
        if least * tests > self.alpha:
            info["warning"] = (
                f"With {self.repeats} repeats and {self.random} random vectors the smallest p is {least:.2g}: of "
                f"{tests} classes and concepts none can stand out. Take more of either."
            )
        return info


def tcav(
    model: nn.Module,
    data: Dataset,
    *,
    seed: int = 0,
    batch_size: int = 256,
    device: torch.device | str = "cpu",
    **options: Any,
) -> TcavTable:
    """Which concepts each class is sensitive to, layer by layer (Kim et al. 2018).

    Concept labels come from the data (`concepts` of the training split, or a bank); scores are of the test split.

    Args:
        options: of the probe `Tcav`: `layers`, `concepts`, `repeats`, `random`, `statistic` ...

    Raises:
        PrunescopeError: unknown option, layer or concept; no concept labels; a named concept without enough positives;
            a named layer behind which everything is linear.
    """
    wanted = {"tcav": probe("tcav", **options)}
    return TcavTable(measure(model, wanted, data, seed=seed, batch_size=batch_size, device=device)["tcav"])
