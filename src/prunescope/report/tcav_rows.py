"""What the probes `tcav` and `concept_regions` found in every checkpoint: a row per layer, class and concept."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from prunescope.core.types import Record
from prunescope.report.probe_rows import keys_of, probe_rows
from prunescope.study.results import Results

_COLUMNS = ["layer", "class", "concept", "score", "low", "high", "strength", "p_holm", "found", "auroc", "images"]
#: {probe: the array that holds its scores}
SCORES = {"tcav": "class.tcav", "concept_regions": "class.regions"}


def score_probes(found: Results) -> list[str]:
    """Keys of the probes that score classes by concepts."""
    return keys_of(found, *SCORES)


def tcav_rows(found: Results) -> pd.DataFrame:
    """A row per checkpoint, probe, layer, class and concept; `found` is 1 (for the class for sure), -1 (against), 0
    (neither). Empty where there is no score, or the probe does not test."""
    return probe_rows(found, score_probes(found), _COLUMNS, lambda point, key: _rows(found.record(point, key)))


def _rows(record: Record) -> Iterator[tuple[Any, ...]]:
    scores = record.arrays[SCORES[record.probe]]
    blank = np.full(scores.shape, np.nan)
    others = [record.arrays.get(f"class.{name}", blank) for name in ("low", "high", "strength", "p_holm", "found")]
    for place, layer in enumerate(record.info["layers"]):
        for k, class_name in enumerate(record.info["classes"]):
            for i, concept in enumerate(record.info["concept_names"]):
                numbers = (float(table[k, place, i]) for table in (scores, *others))
                auroc = float(record.arrays["concept.auroc"][i, place])
                yield str(layer), str(class_name), str(concept), *numbers, auroc, int(record.arrays["class.images"][k])
