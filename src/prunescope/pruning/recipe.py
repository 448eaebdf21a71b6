"""One way to prune, as one frozen value."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from prunescope.core.errors import PrunescopeError
from prunescope.engine.training import Training
from prunescope.pruning.criteria.magnitude import Magnitude
from prunescope.pruning.schedule import Rewind, Schedule
from prunescope.pruning.scoring import Criterion


@dataclass(frozen=True)
class Recipe:
    """Criterion, scope, schedule, rewinding and retraining.

    Attributes:
        name: for people, and in the report's legends.
        scope: `global`: all weights compete; `layer`: every layer is cut to the same density.
        training: how each round retrains; None: as the dense network was trained.
        ignore: parameters (or modules) that are never pruned, with wildcards: `conv1.weight`, `fc*`.
    """

    __pydantic_config__: ClassVar = {"arbitrary_types_allowed": True}  # a criterion is checked by its own fields

    name: str
    criterion: Criterion = field(default_factory=Magnitude)
    scope: Literal["global", "layer"] = "global"
    schedule: Schedule = field(default_factory=Schedule)
    rewind: Rewind = field(default_factory=Rewind)
    training: Training | None = None
    ignore: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.name:
            raise PrunescopeError("a recipe needs a name")
        if self.rewind.to == "late" and self.training is not None and self.rewind.at in ("0it", "0ep", "0%"):
            raise PrunescopeError("rewinding late to step 0 is rewinding to the initialisation: write to: init")
