"""How far each round cuts, and where retraining starts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from prunescope.core.errors import PrunescopeError
from prunescope.engine.steps import Step


@dataclass(frozen=True)
class Schedule:
    """Densities after each round.

    Attributes:
        density: after the last round, in (0, 1).
        rounds: how many.
        kind: `geometric` keeps the same share of the survivors each round (the lottery ticket's), `linear` removes
            the same number of weights each round, `one-shot` cuts once, whatever `rounds` says.

    >>> Schedule(density=0.1, rounds=2, kind="linear").densities()
    (0.55, 0.1)
    """

    density: float = 0.1
    rounds: int = 6
    kind: Literal["geometric", "linear", "one-shot"] = "geometric"

    def __post_init__(self) -> None:
        if not 0 < self.density < 1:
            raise PrunescopeError(
                f"density is the share of weights kept at the end, above 0 and below 1, got {self.density}"
            )
        if self.rounds < 1:
            raise PrunescopeError(f"rounds must be at least 1, got {self.rounds}")

    def densities(self) -> tuple[float, ...]:
        """Share of the prunable weights kept after round 1, 2 ...; strictly falling, the last is exactly `density`."""
        if self.kind == "one-shot":
            return (self.density,)
        parts = [r / self.rounds for r in range(1, self.rounds)]
        if self.kind == "linear":
            return (*(1 - part * (1 - self.density) for part in parts), self.density)
        return (*(self.density**part for part in parts), self.density)


@dataclass(frozen=True)
class Rewind:
    """Where retraining starts.

    Attributes:
        to: `init`: weights and buffers of the initialisation (Frankle and Carbin 2019); `late`: those of an early
            step, with the schedule going on from there (Frankle et al. 2020); `lr`: weights stay, the learning rate
            goes back (Renda et al. 2020); `none`: weights stay, the retraining's own schedule runs (fine-tuning).
        at: the step for `late` and `lr`: `1ep`, `500it`, `5%`.
    """

    to: Literal["init", "late", "lr", "none"] = "late"
    at: str = "1ep"

    def __post_init__(self) -> None:
        Step.parse(self.at)

    @property
    def keeps_weights(self) -> bool:
        """Whether retraining goes on from the trained weights."""
        return self.to in ("lr", "none")

    def start(self, per_epoch: int, total: int) -> int:
        """Optimiser step at which retraining enters its schedule."""
        return Step.parse(self.at).at(per_epoch, total) if self.to in ("late", "lr") else 0
