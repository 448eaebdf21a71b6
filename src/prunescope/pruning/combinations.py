"""Which parts of a recipe make sense together, and why others do not."""

from __future__ import annotations

from collections.abc import Iterator

from prunescope.core.errors import PrunescopeError
from prunescope.pruning.granularities.patterns import NofM
from prunescope.pruning.granularity import Granularity, Weights
from prunescope.pruning.regrow import Regrow
from prunescope.pruning.schedule import Rewind, Schedule
from prunescope.pruning.scope import Scope, Sensitivity, scope_name
from prunescope.pruning.scoring import Criterion
from prunescope.pruning.target import Target


def require_sense(
    *, by: Criterion, units: Granularity, scope: Scope, schedule: Schedule, rewind: Rewind, regrow: Regrow | None,
    target: Target,
) -> None:  # fmt: skip
    """Refuse what would be cut by position, cannot be done, or asks for what has no effect.

    Raises:
        PrunescopeError: with the reason, and what to write instead.
    """
    on_the_way = (schedule.density_at(0.5),) if schedule.gradual else ()
    units.check((*on_the_way, *schedule.densities()))
    reasons = (*_scores(by, units, schedule), *_pattern(by, units, scope, target), *_times(scope, schedule, rewind),
               *_others(units, regrow), *_latency(units, schedule, target))  # fmt: skip
    if reasons:
        raise PrunescopeError(reasons[0])


def _scores(by: Criterion, units: Granularity, schedule: Schedule) -> Iterator[str]:
    if by.per == "filter" and not units.whole_filters:
        yield (
            f"criterion {by.name!r} scores whole filters, so granularity {units.name!r} would find no difference "
            "between the weights of one and cut by their position; write granularity: filter, or channel with "
            "members: incoming"
        )
    if by.name == "bn-scale" and schedule.before_training:
        yield "before training the scales of all norms are 1, so criterion 'bn-scale' would cut by position"


def _pattern(by: Criterion, units: Granularity, scope: Scope, target: Target) -> Iterator[str]:
    if not isinstance(units, NofM):
        return
    if scope not in ("global", "layer"):
        yield (
            f"granularity 'n:m' keeps {units.n} of every {units.m} weights in all layers, so scope "
            f"{scope_name(scope)!r} cannot give each its own share; write scope: layer"
        )
    if by.iterations > 1:
        yield (
            f"granularity 'n:m' is reached in one cut, so criterion {by.name!r} would cut {by.iterations - 1} times "
            f"for nothing; write criterion: {{name: {by.name}, iterations: 1}}"
        )
    if target != "units":
        yield f"granularity 'n:m' keeps {units.n} of every {units.m} weights, so there is no {target} to aim at"


def _times(scope: Scope, schedule: Schedule, rewind: Rewind) -> Iterator[str]:
    if isinstance(scope, Sensitivity) and (schedule.before_training or schedule.gradual):
        yield "sensitivity is measured on a trained network before it is cut: write erk or a table"
    if schedule.before_training and rewind.to != "init":
        yield (
            f"a network cut before training is trained from its initialisation: write rewind: {{to: init}}, "
            f"not {rewind.to}"
        )


def _others(units: Granularity, regrow: Regrow | None) -> Iterator[str]:
    if regrow is not None and not isinstance(units, Weights):
        yield (
            f"regrow exchanges single weights, so it does not go with granularity {units.name!r}: "
            "leave out one of the two"
        )


def _latency(units: Granularity, schedule: Schedule, target: Target) -> Iterator[str]:
    if target != "latency":
        return
    if units.name != "channel":
        yield (
            f"target latency goes with granularity: channel; dense hardware takes as long without {units.plural} "
            "as with them"
        )
    if schedule.gradual:
        yield (
            "target latency is measured, and a cubic schedule would measure it at every cut of its training: "
            "write target: flops, or a schedule in rounds"
        )
