"""What units detect: Network Dissection of every layer, with what chance gives beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from prunescope.core.errors import PrunescopeError
from prunescope.core.types import Record
from prunescope.data.split import NAMES
from prunescope.engine.detectors import Dissection, Question
from prunescope.engine.dissection import At, DissectionGatherer, unit_places
from prunescope.engine.sweep import Gatherer, Needs, Pass
from prunescope.probes.base import Probe, Subject, probes

#: {metric: (title, unit, whether more is better; None when neither)}
FACTS: dict[str, tuple[str, str, bool | None]] = {
    "detectors": ("Units that detect a concept", "share of scored units", None),
    "beyond": ("Units that detect a concept beyond chance", "share of scored units", None),
    "detectors_by_chance": ("Units that would by chance", "share of scored units", None),
    "unique": ("Concepts that are detected", "concepts", None),
    "unique_beyond": ("Concepts that are detected beyond chance", "concepts", None),
    "iou": ("Overlap of units with their best concept", "IoU, mean of layer means", None),
    "chance": ("Overlap that 95 % stay below by chance", "IoU", None),
    "dead": ("Units that no image changes", "share of all units", None),
    "tied": ("Living units without a threshold", "share of all units", None),
}


@probes.register("dissection")
@dataclass(frozen=True)
class Dissect(Probe):
    """Which concepts units detect (Bau et al. 2017), on data with labels of pixels.

    Metrics: shares of the scored units: `detectors`, whose best overlap is above the threshold; `beyond`, those of them
    that overlap more than with the labels of other images in any draw; `detectors_by_chance`. `unique`,
    `unique_beyond`: how many concepts they detect. `iou`: mean over layers of the mean best overlap. `chance`: the
    overlap that 95 % of units and draws stay below. `dead`, `tied`: shares of all units, which are not scored.

    Arrays, a row per unit (`info["layers"]` tells whose), NaN or -1 where not scored: `unit.iou` and `unit.concept` of
    the best concept (`info["concepts"]`), `unit.p`, `unit.detector`, `unit.beyond`, `unit.dead`, `unit.tied`,
    `unit.cutoff`. A row per layer, a column per unit of the widest: `layer.iou`, and `layer.concept` of the detectors,
    which drift compares: means, distributions, which concepts are detected and, between networks of one start, whether
    a unit still detects the same.

    Attributes:
        layers, at: see `engine.dissection.unit_places`.
        quantile, threshold, draws, memory: see `engine.dissection.Question`.
        split: which images.
    """

    layers: tuple[str, ...] = ()
    at: At = "convolutions"
    quantile: float = 0.005
    threshold: float = 0.04
    draws: int = 20
    split: str = "test"
    memory: int = 1 << 29

    distances: ClassVar[Mapping[str, str]] = {"layer.iou": "unit_scores", "layer.concept": "unit_concepts"}
    summary: ClassVar[str] = "which concepts units detect (Network Dissection), on data with labels of pixels"

    def __post_init__(self) -> None:
        if self.split not in NAMES:
            raise PrunescopeError(f"dissection: split must be one of {', '.join(NAMES)}, got {self.split!r}")
        self.question()

    def question(self) -> Question:
        """The same for all networks: draws, too."""
        return Question(self.quantile, self.threshold, self.draws, 0, self.memory)

    def start(self, subject: Subject) -> Gatherer:
        split = subject.data[self.split]
        return _Gatherer(
            self,
            DissectionGatherer(
                subject.model, split, unit_places(subject.model, split, self.layers, self.at), self.question(),
                self.split,
            ),
        )  # fmt: skip


@dataclass(eq=False)
class _Gatherer:
    options: Dissect
    within: DissectionGatherer

    @property
    def needs(self) -> Needs:
        return self.within.needs

    def update(self, batch: Pass) -> None:
        self.within.update(batch)

    def finish(self) -> Record:
        self.within.finish()
        found = self.within.found
        arrays = {
            "unit.iou": found.best, "unit.concept": found.concept, "unit.p": found.p, "unit.detector": found.detector,
            "unit.beyond": found.beyond, "unit.dead": found.dead, "unit.tied": found.tied, "unit.cutoff": found.cutoffs,
            "layer.iou": found.table(found.best),
            "layer.concept": found.table(np.where(found.detector, found.concept, np.nan)),
        }  # fmt: skip
        return Record("dissection", _metrics(found), arrays, info=self._info(found))

    def _info(self, found: Dissection) -> dict[str, Any]:
        return {
            "layers": dict(found.layers), "at": self.options.at, "split": self.options.split, "images": found.images,
            "concepts": list(found.names), "categories": list(found.categories), "area": found.area.tolist(),
            "absent": list(found.absent), "out_of_reach": list(found.out_of_reach), "passes": found.passes,
            "quantile": found.question.quantile, "threshold": found.question.threshold, "draws": found.question.draws,
        }  # fmt: skip


def _metrics(found: Dissection) -> dict[str, float]:
    scored = int(found.scored.sum())

    def share(count: float) -> float:
        return count / scored if scored else float("nan")

    return {
        "units": len(found.dead), "detectors": share(found.detector.sum()), "beyond": share(found.beyond.sum()),
        "detectors_by_chance": share(found.detectors_by_chance), "unique": len(found.detected(found.detector)),
        "unique_beyond": len(found.detected(found.beyond)), "iou": found.mean(found.best), "chance": found.chance_level,
        "dead": float(found.dead.mean()), "tied": float(found.tied.mean()),
    }  # fmt: skip
