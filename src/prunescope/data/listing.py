"""Which image files and folders there are, in one order everywhere."""

from __future__ import annotations

import os
from pathlib import Path

from prunescope.data.decode import SUFFIXES


def subfolders(root: Path) -> list[str]:
    """Sorted names of the folders in `root`; hidden ones are left out."""
    return sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith("."))


def image_files(root: Path, below: str) -> list[str]:
    """Sorted paths, relative to `root` and with forward slashes, of all images in `root/below` and its folders."""
    found = []
    for folder, _, names in os.walk(root / below, followlinks=True):
        place = Path(folder).relative_to(root).as_posix()
        found += [f"{place}/{name}" for name in names if name.lower().endswith(SUFFIXES) and not name.startswith(".")]
    return sorted(found)
