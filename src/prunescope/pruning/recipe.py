"""One way to prune, as one frozen value."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

from torch import nn

from prunescope.core.errors import PrunescopeError, choices
from prunescope.engine.distillation import Distillation
from prunescope.engine.training import Training
from prunescope.pruning.combinations import require_sense
from prunescope.pruning.criteria.magnitude import Magnitude
from prunescope.pruning.granularity import Granularity, Weights
from prunescope.pruning.regrow import Regrow
from prunescope.pruning.schedule import Rewind, Schedule
from prunescope.pruning.scope import Scope, read_scope
from prunescope.pruning.scoring import Criterion
from prunescope.pruning.target import TARGETS, Target


@dataclass(frozen=True)
class Recipe:
    """Criterion, scope, schedule, rewinding and retraining. Hashable: two equal recipes are one.

    Attributes:
        name: for people, and in the report's legends.
        scope: `global`: all weights compete; `layer`: every layer is cut to the same density; `erk` and `uniform+`:
            to its own, as a `Table` says or as `Sensitivity` measures (`prunescope.pruning.scope`).
        granularity: what is cut at once: weights, filters ...; densities are shares of these.
        training: how each round retrains; None: as the dense network was trained.
        epochs_per_round: of the retraining after each cut, `(2, 2, 10)`; none: those of the training, every time.
        regrow: whether and how weights are exchanged while the network trains (RigL, SET, GraNet).
        distill: whether retraining also learns the dense network's answers, and how.
        target: what densities are shares of, where not of units: `parameters`, `flops` or `latency`
            (`prunescope.pruning.target`).
        ignore: parameters (or modules) that are never pruned, with wildcards: `conv1.weight`, `fc*`.
    """

    __pydantic_config__: ClassVar = {"arbitrary_types_allowed": True}  # a criterion is checked by its own fields

    name: str
    criterion: Criterion = field(default_factory=Magnitude)
    scope: Scope = "global"
    schedule: Schedule = field(default_factory=Schedule)
    rewind: Rewind = field(default_factory=Rewind)
    training: Training | None = None
    ignore: tuple[str, ...] = ()
    granularity: Granularity = field(default_factory=Weights)
    epochs_per_round: tuple[float, ...] = ()
    distill: Distillation | None = None
    regrow: Regrow | None = None
    target: Target = "units"

    def __post_init__(self) -> None:
        if not self.name:
            raise PrunescopeError("a recipe needs a name")
        if not isinstance(self.criterion, Criterion):
            raise PrunescopeError(
                f"criterion must be a Criterion, as criterion('magnitude') is; got {self.criterion!r}"
            )
        object.__setattr__(self, "scope", read_scope(self.scope, "scope"))
        if not isinstance(self.granularity, Granularity):
            raise PrunescopeError(
                f"granularity must be a Granularity, as granularity('filter') is; got {self.granularity!r}"
            )
        if self.target not in TARGETS:
            raise choices("target", self.target, TARGETS)
        require_sense(
            by=self.criterion, units=self.granularity, scope=self.scope, schedule=self.schedule, rewind=self.rewind,
            regrow=self.regrow, target=self.target,
        )  # fmt: skip
        if isinstance(self.ignore, str):
            raise PrunescopeError(f"ignore must be a list of names, got the text {self.ignore!r}")
        object.__setattr__(self, "ignore", tuple(self.ignore))
        object.__setattr__(self, "epochs_per_round", tuple(self.epochs_per_round))
        rounds, given = len(self.schedule.densities()), len(self.epochs_per_round)
        if given not in (0, rounds):
            raise PrunescopeError(f"epochs_per_round names {given} retrainings, the schedule has {rounds} rounds")
        if self.training is not None:
            self.require_fits(self.training)

    def fitted(self, model: nn.Module, shape: tuple[int, ...]) -> Recipe:
        """With a granularity that knows the network, run on images of `shape` (C, H, W)."""
        return replace(self, granularity=self.granularity.fitted(model, shape, self.ignore))

    @property
    def counted(self) -> str:
        """What densities are shares of, in words."""
        words = {"units": self.granularity.plural, "flops": "operations", "latency": "time"}
        return words.get(self.target, self.target)

    @property
    def moves(self) -> bool:
        """Whether the mask changes while the network trains."""
        return self.schedule.gradual or self.regrow is not None

    def retraining(self, dense: Training, number: int) -> Training:
        """How round `number` (from 1) trains, where the dense networks train as `dense` says.

        >>> recipe = Recipe("r", schedule=Schedule(rounds=3), epochs_per_round=(2, 2, 10))
        >>> [recipe.retraining(Training(epochs=20), number).epochs for number in (1, 2, 3)]
        [2, 2, 10]
        """
        training = self.training or dense
        return replace(training, epochs=self.epochs_per_round[number - 1]) if self.epochs_per_round else training

    def require_fits(self, dense: Training) -> None:
        """Refuse retrainings that cannot be, as far as it can be told without the data."""
        start = self.rewind.at if self.rewind.has_step else "0it"
        for number in range(1, len(self.schedule.densities()) + 1):
            epochs = self.retraining(dense, number).epochs
            self.rewind.require_inside(epochs)
            if self.schedule.gradual:
                self.schedule.stretch.require_inside(start, epochs)
            if self.regrow is not None:
                self.regrow.stretch.require_inside(start, epochs)
