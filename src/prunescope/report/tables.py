"""Everything that the page shows, as files that a program reads."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from prunescope.core.files import atomic_file
from prunescope.study.results import Results

#: {file name: what one row is}; written beside the tables as README.txt.
TABLES = {
    "runs": "one checkpoint: accuracy and every probe's metrics",
    "drift": "one checkpoint and measure: drift from the dense network of its seed, 95 % interval over images",
    "floor": "one pair of dense networks that differ only in seed, and one measure",
    "pooled": "one density and measure: mean over seeds, t interval, noise floor, verdict",
    "history": "one epoch of one training",
    "layers": "one layer of one checkpoint: share of weights kept",
}


def write_tables(found: Results, folder: Path) -> None:
    """CSV and Parquet of each table, written atomically."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in TABLES:
        table: pd.DataFrame = getattr(found, name)
        with atomic_file(folder / f"{name}.csv") as temporary:
            table.to_csv(temporary, index=False)
        with atomic_file(folder / f"{name}.parquet") as temporary:
            table.to_parquet(temporary, index=False)
    with atomic_file(folder / "README.txt") as temporary:
        temporary.write_text("".join(f"{name}: a row is {what}\n" for name, what in TABLES.items()))
