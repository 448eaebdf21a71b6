"""Everything a study is, as frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from prunescope.core.configure import canonical
from prunescope.core.errors import PrunescopeError
from prunescope.engine.training import Training
from prunescope.probes.base import Probe
from prunescope.pruning.recipe import Recipe

ControlKind = Literal["random", "dense", "reinit", "unretrained"]


@dataclass(frozen=True)
class Seeds:
    """Which seeds: every one gets a dense network; a subset gets tickets. The other dense ones are the noise floor."""

    dense: tuple[int, ...] = (0, 1, 2)
    tickets: tuple[int, ...] = (0, 1)

    def __post_init__(self) -> None:
        if not self.dense or not set(self.tickets) <= set(self.dense):
            raise PrunescopeError(f"ticket seeds {self.tickets} must be among the dense seeds {self.dense}")
        if len(set(self.dense)) < len(self.dense) or len(set(self.tickets)) < len(self.tickets):
            raise PrunescopeError("a seed is listed twice")


@dataclass(frozen=True)
class Controls:
    """Tickets that should be worse, and a dense network trained as long.

    Attributes:
        kinds: `random` (a random mask with the ticket's per-layer densities), `dense` (nothing cut, retrained as
            long), `reinit` (the ticket's mask, a new initialisation), `unretrained` (cut, not retrained).
        recipes: names of the recipes that are controlled; None: the first one.
        rounds: at which rounds; None: all.
    """

    kinds: tuple[ControlKind, ...] = ("random", "dense")
    recipes: tuple[str, ...] | None = None
    rounds: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Claims:
    """What the report states as supported, not supported or undecided; no part of a cell's key.

    Attributes:
        margins: {measure: the change from which on it matters}, set before anything is computed. A measure is a metric
            (`performance.top1`) or a drift (`gradcam/image.reference/spearman/both_right`: probe, array, distance, and
            `all` or `both_right`). None: those of `study.claims`, by probe.
        against: `control`: the dense network retrained as long, where there is one; `dense`: the network before
            pruning (metrics only: a network does not drift from itself).
        alpha: the chance of a wrong claim among all of a study, above 0 and below 1.
    """

    margins: Mapping[str, float] = field(default_factory=dict)
    against: Literal["control", "dense"] = "control"
    alpha: float = 0.05

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 1:
            raise PrunescopeError(f"alpha must lie between 0 and 1, got {self.alpha}")
        for measure, margin in self.margins.items():
            if not margin > 0:
                raise PrunescopeError(f"the margin of {measure!r} must be above 0, got {margin}")


@dataclass(frozen=True)
class Execution:
    """How cells are run; none of it is part of a cell's key.

    Attributes:
        threads: CPU threads per worker process. Results are bit-identical only at equal thread counts.
        device: `auto`, `cpu`, `cuda` ...
        batch_size: images per batch when measuring.
    """

    threads: int = 1
    device: str = "auto"
    batch_size: int = 256

    def __post_init__(self) -> None:
        if self.threads < 1 or self.batch_size < 1:
            raise PrunescopeError("threads and batch_size must be at least 1")


@dataclass(frozen=True)
class Study:
    """Everything a study is. Immutable; `read_study(study.as_mapping())` is equal to it."""

    name: str
    data: Mapping[str, Any]
    model: Mapping[str, Any]
    training: Training = field(default_factory=Training)
    seeds: Seeds = field(default_factory=Seeds)
    recipes: tuple[Recipe, ...] = ()
    controls: Controls = field(default_factory=Controls)
    probes: Mapping[str, Probe] = field(default_factory=dict)
    execution: Execution = field(default_factory=Execution)
    claims: Claims = field(default_factory=Claims)

    def as_mapping(self) -> dict[str, Any]:
        """Plain data for `study.yaml`: options at their defaults are left out."""
        shown: dict[str, Any] = {"name": self.name, "data": dict(self.data), "model": dict(self.model)}
        for part in ("training", "execution", "claims"):
            if options := canonical(getattr(self, part)):
                shown[part] = options
        # In full: a study may grow, and whether it has grown can only be told of lists that are there.
        shown["seeds"] = {"dense": list(self.seeds.dense), "tickets": list(self.seeds.tickets)}
        shown["controls"] = {item.name: canonical(getattr(self.controls, item.name)) for item in fields(Controls)}
        shown["recipes"] = [recipe_mapping(recipe, self.training) for recipe in self.recipes]
        shown["probes"] = [{"as": key, **canonical(probe)} for key, probe in self.probes.items()]
        return shown


def recipe_mapping(recipe: Recipe, dense: Training) -> dict[str, Any]:
    """Plain data that `study.config.read_recipe` reads as this recipe; `dense` is how dense networks are trained."""
    shown: dict[str, Any] = canonical(recipe)
    shown.pop("training", None)
    if recipe.training is not None:  # told as what differs from the dense training, which is how it is read
        pairs = {item.name: getattr(recipe.training, item.name) for item in fields(Training)}
        shown["training"] = {key: canonical(value) for key, value in pairs.items() if value != getattr(dense, key)}
    return {"name": recipe.name, **{key: value for key, value in shown.items() if key != "name"}}
