"""Records on disk: arrays in an .npz without pickles, numbers and facts in JSON."""

from __future__ import annotations

import json
import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from prunescope.core.errors import PrunescopeError
from prunescope.core.types import Record


def save_record(record: Record, folder: Path) -> None:
    """Write `record.npz` and `record.json` into an existing folder. Equal records give equal bytes."""
    arrays = dict(record.arrays)
    if record.ids is not None:
        arrays["ids"] = record.ids
    np.savez(folder / "record.npz", **arrays)  # type: ignore[arg-type]
    facts = {
        "probe": record.probe,
        # JSON has no NaN: None stands for "could not be measured".
        "metrics": {name: None if math.isnan(value) else value for name, value in record.metrics.items()},
        "info": dict(record.info),
    }
    (folder / "record.json").write_text(json.dumps(facts, indent=1, allow_nan=False))


def load_record(folder: Path) -> Record:
    """Read what `save_record` wrote. Nothing in the file is executed.

    Raises:
        PrunescopeError: a file is missing or damaged; the message names the folder.
    """
    try:
        facts: dict[str, Any] = json.loads((folder / "record.json").read_text())
        with (folder / "record.npz").open("rb") as handle, np.load(handle, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        ids = arrays.pop("ids", None)
        metrics = {name: math.nan if value is None else float(value) for name, value in facts["metrics"].items()}
        return Record(facts["probe"], metrics, arrays, ids, facts["info"])
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError) as error:
        raise PrunescopeError(f"cannot read the record in {folder}: {error}; run the study again") from None
