"""Labels of pixels from files, brought to the images' size: a folder of PNGs as in VOC, or a COCO file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from prunescope.core.errors import PrunescopeError
from prunescope.data.coco import read_coco
from prunescope.data.csv_tables import csv_text
from prunescope.data.decode import Decoding
from prunescope.data.label_files import LabelFiles
from prunescope.data.segments import Segments


def pixel_labels(
    place: Path, root: Path, files: Sequence[str], decoding: Decoding, *, names: Path | None = None
) -> Segments:
    """Labels of the pixels of `files` (paths below `root`), resized as the images are, to the nearest pixel.

    Args:
        place: a COCO file (`.json`) of instances, as polygons or run lengths; or a folder of PNGs with the images'
            paths or names, whose values are places in the list of names; 255 is "not labelled".
        names: text file with a line for each value from 0 on: `name` or `name,category`; values named `background` show
            none of the concepts. None: `names.txt` in the folder.

    Raises:
        PrunescopeError: a missing file, an image without labels, labels of another size than their image's, a value
            without a name, a category or a shape in the COCO file that cannot be read.
    """
    if place.suffix.lower() == ".json":
        if names is not None:
            raise PrunescopeError(f"segments: {place} names its categories itself; leave out {names}")
        return read_coco(place, root, files, decoding)
    if not place.is_dir():
        raise PrunescopeError(f"segments: there is no folder and no COCO file {place}")
    known, categories = label_names(names or place / "names.txt")
    images = tuple(root / file for file in files)
    return LabelFiles(tuple(label_paths(place, files)), images, known, categories, decoding).segments()


def label_names(path: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names and categories of the values from 0 on."""
    rows = [[part.strip() for part in line.split(",", 1)] for line in csv_text(path) if line.strip()]
    if not rows:
        raise PrunescopeError(f"segments: {path} names no concept")
    return tuple(row[0] for row in rows), tuple(row[1] if len(row) > 1 else "object" for row in rows)


def label_path(folder: Path, file: str) -> Path | None:
    """An image's PNG: at its path below the folder, or at its name."""
    places = (folder / Path(file).with_suffix(".png"), folder / f"{Path(file).stem}.png")
    return next((path for path in places if path.is_file()), None)


def label_paths(folder: Path, files: Iterable[str]) -> list[Path]:
    """The PNG of every image; missing ones are named."""
    found, missing = [], []
    for file in files:
        path = label_path(folder, file)
        found += [path] if path else []
        missing += [] if path else [file]
    if missing:
        shown = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise PrunescopeError(f"segments: {len(missing)} images have no PNG in {folder}: {shown}")
    return found
