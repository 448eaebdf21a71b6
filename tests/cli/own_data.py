"""Data of the user's own, named in configs as `tests.cli.own_data:lacking`."""

from __future__ import annotations

from dataclasses import replace

from prunescope.data.load import load_data
from prunescope.data.split import Dataset


def lacking() -> Dataset:
    """Drawn shapes; the last class, `kite`, has no test images."""
    data = load_data({"name": "shapes", "size": 16, "train": 40, "val": 24, "test": 32})
    return replace(data, test=data.test.subset((data.test.labels < 3).nonzero().flatten()))
