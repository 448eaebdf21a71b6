"""Where artifacts live: one folder a cell, whole and checksummed or not there at all."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prunescope.core.errors import PrunescopeError, PrunescopeWarning
from prunescope.core.files import atomic_folder, read_json, sha256, write_atomic
from prunescope.study.cell import Cell


class Store:
    """The folder of one study.

    Layout: `cells/<kind>-<key>/` with the artifact's files, `cell.json` (what it is, and checksums) and
    `provenance.json` (versions, seconds, threads: not part of the identity); `failed/<kind>-<key>.json` for cells
    that ended in an error; `scratch/` for training states of cells in progress.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.cells = root / "cells"

    def path(self, cell: Cell | str) -> Path:
        """Folder of a cell."""
        return self.cells / (cell if isinstance(cell, str) else cell.folder)

    def has(self, cell: Cell | str) -> bool:
        """Whether the cell is done. Done means that the folder was renamed to its name."""
        return (self.path(cell) / "cell.json").is_file()

    def scratch(self, cell: Cell, part: int = 0) -> Path:
        """The file for a training cell's state in progress (one per part, when it trains several times)."""
        (self.root / "scratch").mkdir(parents=True, exist_ok=True)
        return self.root / "scratch" / f"{cell.folder}.{part}.state"

    @contextmanager
    def writing(self, cell: Cell, provenance: Mapping[str, Any]) -> Iterator[Path]:
        """A temporary folder that becomes the cell's on success. `provenance` is read when the block ends."""
        with atomic_folder(self.path(cell)) as folder:
            yield folder
            files = {
                str(file.relative_to(folder)): sha256(file) for file in sorted(folder.rglob("*")) if file.is_file()
            }
            what = {
                "kind": cell.kind, "key": cell.key, "label": cell.label, "params": cell.params,
                "parents": {role: parent.folder for role, parent in cell.parents.items()}, "files": files,
            }  # fmt: skip
            (folder / "cell.json").write_text(json.dumps(what, indent=1, sort_keys=True))
            (folder / "provenance.json").write_text(json.dumps(dict(provenance), indent=1, sort_keys=True))
        for state in (self.root / "scratch").glob(f"{cell.folder}.*"):
            state.unlink(missing_ok=True)
        self._failure(cell).unlink(missing_ok=True)

    def json(self, cell: Cell | str, name: str) -> dict[str, Any]:
        """A JSON file of a cell's artifact.

        Raises:
            PrunescopeError: it is missing or damaged.
        """
        return self._json(self.path(cell) / name)

    def facts(self, cell: Cell | str) -> dict[str, Any]:
        """The content of `cell.json`."""
        return self.json(cell, "cell.json")

    def provenance(self, cell: Cell | str) -> dict[str, Any]:
        """The content of `provenance.json`."""
        return self.json(cell, "provenance.json")

    def intact(self, cell: Cell | str) -> bool:
        """Whether every file of a done cell has the size and content it was written with."""
        folder = self.path(cell)
        try:
            files: dict[str, str] = self.facts(cell)["files"]
            return all((folder / name).is_file() and sha256(folder / name) == want for name, want in files.items())
        except (PrunescopeError, KeyError):
            return False

    def drop_damaged(self, cell: Cell) -> bool:
        """Remove a done cell whose files do not match their checksums, with a warning; True when it was removed."""
        if not self.has(cell) or self.intact(cell):
            return False
        warnings.warn(
            f"{self.path(cell)} is damaged (its checksums do not match): it is computed again",
            PrunescopeWarning,
            stacklevel=2,
        )
        self.remove(cell)
        return True

    def remove(self, cell: Cell | str) -> None:
        """Delete a cell: first its name, so that it never looks done half deleted."""
        folder = self.path(cell)
        doomed = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
        folder.rename(doomed)
        shutil.rmtree(doomed)

    def fail(self, cell: Cell, message: str) -> None:
        """Remember why a cell failed; it is tried again by the next run."""
        text = json.dumps({"cell": cell.folder, "label": cell.label, "error": message})
        write_atomic(self._failure(cell), text)

    def failures(self) -> dict[str, str]:
        """{folder: why} of the cells that failed in the last run that tried them."""
        found = [self._json(file) for file in sorted((self.root / "failed").glob("*.json"))]
        return {entry["cell"]: f"{entry['label']}: {entry['error']}" for entry in found}

    def tidy(self) -> None:
        """Remove what a killed run left half-written, and the training states of cells that were done just before the
        kill. Only while holding the lock."""
        for stray in self.cells.glob(".*.tmp"):
            shutil.rmtree(stray, ignore_errors=True)
        for place in (".", "scratch", "failed", "tables"):
            for stray in (self.root / place).glob(".*.tmp"):
                stray.unlink(missing_ok=True)
        for state in (self.root / "scratch").glob("*.state"):
            if self.has(state.name.split(".")[0]):
                state.unlink(missing_ok=True)

    def _failure(self, cell: Cell) -> Path:
        return self.root / "failed" / f"{cell.folder}.json"

    def _json(self, file: Path) -> dict[str, Any]:
        if not file.exists():
            raise PrunescopeError(f"{file} is missing: the cell is not done; run the study first")
        try:
            found = read_json(file)
        except PrunescopeError as error:
            raise PrunescopeError(f"{error}; run the study again to have it recomputed") from None
        if not isinstance(found, dict):
            raise PrunescopeError(f"{file} is damaged: expected a JSON object")
        return found
