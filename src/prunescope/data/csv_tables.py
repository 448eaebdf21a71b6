"""CSV files as data sets ship them: UTF-8, perhaps with a byte-order mark."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from prunescope.core.errors import choices
from prunescope.core.files import read_text


def csv_text(path: Path) -> io.StringIO:
    """The file's text, as the `csv` module wants it.

    Raises:
        PrunescopeError: it cannot be read, or is no text.
    """
    return io.StringIO(read_text(path, encoding="utf-8-sig"), newline="")


def csv_rows(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """The rows by column name, in the file's order.

    Raises:
        PrunescopeError: it cannot be read, or one of `columns` is not there.
    """
    reader = csv.DictReader(csv_text(path))
    for column in columns:
        if column not in (reader.fieldnames or ()):
            raise choices("column", column, reader.fieldnames or (), f"{path}: it is needed, but")
    return list(reader)
