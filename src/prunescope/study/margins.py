"""Which measures the margins of claims may name, as far as it can be told before anything is measured."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from prunescope.core.errors import choices
from prunescope.metrics.families import FAMILIES
from prunescope.probes.base import Probe, facts


def unknown_measures(measures: Iterable[str], wanted: Mapping[str, Probe]) -> Iterator[str]:
    """A line for each of them that no probe of the study measures."""
    for measure in measures:
        where = f"claims.margins: {measure!r}"
        probe, *drift = measure.split("/")
        key, _, metric = (probe, "", "") if drift else probe.partition(".")
        if key not in wanted:
            yield str(choices("probe", key, wanted, where))
        elif drift and not _drifts(wanted[key], drift):
            yield f"{where} is no drift of {key!r}: write PROBE/ARRAY/DISTANCE/all or /both_right"
        elif not drift and not metric:
            yield f"{where} names no metric: write {key}.METRIC"
        elif not drift and not _measures(wanted[key], metric):
            yield str(choices("metric", metric, facts(wanted[key]), where))


def _drifts(probe: Probe, drift: Sequence[str]) -> bool:
    if len(drift) != 3 or drift[2] not in ("all", "both_right") or drift[0] not in probe.distances:
        return False
    return drift[1] in [item.name for item in FAMILIES[probe.distances[drift[0]]]]


def _measures(probe: Probe, metric: str) -> bool:
    """Known, or of a family (`accuracy_NAME` where there is `accuracy`); of a probe that tells nothing, anything."""
    known = facts(probe)
    return not known or metric in known or any(metric.startswith(f"{name}_") for name in known)
