"""Units a person could read: the machine interpretability score (MIS) of every unit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from prunescope.core.configure import canonical
from prunescope.core.errors import PrunescopeError, choices
from prunescope.core.seeds import numpy_generator
from prunescope.core.types import Array, Record
from prunescope.data.split import NAMES
from prunescope.engine.embedding.base import Embedding, embed, embedding_of
from prunescope.engine.embedding.encoder import Encoder, RandomNetwork
from prunescope.engine.embedding.plain import Colour, Label
from prunescope.engine.extremes import ExtremesGatherer
from prunescope.engine.mis import UnitScores, UnitTasks, drawn_units, judged, tasks_of
from prunescope.engine.shown_tasks import shown_tasks, some_layers
from prunescope.engine.sweep import Gatherer, Needs, Pass
from prunescope.engine.units import KINDS, Kind, Pool, unit_layers
from prunescope.metrics.importances import order
from prunescope.metrics.mis import SPREAD
from prunescope.probes.base import Probe, Subject, probes

#: {metric: (title, unit, whether more is better; None when neither)}
FACTS: dict[str, tuple[str, str, bool | None]] = {
    "accuracy": ("Units' tasks that the judge gets right", "share, mean over layers", None),
    "mis": ("Machine interpretability of units (MIS)", "mean over layers", None),
    "mis_conv": ("MIS, convolutions", "mean over layers", None),
    "mis_linear": ("MIS, linear layers", "mean over layers", None),
    "mis_norm": ("MIS, norms", "mean over layers", None),
    "accuracy_second": ("Units' tasks that the second judge gets right", "share, mean over layers", None),
    "mis_second": ("MIS by the second judge", "mean over layers", None),
    "agreement": ("Agreement of both judges over units", "Spearman's rho", None),
    "dead": ("Units that no image changes", "share of units", None),
    "tied": ("Units of which chance would choose images", "share of units", None),
    "logit_sd": ("Spread of the logits of MIS", "standard deviation", None),
    "accuracy_label": ("Units' tasks that class labels alone get right", "share, mean over layers", None),
    "accuracy_colour": ("Units' tasks that colours alone get right", "share, mean over layers", None),
    "accuracy_random": ("Units' tasks that an untrained network gets right", "share, mean over layers", None),
    "accuracy_permuted": ("Units' tasks that the judge gets right with images mixed up", "share, 0.5 by chance", None),
}


@probes.register("mis")
@dataclass(frozen=True)
class Mis(Probe):
    """The machine interpretability score of every unit, by two judges of what looks alike.

    Metrics: `units`; `dead`, the share of them that no image changes, and `tied`, for which chance chose among images
    of equal activation: neither is scored; `accuracy`, the share of right tasks, and `mis`: means over layers of layer
    means; `mis_conv`, `mis_linear` and `mis_norm` the same of these layers; `accuracy_second` and `mis_second`, by the
    second judge, and `agreement`, Spearman's correlation of both over units; `accuracy_NAME` by every control, and
    `accuracy_permuted` by the first judge when images are mixed up; `logit_sd` of all tasks of scored units.

    Arrays, a row per unit (`info["layers"]` tells whose), NaN where not scored: `unit.mis`, `unit.accuracy`,
    `unit.second`; `unit.dead`, `unit.tied`. A row per layer, a column per unit of the widest: `layer.mis` and
    `layer.accuracy`, which drift compares: the change of layer means, the distance of distributions and, between
    networks of one start, the change of the units that are scored in both. `game.*`: some tasks with pictures
    (`engine.shown_tasks`), and the margins of both judges, `game.margin` and `game.second`.

    Attributes:
        layers, kinds: see `engine.units.unit_layers`; none: all convolutions, linear layers and norms.
        pool: how positions become one number per image: `mean`, `max` or `centre`.
        split: which images.
        similarity: the judge, an embedding (`engine.embedding`): its name, or a mapping with `name` and options.
        second: another, or None.
        controls: embeddings that should tell less; only their share of right tasks is recorded.
        tasks, references: of each unit (N and K), see `engine.mis.mis`.
        alpha: 0: fitted for each judge on the dense network (in a study the one of the first seed), then the same for
            all networks.
        shown: layers of which three units' tasks are kept with small pictures, for the report's game; 0: no picture
            is kept.
    """

    layers: tuple[str, ...] = ()
    kinds: tuple[Kind, ...] = KINDS
    pool: Pool = "mean"
    split: str = "train"
    similarity: Any = Encoder()  # noqa: RUF009 (frozen)
    second: Any = Encoder(kernel=5, seed=1)  # noqa: RUF009
    controls: tuple[Any, ...] = (Label(), Colour(), RandomNetwork())
    tasks: int = 0
    references: int = 9
    alpha: float = 0.0
    shown: int = 3

    distances: ClassVar[Mapping[str, str]] = {"layer.accuracy": "unit_scores", "layer.mis": "unit_scores"}
    needs_dense: ClassVar[bool] = True
    summary: ClassVar[str] = "how well extreme images tell what a unit answers to (MIS), for every unit"

    def __post_init__(self) -> None:
        object.__setattr__(self, "similarity", embedding_of(self.similarity, "mis.similarity"))
        if self.second is not None:
            object.__setattr__(self, "second", embedding_of(self.second, "mis.second"))
        controls = tuple(embedding_of(item, f"mis.controls[{i}]") for i, item in enumerate(self.controls))
        if len({item.name for item in controls}) < len(controls):
            raise PrunescopeError("mis: two controls have the same name")
        object.__setattr__(self, "controls", controls)
        if self.split not in NAMES:
            raise choices("split", self.split, NAMES, "mis")
        if not self.alpha >= 0:
            raise PrunescopeError(f"mis: alpha must be 0 (fitted on the dense network) or more, got {self.alpha}")
        if self.shown < 0:
            raise PrunescopeError(f"mis: shown must be 0 (no pictures) or more layers, got {self.shown}")
        tasks_of(2 * (self.references + 1) * max(self.tasks, 1), self.tasks, self.references)

    @property
    def judges(self) -> tuple[Embedding, ...]:
        """All embeddings: the judge, the second one if there is one, and the controls."""
        return (self.similarity, *(() if self.second is None else (self.second,)), *self.controls)

    def check(self, subject: Subject) -> None:
        split = subject.data[self.split]
        tasks_of(len(split), self.tasks, self.references)
        unit_layers(subject.model, self.layers, self.kinds)
        for judge in self.judges:
            judge.check(split)

    def start(self, subject: Subject) -> Gatherer:
        self.check(subject)
        for judge in self.judges:  # a judge that cannot see is refused before the pass; what took work is kept
            embed(judge, subject.data[self.split], device=subject.device)
        return _MisGatherer(self, subject)


class _MisGatherer:
    """Finds the extremes while the sweep runs, then draws tasks and has them judged."""

    def __init__(self, options: Mis, subject: Subject) -> None:
        self.options, self.subject, self.split = options, subject, subject.data[options.split]
        number = tasks_of(len(self.split), options.tasks, options.references)
        self.kinds = unit_layers(subject.model, options.layers, options.kinds)
        names = [f"{name}:{options.pool}" for name in self.kinds]
        # The seed is one for all networks: units that pick the same images have the same tasks.
        self.extremes = ExtremesGatherer(names, number * (options.references + 1), "mean", options.split, seed=0)

    @property
    def needs(self) -> Needs:
        return self.extremes.needs

    def update(self, batch: Pass) -> None:
        self.extremes.update(batch)

    def finish(self) -> Record:
        self.extremes.finish()
        options = self.options
        units = drawn_units(self.extremes.found, len(self.split), references=options.references)
        self.extremes.found.clear()
        vectors = self._vectors(options.similarity)
        first = judged(units, vectors, self._alpha("alpha"))
        second = None if options.second is None else self._second(units)
        arrays = {
            "unit.mis": first.mis, "unit.accuracy": first.accuracy, "unit.dead": first.constant,
            "unit.tied": first.tied, "layer.mis": first.table(first.mis), "layer.accuracy": first.table(first.accuracy),
        }  # fmt: skip
        if second is not None:
            arrays["unit.second"] = second.mis
        metrics = self._metrics(first, second) | self._controls(units, vectors)
        return Record("mis", metrics, arrays | self._game(first, second), info=self._info(first, second))

    def _second(self, units: UnitTasks) -> UnitScores:
        return judged(units, self._vectors(self.options.second), self._alpha("alpha_second"))

    def _vectors(self, judge: Embedding) -> Array:
        return embed(judge, self.split, device=self.subject.device)

    def _alpha(self, name: str) -> float:
        """As given; or as it was fitted on the dense network; 0 where this is the dense network."""
        dense = self.subject.dense
        if self.options.alpha or dense is None:
            return self.options.alpha
        if "alpha_second" not in dense.info:
            raise PrunescopeError(
                "mis: the stored record of the dense network was made before alpha was fitted to it; remove its record "
                "(the cell of probe mis of the first dense network) and run again, or give alpha"
            )
        return float(dense.info[name])

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
                "accuracy_second": second.mean(second.accuracy), "mis_second": second.mean(second.mis),
                "agreement": float(order(first.mis[None], second.mis[None])[0]),
            }  # fmt: skip
        return metrics

    def _controls(self, units: UnitTasks, vectors: Array) -> dict[str, float]:
        """Shares of right tasks; they need no alpha."""
        judges = {f"accuracy_{item.name}": self._vectors(item) for item in self.options.controls}
        judges["accuracy_permuted"] = numpy_generator(0, "mis permuted").permutation(vectors)
        scores = {name: judged(units, found, alpha=1.0) for name, found in judges.items()}
        return {name: item.mean(item.accuracy) for name, item in scores.items()}

    def _game(self, first: UnitScores, second: UnitScores | None) -> dict[str, Array]:
        """Norms come last: their units are mostly those of the convolution before them."""
        among = [name for name, kind in self.kinds.items() if kind != "norm"] or list(self.kinds)
        layers = some_layers(first, self.options.shown, among)
        game = shown_tasks(first, first.mis, self.split, layers)
        if game:
            rows = game["game.unit"][:, None], game["game.task"]
            game["game.margin"] = first.margin[rows]
            if second is not None:
                game["game.second"] = second.margin[rows]
        return game

    def _info(self, found: UnitScores, second: UnitScores | None) -> dict[str, Any]:
        options, number = self.options, found.margin.shape[1]
        return {
            "layers": dict(found.layers), "kinds": dict(self.kinds), "pool": options.pool, "split": options.split,
            "images": found.images, "tasks": number, "references": found.references, "spread": SPREAD,
            "alpha": found.alpha, "alpha_second": None if second is None else second.alpha,
            "share_a_side": number * (found.references + 1) / found.images,
            "similarity": canonical(options.similarity), "second": canonical(options.second),
        }  # fmt: skip
