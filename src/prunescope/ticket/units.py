"""CAR of one network, without a study: tables in a folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import nn

from prunescope import __version__
from prunescope.core.errors import PrunescopeError, choices
from prunescope.core.files import atomic_folder
from prunescope.core.types import Array
from prunescope.data.load import load_data
from prunescope.data.sources import sources
from prunescope.data.split import NAMES, Dataset, Split
from prunescope.engine.ablation.answers import Effort
from prunescope.engine.device import pick_device
from prunescope.metrics.ablation import Reductions, most_harmed
from prunescope.metrics.paired import holm
from prunescope.probes.car import UnitTable, car, some_images
from prunescope.ticket.job import trained
from prunescope.ticket.sees import MOST, Sees


@dataclass(frozen=True, eq=False)
class Question:
    """Which units of which network are to be taken out, and on which images.

    Attributes:
        model, data: name and options, as for `models.zoo.build_model` and `data.load.load_data`.
        weights: file of the trained weights; None: they come with the model's options.
        layers: names or patterns; none: all convolutions.
        split: which images; `images`: at most so many, drawn with every class in its share; 0 for all.
        look: best patches of every unit to keep; 0: what units see is not looked at.
        maximise: steps in which a picture is made to excite every unit that is looked at; 0: none.
    """

    model: Mapping[str, Any]
    data: Mapping[str, Any]
    weights: Path | None = None
    layers: tuple[str, ...] = ()
    split: str = "test"
    images: int = 0
    effort: Effort = field(default_factory=Effort)
    look: int = 9
    seed: int = 0
    device: str = "auto"
    maximise: int = 0

    def __post_init__(self) -> None:
        if self.split not in NAMES:
            raise choices("split", self.split, NAMES)
        if self.images < 0:
            raise PrunescopeError(f"images must be 0 (all) or more, got {self.images}")
        if not 0 <= self.look <= MOST:
            raise PrunescopeError(f"look must be 0 (no patches) to {MOST}, got {self.look}")
        if self.maximise < 0:
            raise PrunescopeError(f"maximise must be 0 (no pictures are made) or more steps, got {self.maximise}")
        if self.maximise and not self.look:
            raise PrunescopeError("pictures are made of units that are looked at: maximise needs a look of 1 or more")


def material(question: Question) -> tuple[nn.Module, Dataset]:
    """Build the network, read all images."""
    data = load_data(question.data)
    return trained(question.model, question.weights, len(data.classes), data.train.shape[0]), data


def network_and_images(question: Question) -> tuple[nn.Module, Split]:
    """The network, and the images that units are taken out on."""
    network, data = material(question)
    return network, some_images(data[question.split], question.images, question.seed)


def ask(
    question: Question, network: nn.Module, split: Split, on_worlds: Callable[[int, int], None] | None = None
) -> UnitTable:
    """Take out every unit.

    Args:
        on_worlds: called with (images without a unit that are done, of how many).
    """
    return car(
        network, split, layers=question.layers, effort=question.effort, seed=question.seed,
        device=pick_device(question.device), on_worlds=on_worlds,
    )  # fmt: skip


def rows(table: UnitTable) -> pd.DataFrame:
    """A row per unit: `overall` and `worst`."""
    return overall(table).assign(**worst(table.reductions))


def overall(table: UnitTable, harmed: int = 3) -> pd.DataFrame:
    """CAR, its interval and tests, what turned, its place in the order, the classes that lose most."""
    found, (low, high), p = table.reductions, table.reductions.interval(), table.reductions.p()
    place = np.empty(len(table.units), dtype=int)
    place[table.ranking.order] = np.arange(len(table.units))
    classes = most_harmed(found, min(harmed, len(found.classes)))
    loses = [
        "; ".join(f"{found.classes[k]} {found.class_car[row, k]:+.3f}" for k in best if found.class_car[row, k] > 0)
        for row, best in enumerate(classes)
    ]
    return pd.DataFrame({
        "layer": [layer for layer, _ in table.units], "channel": [channel for _, channel in table.units],
        "car": found.car, "low": low, "high": high, "p": p, "p_holm": holm(p), "losses": found.losses.sum(axis=1),
        "gains": found.gains.sum(axis=1), "mean_drop": found.mean_drop, "place": place, "loses_most": loses,
    })  # fmt: skip


def worst(found: Reductions) -> dict[str, Array]:
    """Columns on the class that loses most without each unit: `worst_class`, its class CAR, 95 % interval and exact
    McNemar p; missing where no class loses. The class was picked for its loss, and nothing is corrected for that."""
    units, classes = np.arange(len(found.losses)), most_harmed(found, 1)[:, 0]
    low, high = found.class_interval()
    tables = {"worst_car": found.class_car, "worst_low": low, "worst_high": high, "worst_p": found.class_p()}
    values = {name: table[units, classes] for name, table in tables.items()}
    loses = values["worst_car"] > 0
    names: Array = np.array(found.classes, dtype=object)[classes]
    names[~loses] = None
    return {"worst_class": names, **{name: np.where(loses, value, np.nan) for name, value in values.items()}}


def class_rows(table: UnitTable) -> pd.DataFrame:
    """Class CAR: a row per unit, a column per class; NaN for classes without images."""
    found = pd.DataFrame(table.reductions.class_car, columns=list(table.reductions.classes))
    found.insert(0, "channel", [channel for _, channel in table.units])
    found.insert(0, "layer", [layer for layer, _ in table.units])
    return found


def facts(
    question: Question, table: UnitTable, sees: Sees | str = "", compare: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """How it was measured, as plain data; `sees` and `compare` as for `write`."""
    found, told = table.reductions, table.ablation
    return {
        "prunescope": __version__, "model": dict(question.model), "data": _source(question),
        "split": question.split, "seed": question.seed,
        "images": found.images, "accuracy": float(found.right.sum() / found.images), "units": len(table.units),
        "class_images": found.counts.tolist(), "classes_without_images": list(found.empty),
        "ties": table.ranking.tied, "precision": question.effort.precision,
        "screen": question.effort.screen, "removal": question.effort.removal,
        "worlds": told.worlds, "full_passes": told.redone,
        "again_in_float32": told.screened, "left_out": told.passed, "audited": told.audited,
        "audited_wrong": told.wrong, "surprises": told.surprises,
        "look": sees.facts if isinstance(sees, Sees) else sees,
        **({} if compare is None else {"compare": dict(compare)}),
    }  # fmt: skip


def _source(question: Question) -> str:
    """Where the images come from, without the path that may follow it."""
    name = str(question.data["name"])
    source = name.partition(":")[0]
    return source if source in sources else name


def write(
    folder: Path, question: Question, table: UnitTable, sees: Sees | str = "",
    more: Mapping[str, pd.DataFrame] | None = None, compare: Mapping[str, Any] | None = None,
) -> None:  # fmt: skip
    """`units.csv`, `classes.csv` and `car.json` in a new folder, whole or not at all.

    Args:
        sees: written as `sees.csv` and `patches.parquet`; or why units were not looked at.
        more: {file name: table}, such as `contest.tables` makes.
        compare: how layers were taken apart (`contest.told`), where they were.
    """
    require_free(folder)
    told = json.dumps(facts(question, table, sees, compare), indent=1, default=str)
    with atomic_folder(folder) as temporary:
        rows(table).to_csv(temporary / "units.csv", index=False)
        class_rows(table).to_csv(temporary / "classes.csv", index=False)
        (temporary / "car.json").write_text(told, encoding="utf-8")
        if isinstance(sees, Sees):
            sees.rows.to_csv(temporary / "sees.csv", index=False)
            sees.pictures.to_parquet(temporary / "patches.parquet", index=False)
        for name, frame in (more or {}).items():
            frame.to_csv(temporary / name, index=False)


def require_free(folder: Path) -> None:
    """Refuse a folder that is there."""
    if folder.exists():
        raise PrunescopeError(f"{folder} is there already, and nothing is written over: name another folder")


def by_layer(table: UnitTable, most: int = 3) -> Sequence[Mapping[str, Any]]:
    """A summary of each layer: how many units matter for sure, which least and which most."""
    frame = overall(table)
    found = []
    for layer, part in frame.groupby("layer", sort=False):
        ranked = part.sort_values("place")
        found.append({
            "layer": layer, "units": len(part), "mattering": int((part["p_holm"] < 0.05).sum()),
            "harmful": int((part["car"] < 0).sum()), "mean": float(part["car"].mean()),
            "least": ranked["channel"].head(most).tolist(),
            "most": list(zip(*(ranked.tail(most)[::-1][key].tolist() for key in ("channel", "car")), strict=True)),
        })  # fmt: skip
    return found
