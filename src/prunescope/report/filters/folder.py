"""The tables that `prunescope car -o FOLDER` wrote, read again and checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from prunescope.core.errors import PrunescopeError, choices
from prunescope.core.files import read_json
from prunescope.core.types import Array

#: {file: the columns that the page needs}.
COLUMNS = {
    "units.csv": ("layer", "channel", "car", "low", "high", "p", "p_holm", "losses", "gains", "mean_drop", "place"),
    "classes.csv": ("layer", "channel"),
    "sees.csv": (
        "layer", "channel", "live", "colour", "shape", "colour_selective", "shape_selective", "class_selectivity",
        "class_selectivity_means", "top_class", "top_images", "chroma", "redundancy", "partner", "cluster", "frame",
    ),
    "orders.csv": ("layer", "method", "seed", "place", "channel"),
    "curves.csv": (
        "layer", "method", "seed", "fine_tuned", "removed", "share_removed", "accuracy", "images", "diversity",
    ),
    "enrichment.csv": ("layer", "method", "seed", "first", "colour_selective", "of", "base", "units", "p"),
}  # fmt: skip
_NEEDED = ("units.csv", "classes.csv")
#: Columns of `units.csv` that older folders lack.
_LATER = ("worst_class", "worst_car", "worst_low", "worst_high", "worst_p")
_TEXT = {"layer": str, "method": str, "top_class": str, "loses_most": str, "worst_class": str}
_LOOK = ("patches", "images", "colour_selective_from", "shape_selective_from", "behind_norms")
_COMPARE = ("methods", "report_split", "report_images", "fine_tune_epochs")
_FACTS = ("model", "split", "images", "accuracy", "units", "ties")
_NONE = (b"", b"", b"")


@dataclass(frozen=True, eq=False)
class Filters:
    """What is known of a network's filters.

    Attributes:
        facts: `car.json`.
        units: a row per unit: `units.csv`, beside it the columns of `sees.csv` (NaN where there is none).
        classes: names of the classes.
        class_car: (units, classes); NaN for classes without images.
        pictures: {(layer, channel): (best patches as WebP, kernel as PNG, a picture made to excite it as WebP)}; empty
            bytes where there is none.
        orders, curves, enrichment: tables as `COLUMNS` has them; empty where there is no such file.
    """

    facts: Mapping[str, Any]
    units: pd.DataFrame
    classes: tuple[str, ...]
    class_car: Array
    pictures: Mapping[tuple[str, int], tuple[bytes, bytes, bytes]]
    orders: pd.DataFrame
    curves: pd.DataFrame
    enrichment: pd.DataFrame

    @property
    def layers(self) -> list[str]:
        """Names, in the order of the network."""
        return list(dict.fromkeys(self.units["layer"]))

    @property
    def look(self) -> Mapping[str, Any] | None:
        """How it was looked at what units see; None where it was not."""
        told = self.facts.get("look")
        return told if isinstance(told, dict) and bool(self.units["frame"].notna().any()) else None

    @property
    def compare(self) -> Mapping[str, Any] | None:
        """How layers were taken apart; None where they were not, or nobody wrote it down."""
        told = self.facts.get("compare")
        return told if isinstance(told, dict) else None

    def worst_class(self, row: int) -> int | None:
        """The class that loses most without the unit of that row; None where none loses."""
        values, name = self.class_car[row], self.units["worst_class"].iat[row]
        if not (values > 0).any():
            return None
        return self.classes.index(name) if name in self.classes else int(np.nanargmax(values))

    def pictures_of(self, layer: str, channel: int) -> tuple[bytes, bytes, bytes]:
        """Those of one unit."""
        return self.pictures.get((layer, channel), _NONE)

    def of(self, layer: str) -> pd.DataFrame:
        """Rows of a layer; their index is the row in `class_car`."""
        return self.units[self.units["layer"] == layer]


def read_filters(folder: Path) -> Filters:
    """Read the folder.

    Raises:
        PrunescopeError: tables are missing, lack columns, are damaged or are not of the same units.
    """
    missing = [name for name in (*_NEEDED, "car.json") if not (folder / name).is_file()]
    if missing:
        raise PrunescopeError(
            f"{folder} has no {' and no '.join(missing)}: the page is made from the tables of "
            f"`prunescope car --out {folder}`"
        )
    tables = {name: _table(folder / name, columns) for name, columns in COLUMNS.items()}
    units, classes = tables["units.csv"], tables["classes.csv"]
    units = units.assign(**{name: np.nan for name in _LATER if name not in units})
    if units.empty:
        raise PrunescopeError(f"{folder / 'units.csv'} has no unit")
    if not units[["layer", "channel"]].equals(classes[["layer", "channel"]]):
        raise PrunescopeError(f"{folder}: units.csv and classes.csv are not of the same units")
    for name, table in tables.items():
        _require_layers(folder / name, table, units)
    names = tuple(map(str, classes.columns[2:]))
    return Filters(
        _facts(folder / "car.json", len(names)), units.merge(tables["sees.csv"], "left", ["layer", "channel"]), names,
        classes.iloc[:, 2:].to_numpy(np.float64), _pictures(folder / "patches.parquet"), tables["orders.csv"],
        tables["curves.csv"], tables["enrichment.csv"],
    )  # fmt: skip


def _table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Empty where there is no such file. Names such as `NA` are text, and only nothing is nothing."""
    none = pd.DataFrame({name: pd.Series(dtype="str" if name in _TEXT else "float64") for name in columns})
    if not path.is_file():
        return none
    try:
        found = pd.read_csv(path, dtype=_TEXT, keep_default_na=False, na_values=[""])
    except (ValueError, UnicodeDecodeError) as error:
        raise PrunescopeError(f"{path} is damaged: {str(error).splitlines()[0]}") from None
    lacks = [name for name in columns if name not in found]
    if lacks:
        raise PrunescopeError(f"{path} has no column {', '.join(lacks)}; it has {', '.join(map(str, found.columns))}")
    for name in (name for name in found if name not in _TEXT and found[name].dtype.kind not in "iufb" and len(found)):
        raise PrunescopeError(f"{path}: column {name} holds what is no number, such as {_no_number(found[name])!r}")
    return found if len(found) else none


def _require_layers(path: Path, table: pd.DataFrame, units: pd.DataFrame) -> None:
    known = set(units["layer"])
    for layer in table["layer"]:
        if layer not in known:
            raise choices("layer", layer, known, str(path))


def _no_number(column: pd.Series[Any]) -> Any:
    return column[pd.to_numeric(column, errors="coerce").isna() & column.notna()].iloc[0]


def _facts(path: Path, classes: int) -> Mapping[str, Any]:
    facts = read_json(path)
    lacks = [key for key in _FACTS if key not in facts] if isinstance(facts, dict) else list(_FACTS)
    for part, keys in (("look", _LOOK), ("compare", _COMPARE)):
        told = facts.get(part) if isinstance(facts, dict) else None
        lacks += [f"{part}.{key}" for key in keys if isinstance(told, dict) and key not in told]
    if lacks:
        raise PrunescopeError(f"{path} does not say {', '.join(lacks)}")
    if len(facts.get("class_images") or [0] * classes) != classes:
        raise PrunescopeError(f"{path}: class_images are of {len(facts['class_images'])} classes, not {classes}")
    return dict(facts)


def _pictures(path: Path) -> dict[tuple[str, int], tuple[bytes, bytes, bytes]]:
    """Older files have no column `maximised`."""
    if not path.is_file():
        return {}
    try:
        found = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise PrunescopeError(f"{path} is damaged: {str(error).splitlines()[0]}") from None
    lacks = [name for name in ("layer", "channel", "patches", "kernel") if name not in found]
    if lacks:
        raise PrunescopeError(f"{path} has no column {', '.join(lacks)}")
    made = found["maximised"] if "maximised" in found else [b""] * len(found)
    keys = zip(found["layer"], found["channel"], strict=True)
    return dict(zip(keys, zip(found["patches"], found["kernel"], made, strict=True), strict=True))
