"""Which units matter: the one rule of the page, and how its outcome is written."""

from __future__ import annotations

import pandas as pd

from prunescope.core.types import Array

#: Holm's p below which the accuracy changes for sure.
SURE = 0.05
#: {kind: words}; every unit is of one kind.
KINDS = {"helps": "matters for sure", "harms": "harms for sure", "unsure": "not sure"}


def kinds(units: pd.DataFrame) -> Array:
    """A kind for every row of `units.csv`: without the unit accuracy is lower for sure, higher for sure, or neither."""
    sure = units["p_holm"] < SURE
    found = pd.Series("unsure", index=units.index).mask(sure & (units["car"] > 0), "helps")
    return found.mask(sure & (units["car"] < 0), "harms").to_numpy()


def signed(value: float) -> str:
    """A change, with its sign and three digits after the point.

    >>> signed(0.0125), signed(-0.5), signed(-0.0001)
    ('+0.013', '−0.500', '0.000')
    """
    text = f"{value:+.3f}"
    return "0.000" if float(text) == 0 else text.replace("-", "−")
