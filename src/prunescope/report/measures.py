"""The measures of drift that the page shows: their place on the page, their possible range, and the headline ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import pandas as pd

from prunescope.metrics.families import FAMILIES, Distance
from prunescope.study.results import MEASURE, Results
from prunescope.study.study import Study

#: {family: what its arrays are, in a sentence}; of other families the title of the measure is used.
SUBJECTS = {
    "labels": "decisions", "maps": "heat maps", "energy": "heat on the object",
    "pointing": "hottest points of the maps", "rankings": "concept rankings", "scores": "concept scores",
    "features": "features of layers", "tcav": "sensitivities to concepts", "regions": "images within concept regions",
}  # fmt: skip

#: Families that no answer is built on: how a network spreads its work over units is not why it decides. Nor on what a
#: test finds: it goes by the level of the test, and the scores behind it are there.
APART = (
    "importances", "importance_shares", "class_profiles", "image_sets", "unit_orders", "unit_scores", "selectivities",
    "unit_concepts", "tcav_found", "deletion", "insertion", "road",
)  # fmt: skip


@dataclass(frozen=True)
class Measure:
    """One measure of one array over one set of images.

    Attributes:
        family: of distances.
        subject: what it speaks about, in words: `heat maps`.
    """

    probe: str
    array: str
    distance: str
    subset: str
    family: str
    subject: str

    @property
    def key(self) -> tuple[str, str, str, str]:
        """As in the tables' columns `MEASURE`."""
        return self.probe, self.array, self.distance, self.subset

    @property
    def figure(self) -> str:
        """What its figures are called on the page, behind `drift/` and `accuracy/`."""
        return "/".join(self.key)

    @property
    def of(self) -> str:
        """The array in words: `gradcam, true class`."""
        return array_words(self.probe, self.array)


def array_words(probe: str, array: str) -> str:
    """Whose array it is, and which where a probe has several of one family: `gradcam, true class`."""
    words = {
        "reference": "predicted class", "true": "true class", "layer.accuracy": "right tasks", "layer.mis": "scores",
        "layer.selectivity": "from class means", "layer.best_selectivity": "from best images",
    }  # fmt: skip
    told = words.get(array) or words.get(array.split(".", 1)[-1])
    return f"{probe}, {told}" if told else probe


def distance(study: Study, probe: str, array: str, name: str) -> tuple[str, Distance]:
    """(family, distance) of a row of the tables."""
    family = study.probes[probe].distances[array]
    return family, next(item for item in FAMILIES[family] if item.name == name)


@lru_cache(maxsize=1)
def measures(found: Results) -> list[Measure]:
    """All measures with values, in the probes' order.

    Over images that both networks get right the true class *is* the class that the dense network predicts: of these
    two equal measures one is left out.
    """
    if found.pooled.empty:
        return []
    keys = list(dict.fromkeys(found.pooled[MEASURE].itertuples(index=False, name=None)))
    shown = [key for key in keys if not (key[1] == "image.true" and key[3] == "both_right" and _twin(key) in keys)]
    return [_measure(found.study, key) for key in shown]


def _twin(key: tuple[str, ...]) -> tuple[str, ...]:
    return (key[0], "image.reference", *key[2:])


def _measure(study: Study, key: tuple[str, str, str, str]) -> Measure:
    family, item = distance(study, key[0], key[1], key[2])
    subject = SUBJECTS.get(family, item.title)
    same = [k for k, probe in study.probes.items() if family in probe.distances.values()]
    return Measure(*key, family, subject if len(same) == 1 else f"{subject} ({key[0]})")


def headlines(found: Results) -> list[Measure]:
    """One measure per probe and family: the family's first, where it is there over images that both get right. None of
    the families that have a section of their own (`APART`)."""
    chosen: dict[tuple[str, str], Measure] = {}
    for item in measures(found):
        if item.family in APART or item.distance != FAMILIES[item.family][0].name:
            continue
        old = chosen.get((item.probe, item.family))
        if old is None or (old.array == item.array and item.subset == "both_right"):
            chosen[item.probe, item.family] = item
    return list(chosen.values())


def rows(table: pd.DataFrame, item: Measure) -> pd.DataFrame:
    """Rows of one measure."""
    if table.empty:
        return table
    chosen = table["probe"] == item.probe
    for column, value in zip(MEASURE[1:], item.key[1:], strict=True):
        chosen &= table[column] == value
    return table[chosen]


@lru_cache(maxsize=1)
def within_range(found: Results) -> pd.DataFrame:
    """The pooled table with intervals cut at what a measure can be: a correlation is never above 1."""
    if found.pooled.empty:
        return found.pooled
    table = found.pooled.copy()
    low, high = zip(*_ranges(found), strict=True)
    table["low"] = table["low"].clip(lower=pd.Series(low, index=table.index))
    table["high"] = table["high"].clip(upper=pd.Series(high, index=table.index))
    return table


def _ranges(found: Results) -> Iterator[tuple[float, float]]:
    for row in found.pooled[["probe", "array", "distance"]].itertuples(index=False, name=None):
        yield distance(found.study, *row)[1].range
