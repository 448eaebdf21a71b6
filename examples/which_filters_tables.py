"""The tables of docs/results/car-cifar10, from the pieces of a finished (or half finished) examples/which_filters.py.

    python examples/which_filters_tables.py --runs FOLDER --out FOLDER

`networks.csv`: accuracies of the whole networks on the test images that report, and once they were fine-tuned as
the pruned ones are. `orders.csv`, `curves.csv`, `enrichment.csv`: as `Comparison` gives them. `differences.csv`:
greedy CAR less each rival, image by image. `colour.csv`: rank correlation of the place in an order with the colour
index. `redundancy.csv`: whether what goes in the first half of an order has a like among the filters that are left.
`choosing.csv`: accuracy on the images that choose beside that on those that report. `retrain.csv`: pieces of
`which_filters_retrain.py`, with greedy CAR less each rival. `beside.csv` (with `--beside`, pieces of the same networks
made otherwise, such as with fewer images to choose by): accuracy along the orders of both. `classes.csv`,
`agreement.csv`: the class of a filter's best patches beside the classes that it is needed for. Rows of layers and
networks of which there are no pieces stay as they are in FOLDER.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from prunescope.engine.sees.views import COLOUR_SELECTIVE
from prunescope.metrics.paired import interval, mcnemar
from prunescope.metrics.proportions import share_interval
from prunescope.metrics.redundancy import ALIKE, clusters, diversity_kept, redundancy_when_removed
from prunescope.metrics.statistics import bootstrap_mean
from prunescope.pruning.trails import Comparison, Trail

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
#: Correlation from which on filters are one kind, where `ALIKE` leaves each one alone.
LOOSE = 0.5
#: Relabellings of the filters of a layer, for the test that knows how often each class comes up.
DRAWS = 10_000
#: (network, seed, number of the convolution)
Where = tuple[str, int, int]
Pieces = dict[Where, dict[str, dict[str, Any]]]


def read(runs: Path) -> Pieces:
    """{where: {"sees", "classes" or a method: arrays}}."""
    found: Pieces = defaultdict(dict)
    for file in sorted(runs.glob("*.npz")):
        kind, network, seed, number, *method = file.stem.split(".")
        with np.load(file) as arrays:
            found[network, int(seed), int(number)][method[0] if method else kind] = dict(arrays)
    return dict(sorted(found.items(), key=lambda item: (item[0][0], item[0][2], item[0][1])))


def trails(where: Where, parts: dict[str, dict[str, Any]]) -> Comparison:
    """The trails of a layer."""
    layer = f"features.conv{where[2]}"
    return Comparison(tuple(
        Trail(layer, method, where[1], int(a["units"]), a["order"], a["removed"], a["right"],
              dict(zip(a["tuned_at"].tolist(), a["tuned"], strict=True)), a["diversity"])
        for method, a in parts.items() if "order" in a
    ))  # fmt: skip


def differences(found: Comparison) -> Iterator[dict[str, Any]]:
    """Greedy CAR less each rival, at a quarter, half and three quarters removed, with a paired score interval."""
    by = {trail.method: trail for trail in found.trails}
    ours = by.pop("car-greedy", None)
    for method, trail in by.items() if ours else ():
        for count, tuned in [(trail.units * k // 4, tuned) for tuned in (False, True) for k in (1, 2, 3)]:
            if tuned and count not in trail.tuned:
                continue
            a, b = ours.rightly(count, tuned=tuned), trail.rightly(count, tuned=tuned)
            yield {
                "layer": trail.layer, "seed": trail.seed, "fine_tuned": int(tuned), "removed": count,
                "method": method, "accuracy": b.mean(), "car_greedy": a.mean(), **versus(a, b), "images": len(a),
            }  # fmt: skip


def choosing(found: Comparison, table: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Accuracy along each order on the images that choose, beside that on those that report."""
    for trail in found.trails:
        for removed, accuracy in zip(
            table["removed"], table["accuracy"][table["methods"] == trail.method][0], strict=True
        ):
            yield {
                "layer": trail.layer, "seed": trail.seed, "removed": removed, "method": trail.method,
                "choosing": accuracy, "reporting": trail.rightly(int(removed)).mean(),
            }  # fmt: skip


def retrained(table: dict[str, Any], layer: str, seed: int) -> Iterator[dict[str, Any]]:
    """Accuracy along each order with retraining after every part, and greedy CAR less it, with paired intervals."""
    rights = dict(zip(table["methods"].tolist(), table["right"], strict=True))
    for method, right in rights.items():
        for removed, a, b in zip(table["removed"], rights["car-greedy"], right, strict=True):
            yield {
                "layer": layer, "seed": seed, "removed": removed, "method": method, "images": len(b),
                "accuracy": b.mean(), **(versus(a, b) if method != "car-greedy" else {}),
            }  # fmt: skip


def versus(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    """Accuracy of `a` less that of `b`, bool (images,) both, with a score interval and McNemar's test."""
    turned = np.array([(a & ~b).sum()]), np.array([(~a & b).sum()])
    low, high = interval(turned[1], turned[0], len(a))
    return {"difference": a.mean() - b.mean(), "low": -high[0], "high": -low[0], "p": mcnemar(*turned)[0]}


def beside(found: Comparison, other: Comparison) -> Iterator[dict[str, Any]]:
    """The same methods with other options, on the same images that report."""
    others = {trail.method: trail for trail in other.trails}
    for trail in (trail for trail in found.trails if trail.method in others):
        for count in (trail.units * k // 4 for k in (1, 2, 3)):
            a, b = trail.rightly(count), others[trail.method].rightly(count)
            yield {
                "layer": trail.layer, "seed": trail.seed, "method": trail.method, "removed": count, "images": len(a),
                "accuracy": a.mean(), "accuracy_beside": b.mean(), **versus(a, b),
            }  # fmt: skip


def colour(found: Comparison, sees: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Spearman's correlation of the place in an order and the colour index (and the chroma of the kernel).

    Below 0: what answers to colour goes early.
    """
    for trail in found.trails:
        row: dict[str, Any] = {"layer": trail.layer, "method": trail.method, "seed": trail.seed}
        for name in ("colour", "chroma"):
            values = sees.get(name, np.full(trail.units, np.nan))[trail.order]
            known = np.isfinite(values)
            test = stats.spearmanr(np.arange(len(values))[known], values[known]) if known.any() else (np.nan, np.nan)
            row |= {f"{name}_rho": test[0], f"{name}_p": test[1]}
        yield row


def redundancy(found: Comparison, alike: np.ndarray) -> Iterator[dict[str, Any]]:
    """Of the first half that goes: its mean largest correlation with a filter that survives it, and the share of kinds
    (clusters at `LOOSE`) of which a filter is left; beside orders by chance."""
    kinds, units = clusters(alike, LOOSE), len(alike)
    generator = np.random.default_rng(0)
    chance = np.array([_half(alike, kinds, generator.permutation(units)) for _ in range(1000)])
    for trail in found.trails:
        here = _half(alike, kinds, trail.order)
        row = {"layer": trail.layer, "method": trail.method, "seed": trail.seed, "filters": units}
        row |= {"kinds_0.8": clusters(alike, ALIKE).max() + 1, f"kinds_{LOOSE}": kinds.max() + 1}
        for at, name in enumerate(("correlation", "kinds_left")):
            low, high = np.quantile(chance[:, at], [0.025, 0.975])
            row |= {name: here[at], f"{name}_chance": chance[:, at].mean(), f"{name}_low": low, f"{name}_high": high}
        yield row


def _half(alike: np.ndarray, kinds: np.ndarray, order: np.ndarray) -> tuple[float, float]:
    half = order[: len(alike) // 2]
    return float(np.nanmean(redundancy_when_removed(alike, half))), float(diversity_kept(kinds, half)[-1])


def classes(sees: dict[str, Any], table: dict[str, Any]) -> pd.DataFrame:
    """A row per filter that answers to something: the most common class of its best patches, and where this class comes
    in the order of the classes that lose most without the filter (1: it loses most)."""
    rows = []
    for channel in np.flatnonzero(~sees["dead"]):
        counts = np.bincount(sees["labels"][channel], minlength=len(CLASSES))
        best, order = int(counts.argmax()), needed(table)[channel]
        rows.append({
            "channel": channel, "car": table["car"][channel], "patch_class": CLASSES[best], "patches": counts[best],
            "of": counts.sum(), "rank": int(np.flatnonzero(order == best)[0]) + 1, "harmed_most": CLASSES[order[0]],
        })  # fmt: skip
    return pd.DataFrame(rows)


def needed(table: dict[str, Any]) -> np.ndarray:
    """Classes (U, C) from the one that loses most on: by recall, then by log-probability."""
    return np.lexsort((-table["class_drop"], -table["class_car"]), axis=1)


def agreement(found: pd.DataFrame, table: dict[str, Any]) -> dict[str, Any]:
    """Mean rank of the patches' class: by chance (C + 1) / 2, or what it is with the filters' patches exchanged."""
    n, c = len(found), len(CLASSES)
    mean = bootstrap_mean(found["rank"].to_numpy(float), seed=0)
    ranks = np.argsort(needed(table), axis=1)[found["channel"]] + 1
    own = found["patch_class"].map(CLASSES.index).to_numpy()
    generator = np.random.default_rng(0)
    drawn = np.array([ranks[np.arange(n), generator.permutation(own)].mean() for _ in range(DRAWS)])
    first = share_interval(int((found["rank"] == 1).sum()), n)
    return {
        "filters": n, "mean_rank": mean.value, "low": mean.low, "high": mean.high, "chance": (c + 1) / 2,
        "p_uniform": 2 * stats.norm.sf(abs(mean.value - (c + 1) / 2) / np.sqrt((c * c - 1) / 12 / n)),
        "exchanged": drawn.mean(), "p_exchanged": (1 + (drawn <= mean.value).sum()) / (1 + DRAWS),
        "first": first.value, "first_low": first.low, "first_high": first.high, "first_chance": 1 / c,
    }  # fmt: skip


def main() -> None:
    """Read, count, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--beside", type=Path, help="pieces that `beside.csv` compares those of --runs with")
    given = parser.parse_args()
    others = read(given.beside) if given.beside else {}
    tables: dict[str, list[pd.DataFrame]] = defaultdict(list)
    for where, parts in read(given.runs).items():
        network, seed, number = where
        found = trails(where, parts)
        here = {"orders": found.orders(), "curves": found.curves(), "differences": pd.DataFrame(differences(found))}
        if "control" in parts:
            whole, tuned = parts["control"]["whole"], parts["control"]["tuned"]
            row = {"seed": seed, "images": len(whole), "accuracy": whole.mean(), "fine_tuned": tuned.mean()}
            here["networks"] = pd.DataFrame([row])
        if "sees" in parts:
            kinds = {f"features.conv{number}": np.nan_to_num(parts["sees"]["colour"]) >= COLOUR_SELECTIVE}
            here |= {"enrichment": found.enrichment(kinds), "colour": pd.DataFrame(colour(found, parts["sees"]))}
        if "choosing" in parts:
            here["choosing"] = pd.DataFrame(choosing(found, parts["choosing"]))
        if where in others:
            here["beside"] = pd.DataFrame(beside(found, trails(where, others[where])))
        if "retrain" in parts:
            here["retrain"] = pd.DataFrame(retrained(parts["retrain"], f"features.conv{number}", seed))
        if "alike" in parts:
            here["redundancy"] = pd.DataFrame(redundancy(found, parts["alike"][f"features.relu{number}"]))
        if "sees" in parts and "classes" in parts:
            of = {"layer": f"features.conv{number}", "seed": seed}
            rows = classes(parts["sees"], parts["classes"])
            here["classes"] = rows.assign(**of)[[*of, *rows]]
            here["agreement"] = pd.DataFrame([{**of, **agreement(rows, parts["classes"])}])
        for name, table in here.items():
            if len(table):
                tables[name].append(pd.concat([pd.Series(network, table.index, name="network"), table], axis=1))
    given.out.mkdir(parents=True, exist_ok=True)
    for name, frames in tables.items():
        file = given.out / f"{name}.csv"
        frame = with_old(pd.concat(frames).drop_duplicates().round(5), file)
        frame.to_csv(file, index=False)
        print(f"{file.name}: {len(frame)} rows")


def with_old(frame: pd.DataFrame, file: Path) -> pd.DataFrame:
    """Rows that the file has of other networks, layers and seeds, and these, in order."""
    if not file.exists():
        return frame
    keys, old = [key for key in ("network", "layer", "seed") if key in frame], pd.read_csv(file)
    known = pd.MultiIndex.from_frame(frame[keys].astype(str))
    kept = old[~pd.MultiIndex.from_frame(old[keys].astype(str)).isin(known)]
    return pd.concat([kept, frame]).sort_values(keys, kind="stable")


if __name__ == "__main__":
    main()
