"""A place in a training, in whichever unit its writer thinks."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from prunescope.core.errors import PrunescopeError

_PATTERN = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ep|it|%)\s*")


@dataclass(frozen=True)
class Step:
    """`10ep` (epochs), `500it` (optimiser steps) or `5%` (of the whole training).

    >>> Step.parse("0.5ep").at(per_epoch=100, total=1000)
    50
    """

    amount: float
    unit: str

    @classmethod
    def parse(cls, text: str) -> Step:
        """Read `1ep`, `0.5ep`, `500it` or `5%`."""
        found = _PATTERN.fullmatch(str(text))
        if not found:
            raise PrunescopeError(f"a place in a training is written 1ep, 0.5ep, 500it or 5%, got {text!r}")
        return cls(float(found[1]), found[2])

    def at(self, per_epoch: int, total: int) -> int:
        """The optimiser step, 0 to `total`.

        Raises:
            PrunescopeError: it lies behind the end of the training.
        """
        scale = {"ep": per_epoch, "it": 1, "%": total / 100}[self.unit]
        step = round(self.amount * scale)
        if step > total:
            raise PrunescopeError(f"step {self} lies behind the end of a training of {total} steps")
        return step

    def share(self, epochs: float | None = None) -> float | None:
        """Share of a training of so many epochs; None when it takes the data, or the epochs, to tell.

        >>> Step.parse("1ep").share(epochs=4), Step.parse("500it").share(epochs=4)
        (0.25, None)
        """
        if self.unit == "%" or not self.amount:
            return self.amount / 100
        return self.amount / epochs if self.unit == "ep" and epochs is not None else None

    def __str__(self) -> str:
        return np.format_float_positional(self.amount, trim="-") + self.unit
