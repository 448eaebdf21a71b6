"""At which steps of a training something is done again and again."""

from __future__ import annotations

from dataclasses import dataclass

from prunescope.core.errors import PrunescopeError
from prunescope.engine.steps import Step


@dataclass(frozen=True)
class Pace:
    """The steps begin + every, begin + 2 every ... up to `end`."""

    begin: int
    end: int
    every: int

    @property
    def count(self) -> int:
        """How many they are."""
        return (self.end - self.begin) // self.every

    def turn(self, step: int) -> int:
        """Which of them `step` is, from 1; 0 when it is none.

        >>> [Pace(begin=10, end=22, every=5).turn(step) for step in (10, 14, 15, 20, 25)]
        [0, 0, 1, 2, 0]
        """
        turn, rest = divmod(step - self.begin, self.every)
        return turn if not rest and 1 <= turn <= self.count else 0

    def done(self, step: int) -> float:
        """Share of the way from `begin` to `end`."""
        return (step - self.begin) / (self.end - self.begin)


@dataclass(frozen=True)
class Stretch:
    """A part of a training, and how often, as a user writes it: places are `1ep`, `500it` or `10%`.

    >>> Stretch("0%", "50%", "1ep").pace(per_epoch=10, total=100)
    Pace(begin=0, end=50, every=10)
    """

    begin: str
    end: str
    every: str

    def __post_init__(self) -> None:
        if Step.parse(self.every).amount == 0:
            raise PrunescopeError(f"every must be above 0, got {self.every}")
        end = Step.parse(self.end)
        if end.unit == "%" and end.amount > 100:
            raise PrunescopeError(f"{end} lies behind the end of the training")
        self.require_inside("0it")

    def require_inside(self, start: str, epochs: float | None = None) -> None:
        """Refuse a stretch that is over before it begins, as far as it can be told without the data.

        Args:
            start: where training starts (late rewinding).
            epochs: of the training; None when it is not known.
        """
        last = Step.parse(self.end)
        for first in (Step.parse(self.begin), Step.parse(start)):
            a, b = (step.amount if first.unit == last.unit else step.share(epochs) for step in (first, last))
            if a is not None and b is not None and a >= b:
                raise PrunescopeError(f"from {first} to {last} there is no step: the end lies before the beginning")

    def pace(self, per_epoch: int, total: int, start: int = 0) -> Pace:
        """The steps of a training of `total` steps that starts at step `start`.

        Raises:
            PrunescopeError: there are none.
        """
        begin, end, every = (Step.parse(place).at(per_epoch, total) for place in (self.begin, self.end, self.every))
        pace = Pace(max(begin, start), end, max(1, every))
        if pace.count < 1:
            raise PrunescopeError(
                f"from step {pace.begin} to {end}, every {pace.every} steps, there is none: the training has {total}"
            )
        return pace
