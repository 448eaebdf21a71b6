"""Tables of what `squeezenet_units.py` measured, for docs/results/units-squeezenet.

python examples/squeezenet_unit_tables.py --work FOLDER --out FOLDER
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats
from squeezenet_unit_labels import CONCEPTS
from squeezenet_units import DISSECTION, FURTHER, TASKS, piece_file

from prunescope.core.seeds import numpy_generator
from prunescope.core.types import Array
from prunescope.engine.detectors import Dissection
from prunescope.engine.mis import UnitScores, UnitTasks
from prunescope.metrics.mis import Tasks, alpha_for_spread, task_accuracy
from prunescope.metrics.statistics import equivalence
from prunescope.metrics.unit_scores import row_means

NETWORKS = ("as it came", *FURTHER, "random")
#: Whose scores stand in the tables of layers and units.
FIRST, SECOND = "groups", "lpips"
MIXED = 40  # orders of the images for what is by chance
MARGIN = 0.01
Piece = Mapping[str, Array]
Eyes, Scales = Mapping[str, Array], Mapping[str, float]
IMAGES = 500


def read(work: Path, network: str) -> dict[str, Array]:
    """Both pieces of a network."""
    pixels = np.load(piece_file(work, "pixels", network))
    return dict(np.load(piece_file(work, "images", network))) | {f"pixels.{name}": pixels[name] for name in pixels}


def widths(piece: Piece) -> dict[str, int]:
    """{layer: units}."""
    names, counts = np.unique(piece["layer"], return_counts=True)
    found = dict(zip(names.tolist(), counts.tolist(), strict=True))
    return {name: found[name] for name in dict.fromkeys(piece["layer"].tolist())}


def tasks(piece: Piece, n: int, draw: int = 0) -> UnitTasks:
    """Of every unit."""
    drawn = Tasks(*(piece[f"mis{n}.{side}{draw}"].astype(np.int64) for side in ("up", "down")))
    return UnitTasks(widths(piece), drawn, piece[f"mis{n}.constant"], piece[f"mis{n}.tied"], IMAGES)


def judge(units: UnitTasks, alike: Array, alpha: float = 0.0) -> UnitScores:
    """As `engine.mis.judged`, but by the similarity of all pairs of so few images (N, N): fifty times as fast."""
    up, down = units.tasks.up, units.tasks.down
    up_asked, down_asked = up[:, :, :1], down[:, :, :1]
    up_shown, down_shown = up[:, :, 1:], down[:, :, 1:]
    sums = (alike[up_asked, up_shown] - alike[up_asked, down_shown]).sum(2)
    sums -= (alike[down_asked, up_shown] - alike[down_asked, down_shown]).sum(2)
    margin = np.where(units.scored[:, None], sums / units.references, np.nan)
    known = alpha or alpha_for_spread(margin[units.scored])
    return UnitScores(units.layers, units.tasks, units.constant, units.tied, units.images, margin, known)


def by_chance(units: UnitTasks, alike: Array) -> Array:
    """Share of right tasks, mean over layers, with images mixed up, (MIXED,)."""
    generator, found = numpy_generator(0, "images mixed up"), []
    for _ in range(MIXED):
        order = generator.permutation(len(alike))
        scores = judge(units, alike[np.ix_(order, order)], 1.0)
        found.append(scores.mean(scores.accuracy))
    return np.array(found)


def change(units: UnitTasks, before: Array, after: Array) -> dict[str, Any]:
    """Of units with a score in both: mean over layers, interval by bootstrap over units within layers, and TOST over
    the means of layers."""
    table = units.table(after - before)
    each = row_means(table)
    known = [row[np.isfinite(row)] for row in table if np.isfinite(row).any()]
    generator = numpy_generator(0, "units of a layer")
    drawn = np.mean([row[generator.integers(len(row), size=(1000, len(row)))].mean(1) for row in known], axis=0)
    low, high = np.quantile(drawn, [0.025, 0.975])
    single = np.concatenate(known)
    return {
        "units in both": len(single), "change": np.nanmean(each), "low": low, "high": high,
        "p equal": equivalence(each, MARGIN).p, "sd of units": single.std(),
    }  # fmt: skip


def mis_rows(
    pieces: Mapping[str, Piece], eyes: Mapping[str, Array], alphas: Mapping[str, float]
) -> Iterator[dict[str, Any]]:
    """A row for every network, judge and number of tasks; another draw of tasks is a judge's noise floor."""
    for n in TASKS:
        for name, alike in eyes.items():
            dense = judge(tasks(pieces["as it came"], n), alike, alphas[name])
            again = judge(tasks(pieces["as it came"], n, 1), alike, alphas[name])
            for network, part in pieces.items():
                found = judge(tasks(part, n), alike, alphas[name])
                yield _mis_row(network, n, name, found, by_chance(found, alike), dense)
            yield _mis_row("as it came, other draw of tasks", n, name, again, np.array([np.nan]), dense)


def _mis_row(network: str, n: int, judge: str, found: UnitScores, chance: Array, dense: UnitScores) -> dict[str, Any]:
    row = {
        "tasks": n, "share of images": 2 * n * (found.references + 1) / IMAGES, "judge": judge, "network": network,
        "scored": int(found.scored.sum()), "constant": int(found.constant.sum()), "tied": int(found.tied.sum()),
        "accuracy": found.mean(found.accuracy), "mixed up": chance.mean(), "mixed up sd": chance.std(),
        "mixed up largest": chance.max(), "mis": found.mean(found.mis),
    }  # fmt: skip
    return row if network in ("as it came", "random") else row | change(found, dense.mis, found.mis)


def agreement(
    pieces: Mapping[str, Piece], eyes: Mapping[str, Array], alphas: Mapping[str, float]
) -> Iterator[dict[str, Any]]:
    """Spearman's correlation of units' MIS by two judges, over all units and within layers (mean); of one judge with
    itself: even tasks beside odd ones."""
    for network in ("as it came", "random"):
        units = tasks(pieces[network], max(TASKS))
        scores = {name: judge(units, alike, alphas[name]) for name, alike in eyes.items()}
        pairs = [(name, name) for name in eyes] + list(combinations(eyes, 2))
        for a, b in pairs:
            x, y = scores[a].mis, scores[b].mis
            if a == b:
                x, y = (task_accuracy(scores[a].margin[:, half::2]) for half in (0, 1))
            kept = units.scored
            rows = [_rank(p, q) for p, q in zip(units.table(x), units.table(y), strict=True)]
            yield {
                "network": network, "judge": a, "other": "itself, other tasks" if a == b else b,
                "units": int(kept.sum()), "all units": _rank(x, y), "within layers": np.nanmean(rows),
            }  # fmt: skip


def _rank(x: Array, y: Array) -> float:
    both = np.isfinite(x) & np.isfinite(y)
    varies = both.sum() > 2 and np.ptp(x[both]) > 0 and np.ptp(y[both]) > 0
    return float(stats.spearmanr(x[both], y[both]).statistic) if varies else float("nan")


def dissected(piece: Piece) -> Dissection:
    """As `ps.dissect` gave it."""
    names = [(name, kind) for kind, some in CONCEPTS.items() for name in some]
    arrays = {name: piece[f"pixels.{name}"] for name in ("iou", "chance", "dead", "tied", "cutoffs", "area")}
    only, kinds = zip(*names, strict=True)
    return Dissection(widths(piece), only, kinds, **arrays, question=DISSECTION, images=IMAGES, passes=2)


def detector_rows(pieces: Mapping[str, Piece]) -> Iterator[dict[str, Any]]:
    """A row for every network and category, and one for all; unique: how many concepts are detected."""
    for network, part in pieces.items():
        found = dissected(part)
        facts = {"units": len(found.dead), "scored": int(found.scored.sum()), "chance level": found.chance_level}
        more, sure = found.by_category(found.detector), found.by_category(found.beyond)
        yield {
            "network": network, "category": "all", **facts, "detectors": int(found.detector.sum()),
            "by chance": found.detectors_by_chance, "unique": len(found.detected(found.detector)),
            "beyond": int(found.beyond.sum()), "beyond by chance": found.beyond_by_chance,
            "unique beyond": len(found.detected(found.beyond)), "iou": found.mean(found.best),
        }  # fmt: skip
        for kind in more:
            yield {
                "network": network, "category": kind, "detectors": more[kind][0], "unique": more[kind][1],
                "beyond": sure[kind][0], "unique beyond": sure[kind][1],
            }  # fmt: skip


def concept_rows(pieces: Mapping[str, Piece]) -> Iterator[dict[str, Any]]:
    """A row for every concept: its area, and detectors beyond chance in every network."""
    found = {network: dissected(part) for network, part in pieces.items()}
    first = next(iter(found.values()))
    for k, name in enumerate(first.names):
        counts = {network: int((item.concept[item.beyond] == k).sum()) for network, item in found.items()}
        reach = "no" if name in first.out_of_reach else ""
        yield {"category": first.categories[k], "concept": name, "area": first.area[k], "in reach": reach, **counts}


def unit_frame(piece: Piece, eyes: Eyes, alphas: Scales) -> pd.DataFrame:
    """A row for every unit."""
    found, columns = dissected(piece), {}
    for name in (FIRST, SECOND, "colour"):
        scores = judge(tasks(piece, max(TASKS)), eyes[name], alphas[name])
        columns[f"accuracy {name}"], columns[f"mis {name}"] = scores.accuracy, scores.mis
    channel = np.concatenate([np.arange(width) for width in found.layers.values()])
    names = np.array([*found.names, ""])
    return pd.DataFrame({
        "layer": piece["layer"], "channel": channel, **columns, "constant": piece["mis20.constant"].astype(int),
        "tied": piece["mis20.tied"].astype(int), "selectivity": piece["groups.means"],
        "selectivity by chance": piece["chance.means"], "selectivity of images": piece["images.means"],
        "best images": piece["images.best"], "concept": names[found.concept], "iou": found.best, "p": found.p,
        "detector": found.detector.astype(int), "beyond": found.beyond.astype(int),
    })  # fmt: skip


def layer_frame(frame: pd.DataFrame, piece: Piece) -> pd.DataFrame:
    """A row for every layer: counts, and means over units with a value."""
    found, rows = dissected(piece), []
    means = [name for name in frame if name.startswith(("accuracy", "mis", "selectivity", "best", "iou"))]
    above = np.nan_to_num(found.chance) > found.question.threshold
    for layer, part in frame.groupby("layer", sort=False):
        sure = part[part["beyond"] == 1]["concept"]
        counts = {name: int(part[name].sum()) for name in ("constant", "tied", "detector", "beyond")}
        rows.append({
            "layer": layer, "units": len(part), **counts, "detectors by chance": above[part.index].sum(0).mean(),
            "unique beyond": sure.nunique(), "most detected": sure.mode().iloc[0] if len(sure) else "",
            **part[means].mean().to_dict(),
        })  # fmt: skip
    return pd.DataFrame(rows)


def main() -> None:
    """Read, judge, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--work", "--out"):
        parser.add_argument(name, type=Path, required=True)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    vectors = dict(np.load(given.work / "judges.npz"))
    del vectors["groups of images"]
    eyes = {name: found @ found.T for name, found in vectors.items()}
    pieces = {name: read(given.work, name) for name in NETWORKS}
    first = tasks(pieces["as it came"], max(TASKS))
    alphas = {name: judge(first, alike).alpha for name, alike in eyes.items()}
    frames = {name: unit_frame(part, eyes, alphas) for name, part in pieces.items()}
    layers = [layer_frame(frames[name], part).assign(network=name) for name, part in pieces.items()]
    facts = json.loads((given.work / "judges.json").read_text(encoding="utf-8"))
    tables = {
        "judges": pd.DataFrame([{"judge": name, **facts[name], "alpha": alphas[name]} for name in eyes]),
        "mis": pd.DataFrame(mis_rows(pieces, eyes, alphas)), "agreement": pd.DataFrame(agreement(pieces, eyes, alphas)),
        "detectors": pd.DataFrame(detector_rows(pieces)), "concepts": pd.DataFrame(concept_rows(pieces)),
        "layers": pd.concat(layers).set_index("network").reset_index(), "units": frames["as it came"],
    }  # fmt: skip
    for name, found in tables.items():
        digits = 3 if name == "units" else 4
        found.round(digits).to_csv(given.out / f"{name}.csv", index=False, lineterminator="\n")
    print({name: [round(float(part[key])) for key in ("seconds", "pixels.seconds")] for name, part in pieces.items()})


if __name__ == "__main__":
    main()
