"""What metrics are called: from the probes where they say so."""

from __future__ import annotations

from typing import NamedTuple

from prunescope.probes.base import facts
from prunescope.study.results import Results


class Fact(NamedTuple):
    """Title, unit, and whether more is better (None: neither)."""

    title: str
    unit: str
    better: bool | None


_CONCEPTS = {
    "mean_auroc": Fact("How well concepts can be read", "mean AUROC, held out", True),
    "mean_test_auroc": Fact("How well concepts can be read, test images", "mean AUROC", True),
    "shuffled_auroc": Fact("The same from shuffled labels: chance", "mean AUROC", None),
    "good_share": Fact("Concepts that pass the quality gate", "share of concepts", True),
    "bottleneck_accuracy": Fact("Accuracy of the concept bottleneck", "share of test images", True),
    "bottleneck_h_accuracy": Fact("Accuracy of the bottleneck with the residual", "share of test images", True),
    "random_concept_accuracy": Fact("Accuracy of a bottleneck on random directions", "share of test images", None),
    "fidelity": Fact("Bottleneck decides as the network does", "share of test images", True),
    "completeness": Fact("Accuracy that concept scores give back", "share of the network's above chance", True),
    "completeness_raw": Fact("The same, not cut to 0 and 1", "share of the network's above chance", None),
    "random_completeness": Fact("Accuracy that random directions give back", "share above chance", None),
    "nonzeros": Fact("Weights that the bottleneck uses", "weights", None),
}
_UNSHOWN = ("n", "mask_area", "units")
#: Probes whose metrics have a section of their own.
_APART = ("cost",)


def metrics(found: Results) -> dict[str, Fact]:
    """{column of `runs`: fact}, of metrics with values, in the probes' order."""
    shown = {}
    for key, probe in found.study.probes.items():
        if probe.name in _APART:
            continue
        known = facts(probe)
        for column in found.runs.columns:
            name = column.removeprefix(f"{key}.")
            if name == column or name in _UNSHOWN or not found.runs[column].notna().any():
                continue
            fact = Fact(*known[name]) if name in known else _fallback(probe.name, name)
            shown[column] = fact if key == probe.name else fact._replace(title=f"{fact.title} ({key})")
    return shown


def _fallback(probe: str, name: str) -> Fact:
    if probe == "concepts" and name in _CONCEPTS:
        return _CONCEPTS[name]
    return Fact(name.replace("_", " ").replace(".", ", "), "", None)
