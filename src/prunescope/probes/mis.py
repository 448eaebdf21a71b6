"""Units a person could read: the machine interpretability score (MIS) of every unit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from prunescope.core.configure import canonical
from prunescope.core.errors import PrunescopeError
from prunescope.core.types import Record
from prunescope.data.split import NAMES
from prunescope.engine.embedding.base import Embedding, embed, embedding_of
from prunescope.engine.embedding.encoder import Encoder
from prunescope.engine.extremes import ExtremesGatherer
from prunescope.engine.mis import UnitScores, tasks_of, unit_scores
from prunescope.engine.sweep import Gatherer, Needs, Pass
from prunescope.engine.units import KINDS, Kind, unit_layers
from prunescope.metrics.importances import order
from prunescope.metrics.mis import SPREAD
from prunescope.probes.base import Probe, Subject, probes


@probes.register("mis")
@dataclass(frozen=True)
class Mis(Probe):
    """The machine interpretability score of every unit, by two judges of what looks alike.

    Metrics: `units`; `dead`, the share of them that no image changes, and `tied`, for which chance chose among images
    of equal activation: neither is scored; `accuracy`, the share of right tasks, and `mis`: means over layers of layer
    means; `mis_conv`, `mis_linear` and `mis_norm` the same of these layers; `mis_second`, by the second judge, and
    `agreement`, Spearman's correlation of both over units; `logit_sd` of all tasks of scored units.

    Arrays, a row per unit (`info["layers"]` tells whose), NaN where not scored: `unit.mis`, `unit.accuracy`,
    `unit.second`; `unit.dead`, `unit.tied`. A row per layer, a column per unit of the widest: `layer.mis` and
    `layer.accuracy`, which drift compares: the change of layer means, the distance of distributions and, between
    networks of one start, the change of the units that are scored in both.

    Attributes:
        layers, kinds: see `engine.units.unit_layers`; none: all convolutions, linear layers and norms.
        split: which images.
        similarity: the judge, an embedding (`engine.embedding`): its name, or a mapping with `name` and options.
        second: another, or None.
        tasks, references: of each unit; fewer tasks on small splits.
        alpha: 0: from embedding and split (`metrics.mis.chance_alpha`), the same for all networks.
    """

    layers: tuple[str, ...] = ()
    kinds: tuple[Kind, ...] = KINDS
    split: str = "train"
    similarity: Any = Encoder()  # noqa: RUF009 (frozen)
    second: Any = Encoder(kernel=5, seed=1)  # noqa: RUF009
    tasks: int = 20
    references: int = 9
    alpha: float = 0.0

    distances: ClassVar[Mapping[str, str]] = {"layer.accuracy": "unit_scores", "layer.mis": "unit_scores"}
    summary: ClassVar[str] = "how well extreme images tell what a unit answers to (MIS), for every unit"

    def __post_init__(self) -> None:
        object.__setattr__(self, "similarity", embedding_of(self.similarity, "mis.similarity"))
        if self.second is not None:
            object.__setattr__(self, "second", embedding_of(self.second, "mis.second"))
        if self.split not in NAMES:
            raise PrunescopeError(f"mis: split must be one of {', '.join(NAMES)}, got {self.split!r}")
        if not self.alpha >= 0:
            raise PrunescopeError(f"mis: alpha must be 0 (from the embedding) or more, got {self.alpha}")
        tasks_of(2 * (self.references + 1), self.tasks, self.references)

    def start(self, subject: Subject) -> Gatherer:
        return _MisGatherer(self, subject)


class _MisGatherer:
    """Finds the extremes while the sweep runs, then draws tasks."""

    def __init__(self, options: Mis, subject: Subject) -> None:
        self.options, self.subject, self.split = options, subject, subject.data[options.split]
        number = tasks_of(len(self.split), options.tasks, options.references)
        self.kinds = unit_layers(subject.model, options.layers, options.kinds)
        names = [f"{name}:pooled" for name in self.kinds]
        # The seed is one for all networks: units that pick the same images have the same tasks.
        self.extremes = ExtremesGatherer(names, number * (options.references + 1), split=options.split, seed=0)

    @property
    def needs(self) -> Needs:
        return self.extremes.needs

    def update(self, batch: Pass) -> None:
        self.extremes.update(batch)

    def finish(self) -> Record:
        self.extremes.finish()
        first = self._scores(self.options.similarity)
        second = None if self.options.second is None else self._scores(self.options.second)
        arrays = {
            "unit.mis": first.mis, "unit.accuracy": first.accuracy, "unit.dead": first.constant,
            "unit.tied": first.tied, "layer.mis": first.table(first.mis), "layer.accuracy": first.table(first.accuracy),
        }  # fmt: skip
        if second is not None:
            arrays["unit.second"] = second.mis
        return Record("mis", self._metrics(first, second), arrays, info=self._info(first))

    def _scores(self, judge: Embedding) -> UnitScores:
        vectors = embed(judge, self.split, device=self.subject.device)
        options = self.options
        return unit_scores(self.extremes.found, vectors, references=options.references, alpha=options.alpha)

    def _metrics(self, first: UnitScores, second: UnitScores | None) -> dict[str, float]:
        kinds = np.repeat(list(self.kinds.values()), list(first.layers.values()))
        scored = first.scored
        metrics = {
            "units": len(kinds), "dead": float(first.constant.mean()), "tied": float(first.tied.mean()),
            "accuracy": first.mean(first.accuracy), "mis": first.mean(first.mis),
            **{f"mis_{kind}": first.mean(np.where(kinds == kind, first.mis, np.nan)) for kind in self.options.kinds},
            "logit_sd": float((first.alpha * first.margin[scored]).std()) if scored.any() else float("nan"),
        }  # fmt: skip
        if second is not None:
            metrics |= {
                "mis_second": second.mean(second.mis),
                "agreement": float(order(first.mis[None], second.mis[None])[0]),
            }
        return metrics

    def _info(self, found: UnitScores) -> dict[str, Any]:
        options, number = self.options, found.margin.shape[1]
        return {
            "layers": dict(found.layers), "kinds": dict(self.kinds), "split": options.split, "images": found.images,
            "tasks": number, "references": found.references, "alpha": found.alpha, "spread": SPREAD,
            "share_a_side": number * (found.references + 1) / found.images,
            "similarity": canonical(options.similarity), "second": canonical(options.second),
        }  # fmt: skip
