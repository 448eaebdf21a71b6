"""Tables of what `squeezenet_filters.py` measured, for docs/results/car-squeezenet.

python examples/squeezenet_filter_tables.py --work FOLDER --out FOLDER
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy import stats
from squeezenet_filter_colours import colours
from squeezenet_filter_reasons import changed, kinds_of, maps_lost, reasons_of
from squeezenet_filters import ANIMALS, PARTS, pieces

from prunescope.core.types import Array
from prunescope.engine.ablation.answers import Ablation
from prunescope.metrics.ablation import reductions
from prunescope.metrics.paired import holm, mcnemar
from prunescope.probes.car import UnitTable
from prunescope.ticket.units import class_rows, overall

DOGS = (151, 269)
GROUPS = ("dogs", "other animals", "things")
#: Mean changes of the true class's log-probability below this are not counted, however sure: rounding, or no matter.
NATS = 0.01


def gathered(work: Path) -> tuple[UnitTable, Array, list[str]]:
    """CAR over the pieces that are there for both halves of the layers, with class CAR of three groups of classes;
    the images' classes; the pieces.
    """
    names = [name for name in pieces(torch.arange(1000)) if all(_piece(work, part, name).exists() for part in (0, 1))]
    parts = [[np.load(_piece(work, part, name)) for name in names] for part in range(len(PARTS))]
    joined = {
        key: np.concatenate([np.concatenate([z[key] for z in row], 1) for row in parts])
        for key in ("predicted", "drop")
    }
    layers = np.concatenate([row[0]["layer"] for row in parts])
    labels, dense = (np.concatenate([z[key] for z in parts[0]]) for key in ("labels", "dense"))
    right = joined["predicted"] == labels
    found = reductions(right, dense == labels, _groups(labels), GROUPS, drop=joined["drop"].astype(np.float64))
    counts = {str(layer): int((layers == layer).sum()) for layer in dict.fromkeys(layers)}
    told = Ablation(
        {layer: torch.arange(count) for layer, count in counts.items()}, torch.from_numpy(dense),
        torch.from_numpy(joined["predicted"]), torch.from_numpy(joined["drop"]).double(), joined["predicted"].size,
    )  # fmt: skip
    units = tuple((layer, channel) for layer, count in counts.items() for channel in range(count))
    return UnitTable(units, found, told, right), labels, names


def _groups(labels: Array) -> Array:
    """Positions in `GROUPS`."""
    return np.where(labels >= ANIMALS, 2, np.where((labels >= DOGS[0]) & (labels < DOGS[1]), 0, 1))


def groups_of(table: UnitTable, labels: Array) -> pd.DataFrame:
    """A row per filter: class CAR of every group; the mean fall of the true class's log-probability in it, and whether
    that is another one than in the rest (rank test, corrected over filters).
    """
    frame, groups, drop = class_rows(table), _groups(labels), table.ablation.drop.numpy()
    for number, name in enumerate(GROUPS):
        ours, rest = drop[:, groups == number], drop[:, groups != number]
        if ours.shape[1]:
            frame[f"{name} drop"], frame[f"{name} rest"] = ours.mean(1), rest.mean(1)
            frame[f"{name} p_holm"] = holm(stats.mannwhitneyu(ours, rest, axis=1, method="asymptotic").pvalue)
    return frame


def _piece(work: Path, part: int, name: str) -> Path:
    return work / f"part{part}_{name}.npz"


def units_of(table: UnitTable, work: Path) -> pd.DataFrame:
    """A row per filter: CAR and its tests, the fall of the true class's log-probability with a signed rank test, how
    many decisions change, and whether any image excites it.
    """
    frame = overall(table, harmed=1).drop(columns="loses_most")
    drop = table.ablation.drop.numpy()
    frame.insert(10, "changed", changed(table).sum(1))
    frame.insert(11, "drop_p", stats.wilcoxon(drop, axis=1, zero_method="zsplit", method="asymptotic").pvalue)
    frame.insert(12, "drop_p_holm", holm(frame["drop_p"].to_numpy()))
    path = work / "largest.npz"
    if path.exists():
        largest = np.load(path)
        frame["live"] = np.concatenate([largest[layer] > 0 for layer in table.ablation.layers]).astype(int)
    return frame.round({name: 8 if "p" in name.split("_") else 5 for name in frame.columns})


def layers_of(frame: pd.DataFrame, table: UnitTable) -> pd.DataFrame:
    """A row per layer; `halves`: rank correlation of the layer's filters between two halves of the images."""
    found = []
    halves = {"halves_car": table.correct, "halves_drop": table.ablation.drop.numpy()}
    for layer, part in frame.groupby("layer", sort=False):
        matters, harms = part["car"] > 0, part["car"] < 0
        own = holm(part["p"].to_numpy())
        found.append({
            "layer": layer, "filters": len(part), "mean_car": part["car"].mean(), "largest_car": part["car"].max(),
            "channel_of_largest": int(part.loc[part["car"].idxmax(), "channel"]), "car_above_0": int(matters.sum()),
            "car_0": int((part["car"] == 0).sum()), "car_below_0": int(harms.sum()),
            "no_decision_changes": int((part["changed"] == 0).sum()),
            "matter_for_sure": int((matters & (part["p_holm"] < 0.05)).sum()),
            "matter_for_sure_in_layer": int((matters & (own < 0.05)).sum()),
            "harm_for_sure": int((harms & (part["p_holm"] < 0.05)).sum()),
            "p_below_05": int((part["p"] < 0.05).sum()), "mean_drop": part["mean_drop"].mean(),
            "drop_for_sure": int(((part["mean_drop"] > NATS) & (part["drop_p_holm"] < 0.05)).sum()),
            "gain_for_sure": int(((part["mean_drop"] < -NATS) & (part["drop_p_holm"] < 0.05)).sum()),
            "dead": int((1 - part["live"]).sum()) if "live" in part else "",
            **{name: _halves(values[part.index]) for name, values in halves.items()},
        })  # fmt: skip
    return pd.DataFrame(found).round(5)


def _halves(values: Array) -> float:
    """Of values (filters, images): every second image beside the others."""
    return float(stats.spearmanr(values[:, ::2].mean(1), values[:, 1::2].mean(1)).statistic)


def power(images: int, units: int) -> dict[str, Any]:
    """The fewest net losses, without any gain, that a test can tell: alone, and among all filters."""
    losses = np.arange(1, images + 1)
    p = mcnemar(losses, np.zeros_like(losses))
    alone, among = (int(losses[p <= level][0]) for level in (0.05, 0.05 / units))
    return {
        "images": images, "filters": units, "losses_alone": alone, "car_alone": alone / images,
        "losses_among_all": among, "car_among_all": among / images,
    }  # fmt: skip


def main() -> None:
    """Read, count, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--work", "--out"):
        parser.add_argument(name, type=Path, required=True)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    table, labels, names = gathered(given.work)
    frame = units_of(table, given.work)
    tables = {"units": frame, "layers": layers_of(frame, table), "classes": groups_of(table, labels).round(5)}
    if (given.work / "sees.csv").exists():
        sees = pd.read_csv(given.work / "sees.csv")
        right = (table.ablation.dense.numpy() == labels).astype(int)
        measured = {"car": right - table.correct, "mean_drop": table.ablation.drop.numpy()}
        tables |= {"sees": sees.round(4), "colour": colours(frame, sees, measured)}
    if (given.work / "reasons.npz").exists():
        z = np.load(given.work / "reasons.npz")
        lost = maps_lost(table, labels, z)
        wide = np.char.find(z["layer"], "squeeze") < 0
        tables |= {
            "reasons": reasons_of(frame, lost, z),
            "kinds": kinds_of(lost[wide], np.array(GROUPS)[_groups(z["labels"])]),
            "concepts": pd.read_csv(given.work / "concepts.csv").round(3),
        }
    for name, found in tables.items():
        found.to_csv(given.out / f"{name}.csv", index=False, lineterminator="\n")
    found = table.reductions
    facts = {
        "pieces": names, **power(found.images, len(frame)), "accuracy": float(found.right.sum() / found.images),
        "images_of": dict(zip(GROUPS, found.counts.tolist(), strict=True)),
        "right_of": dict(zip(GROUPS, found.right.tolist(), strict=True)), "ties": table.ranking.tied,
    }  # fmt: skip
    (given.out / "car.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
