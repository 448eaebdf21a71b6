"""Which criterion, granularity and scope make sense together."""

from __future__ import annotations

from prunescope.core.errors import PrunescopeError
from prunescope.pruning.granularities.patterns import NofM
from prunescope.pruning.granularity import Granularity
from prunescope.pruning.scope import Scope
from prunescope.pruning.scoring import Criterion


def require_sense(by: Criterion, units: Granularity, scope: Scope) -> None:
    """Refuse what would be cut by position, or asks for what has no effect.

    Raises:
        PrunescopeError: with the reason, and what to write instead.
    """
    if by.per == "filter" and not units.whole_filters:
        raise PrunescopeError(
            f"criterion {by.name!r} scores whole filters, so granularity {units.name!r} would find no difference "
            "between the weights of one and cut by their position; write granularity: filter, or channel with "
            "members: incoming"
        )
    if isinstance(units, NofM) and scope not in ("global", "layer"):
        raise PrunescopeError(
            f"granularity 'n:m' keeps {units.n} of every {units.m} weights in all layers, so scope {scope!r} cannot "
            "give each its own share; write scope: layer"
        )
    if isinstance(units, NofM) and by.iterations > 1:
        raise PrunescopeError(
            f"granularity 'n:m' is reached in one cut, so criterion {by.name!r} would cut {by.iterations - 1} times "
            f"for nothing; write criterion: {{name: {by.name}, iterations: 1}}"
        )
