"""Everything that the page shows, as files that a program reads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from prunescope.core.files import atomic_file
from prunescope.core.types import Record
from prunescope.report.detector_rows import detector_rows
from prunescope.report.measures import within_range
from prunescope.report.mis_rows import mis_layers, selectivity_layers, similarity_layers
from prunescope.report.places import dense_of, predictions
from prunescope.report.sensitivity import scan_table
from prunescope.report.tcav_rows import tcav_rows
from prunescope.report.trust_sanity import sanity_rows
from prunescope.report.unit_rows import unit_classes, unit_layers
from prunescope.study.claims import stated
from prunescope.study.hits import flips
from prunescope.study.plan import Point
from prunescope.study.results import Results

#: {file name: what one row is}; written beside the tables as README.txt.
TABLES = {
    "runs": "one checkpoint: accuracy and every probe's metrics",
    "drift": "one checkpoint and measure: drift from the dense network of its seed, 95 % interval over images",
    "floor": "one pair of dense networks that differ only in seed, and one measure",
    "pooled": "one density and measure: mean over seeds, t interval (cut at the measure's range), noise floor, verdict",
    "claims": "one claim: outcome, change with 95 % interval over runs, margin, p and p of a smaller change (Holm)",
    "relations": "one claim that a measure changes with the rate: within methods, by the mixed model, and pooled",
    "history": "one epoch of one training",
    "layers": "one pruned layer of one checkpoint: weights kept and effective, outputs and inputs that have none",
    "sensitivity": "one layer cut alone at one rate: accuracy on the validation images, and its largest harmless rate",
    "classes": "one class of one checkpoint: recall, and share of its images decided differently from the dense one",
    "flips": "images of one checkpoint that go from one class (by the dense network) to another (by this one)",
    "sanity": "one stage of weights of one checkpoint: how alike maps stay when it is random (with those above; alone)",
    "unit_layers": "one layer of one checkpoint: units, how many are dead, matter, do harm; mean CAR of the living",
    "unit_classes": "one class of one checkpoint: class CAR, mean over all living units",
    "mis_layers": "one layer of one checkpoint: units, how many constant or tied, mean MIS and right tasks of the rest",
    "selectivity_layers": "one layer of one checkpoint: units, how many are dead, mean class selectivity of the living",
    "similarity_layers": "one layer of one checkpoint: CKA of its features with the dense network's of the same seed",
    "dissection": "one layer and category of one checkpoint, or `all`: units, dead, tied; detectors, those beyond "
    "chance, and how many concepts they detect; mean overlap of the scored units with their best concept",
    "concepts": "one class and concept of one checkpoint: contribution, place in the top list, bootstrap frequency",
    "tcav": "one layer, class and concept of one checkpoint: share of images (TCAV, or in the region), and its test",
    "concept_quality": "one concept of one checkpoint: AUROC of reading it from the features, and whether it was used",
}
_PLACE = ["role", "recipe", "seed", "round", "checkpoint"]


def tables(found: Results) -> dict[str, pd.DataFrame]:
    """{name: table}, the keys of `TABLES`."""
    known = {name: getattr(found, name) for name in ("runs", "drift", "floor", "history", "layers")}
    made = {
        "pooled": within_range(found),
        "claims": stated(found).claims,
        "relations": stated(found).relations,
        "sensitivity": scan_table(found),
        "classes": _rows(found, _classes, ["class", "recall", "changed"]),
        "flips": _rows(found, _flips, ["before", "after", "images"]),
        "sanity": sanity_rows(found),
        "unit_layers": unit_layers(found),
        "unit_classes": unit_classes(found),
        "mis_layers": mis_layers(found),
        "selectivity_layers": selectivity_layers(found),
        "similarity_layers": similarity_layers(found),
        "dissection": detector_rows(found),
        "concepts": _rows(found, _concepts, ["probe", "class", "concept", "contribution", "place", "frequency"]),
        "tcav": tcav_rows(found),
        "concept_quality": _rows(found, _quality, ["probe", "concept", "auroc", "good"]),
    }
    return {name: (known | made)[name] for name in TABLES}


def write_tables(found: Results, folder: Path) -> None:
    """CSV and Parquet of each table, written atomically."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in tables(found).items():
        with atomic_file(folder / f"{name}.csv") as temporary:
            table.to_csv(temporary, index=False)
        with atomic_file(folder / f"{name}.parquet") as temporary:
            table.to_parquet(temporary, index=False)
    with atomic_file(folder / "README.txt") as temporary:
        temporary.write_text("".join(f"{name}: a row is {what}\n" for name, what in TABLES.items()))


def _rows(found: Results, of: Any, columns: list[str]) -> pd.DataFrame:
    """What `of(found, point)` yields for every checkpoint, with where it stands."""
    rows = [
        {**{name: getattr(point, name) for name in _PLACE}, **dict(zip(columns, values, strict=True))}
        for point in found.points
        for values in of(found, point)
    ]
    return pd.DataFrame(rows, columns=[*_PLACE, *columns])


def _names(found: Results) -> list[str]:
    return [str(name) for name in found.data["classes"]]


def _classes(found: Results, point: Point) -> Iterator[tuple[Any, ...]]:
    own, dense = predictions(found, point), dense_of(found, point.seed)
    labels = own.arrays["image.label"]
    other = None if dense is None else _changed(predictions(found, dense), own)
    for k, name in enumerate(_names(found)):
        mine = labels == k
        changed = np.nan if other is None or not mine.any() else float(other[mine].mean())
        yield name, float(own.arrays["class.recall"][k]), changed


def _changed(dense: Record, own: Record) -> Any:
    return dense.arrays["image.predicted"] != own.arrays["image.predicted"]


def _flips(found: Results, point: Point) -> Iterator[tuple[Any, ...]]:
    dense = dense_of(found, point.seed)
    if dense is None or point.role == "dense":
        return
    counts, names = flips(predictions(found, dense), predictions(found, point)), _names(found)
    for a, b in zip(*np.nonzero(counts), strict=True):
        if a != b:
            yield names[a], names[b], int(counts[a, b])


def _concept_probes(found: Results) -> list[str]:
    return [key for key, probe in found.study.probes.items() if "class.contributions" in probe.distances]


def _concepts(found: Results, point: Point) -> Iterator[tuple[Any, ...]]:
    """Concepts that say something of the class."""
    for key in _concept_probes(found):
        record = found.record(point, key)
        concepts = [str(name) for name in record.info["concept_names"]]
        for k, name in enumerate(_names(found)):
            values, top = record.arrays["class.contributions"][k], record.arrays["class.top"][k].tolist()
            often = record.arrays["class.top_frequency"][k] if "class.top_frequency" in record.arrays else None
            for i in np.flatnonzero(np.nan_to_num(values)).tolist():
                place = top.index(i) + 1 if i in top else None
                frequency = float(often[place - 1]) if place and often is not None else np.nan
                yield key, name, concepts[i], float(values[i]), place, frequency


def _quality(found: Results, point: Point) -> Iterator[tuple[Any, ...]]:
    for key in _concept_probes(found):
        record = found.record(point, key)
        for i, name in enumerate(record.info["concept_names"]):
            yield key, str(name), float(record.arrays["concept.auroc"][i]), bool(record.arrays["concept.good"][i])
