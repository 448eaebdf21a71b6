"""How far each round cuts, and where retraining starts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from prunescope.core.errors import PrunescopeError, choices
from prunescope.engine.steps import Step
from prunescope.pruning.pace import Stretch

Kind = Literal["geometric", "linear", "one-shot", "cubic"]
When = Literal["after-training", "before-training"]
Target = Literal["init", "late", "lr", "none"]


@dataclass(frozen=True)
class Schedule:
    """Densities after each round.

    Attributes:
        density: after the last round, in (0, 1]; 1 cuts nothing, in one round, whatever `rounds` says.
        each: of `one-shot`: several densities, falling; each is cut once from the dense network, and none builds on
            another. `density` is then the last of them.
        rounds: how many.
        kind: `geometric` keeps the same share of the survivors each round (the lottery ticket's), `linear` removes
            the same number of weights each round, `one-shot` cuts once, whatever `rounds` says; `cubic` cuts while
            the network trains, in one training: fast at first, then ever more slowly (Zhu and Gupta 2017, eq. 1).
        when: `after-training` cuts the trained network; `before-training` cuts the initialisation, once, and trains
            what is left (SNIP, GraSP, SynFlow). Criteria with `iterations` make that one cut in steps.
        begin, end, every: of `cubic`: the step from which, by which, and how often it cuts, as places in the training
            (`1ep`, `500it`, `10%`). The first cut comes one `every` after `begin`.

    >>> Schedule(density=0.1, rounds=2, kind="linear").densities()
    (0.55, 0.1)
    """

    density: float = 0.1
    rounds: int = 6
    kind: Kind = "geometric"
    when: When = "after-training"
    begin: str = "0%"
    end: str = "75%"
    every: str = "1%"
    each: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        self._check_each()
        if not 0 < self.density <= 1:
            raise PrunescopeError(
                f"density is the share of weights kept at the end, above 0 and at most 1, got {self.density}"
            )
        if self.rounds < 1 or self.rounds != int(self.rounds):
            raise PrunescopeError(f"rounds must be a whole number of at least 1, got {self.rounds}")
        if self.kind not in get_args(Kind):
            raise choices("schedule", self.kind, get_args(Kind))
        if self.when not in get_args(When):
            raise choices("time of the cut", self.when, get_args(When))
        if self.before_training and self.kind != "one-shot":
            raise PrunescopeError(
                f"before training there is one cut, with nothing to train between rounds: write kind: one-shot, "
                f"not {self.kind}"
            )
        stretch = self.stretch  # refuses places that cannot be
        if not self.gradual and stretch != Stretch(Schedule.begin, Schedule.end, Schedule.every):
            raise PrunescopeError(f"begin, end and every go with kind: cubic; a {self.kind} schedule has none")

    def _check_each(self) -> None:
        if not self.each:
            return
        if self.kind != "one-shot":
            raise PrunescopeError(f"each goes with kind: one-shot; a {self.kind} schedule goes through its densities")
        if list(self.each) != sorted(set(self.each), reverse=True) or not 0 < self.each[-1] <= self.each[0] <= 1:
            raise PrunescopeError(f"each names falling densities, above 0 and at most 1, got {list(self.each)}")
        object.__setattr__(self, "each", tuple(self.each))
        object.__setattr__(self, "density", self.each[-1])

    @property
    def independent(self) -> bool:
        """Whether every round starts from the dense network, and not from the round before."""
        return bool(self.each)

    @property
    def gradual(self) -> bool:
        """Whether the cuts are made while the network trains."""
        return self.kind == "cubic"

    @property
    def stretch(self) -> Stretch:
        """When a gradual schedule cuts."""
        return Stretch(self.begin, self.end, self.every)

    @property
    def before_training(self) -> bool:
        """Whether the initialisation is cut, not the trained network."""
        return self.when == "before-training"

    def densities(self, start: float = 1.0) -> tuple[float, ...]:
        """Share of the prunable weights kept after round 1, 2 ...; strictly falling, the last is exactly `density`.

        Args:
            start: share that there is before round 1: less than 1 in a network that comes pruned.

        >>> Schedule(density=0.1, rounds=2).densities(start=0.4)
        (0.2, 0.1)
        """
        if self.each:
            return self.each
        if self.kind in ("one-shot", "cubic") or self.density == 1:
            return (self.density,)
        parts = [r / self.rounds for r in range(1, self.rounds)]
        if self.kind == "linear":
            return (*(start - part * (start - self.density) for part in parts), self.density)
        return (*(start * (self.density / start) ** part for part in parts), self.density)

    def density_at(self, done: float, start: float = 1.0) -> float:
        """Density of a gradual schedule when a share `done` of its cuts is made: from `start`, falling, to `density`.

        Zhu and Gupta 2017, eq. 1, told as densities instead of sparsities.

        >>> Schedule(density=0.5, kind="cubic").density_at(0.5)
        0.5625
        """
        return self.density + (start - self.density) * (1 - done) ** 3


@dataclass(frozen=True)
class Rewind:
    """Where retraining starts.

    Attributes:
        to: `init`: weights and buffers of the initialisation (Frankle and Carbin 2019); `late`: those of an early
            step, with the schedule going on from there (Frankle et al. 2020); `lr`: weights stay, the learning rate
            goes back (Renda et al. 2020); `none`: weights stay, the retraining's own schedule runs (fine-tuning).
        at: the step for `late` and `lr`: `1ep`, `500it`, `5%`. The others have none.
    """

    to: Target = "late"
    at: str = "1ep"

    def __post_init__(self) -> None:
        if self.to not in get_args(Target):
            raise choices("rewinding", self.to, get_args(Target))
        if not self.has_step and self.at != Rewind.at:
            raise PrunescopeError(f"rewinding to {self.to!r} has no step: leave out `at` ({self.at})")
        step = Step.parse(self.at)
        if self.to == "late" and step.amount == 0:
            raise PrunescopeError("rewinding late to step 0 is rewinding to the initialisation: write to: init")
        if step.unit == "%" and step.amount >= 100:
            raise PrunescopeError(f"rewinding at {self.at} leaves nothing to train")

    @property
    def has_step(self) -> bool:
        """Whether retraining enters its schedule at step `at`, and not at its beginning."""
        return self.to in ("late", "lr")

    @property
    def keeps_weights(self) -> bool:
        """Whether retraining goes on from the trained weights."""
        return self.to in ("lr", "none")

    def start(self, per_epoch: int, total: int) -> int:
        """Optimiser step at which retraining enters its schedule.

        >>> Rewind("late", at="1ep").start(per_epoch=100, total=1000), Rewind("init").start(100, 1000)
        (100, 0)

        Raises:
            PrunescopeError: nothing of the schedule is left from there.
        """
        if not self.has_step:
            return 0
        step = Step.parse(self.at).at(per_epoch, total)
        if step >= total:
            raise PrunescopeError(f"rewinding at {self.at} leaves nothing to train: the schedule has {total} steps")
        return step

    def require_inside(self, epochs: float) -> None:
        """Refuse a step behind the end of a training of so many epochs, as far as it can be told without the data."""
        step = Step.parse(self.at)
        if self.has_step and step.unit == "ep" and step.amount >= epochs:
            raise PrunescopeError(f"rewinding at {self.at} leaves nothing to train: the training has {epochs:g} epochs")
