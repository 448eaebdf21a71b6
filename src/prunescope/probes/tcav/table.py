"""TCAV scores as rows, for people and programs that work without a study."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from prunescope.core.types import Record


class TcavRow(NamedTuple):
    """One class and concept at one layer; numbers are NaN where there is no score."""

    layer: str
    class_name: str
    concept: str
    score: float
    low: float
    high: float
    strength: float
    p_holm: float
    found: str


@dataclass(frozen=True, eq=False)
class TcavTable:
    """Scores of one network.

    Attributes:
        record: all arrays (see the probe `Tcav`).
    """

    record: Record

    @property
    def layers(self) -> list[str]:
        """Layers in the order of the arrays' second axis."""
        return list(self.record.info["layers"])

    @property
    def refused(self) -> dict[str, str]:
        """{layer: why a score means nothing there}."""
        return dict(self.record.info["refused"])

    @property
    def rows(self) -> list[TcavRow]:
        """A row per layer, class and concept; `found` is `for`, `against`, `no`, or empty where nothing was tested."""
        return list(tcav_rows(self.record))

    @property
    def found(self) -> list[TcavRow]:
        """Those that stand out from random vectors for sure, the strongest first."""
        return sorted((row for row in self.rows if row.found in ("for", "against")), key=lambda row: -abs(row.strength))


_WORDS = {1.0: "for", -1.0: "against", 0.0: "no"}


def tcav_rows(record: Record) -> Iterator[TcavRow]:
    """The rows of a record of the probe `tcav`, layer by layer."""
    arrays = record.arrays
    for place, layer in enumerate(record.info["layers"]):
        for k, class_name in enumerate(record.info["classes"]):
            for i, concept in enumerate(record.info["concept_names"]):
                score, low, high, strength, p = (float(arrays[f"class.{name}"][k, place, i]) for name in _NUMBERS)
                found = _WORDS.get(float(arrays["class.found"][k, place, i]), "")
                yield TcavRow(str(layer), str(class_name), str(concept), score, low, high, strength, p, found)


_NUMBERS = ("tcav", "low", "high", "strength", "p_holm")
