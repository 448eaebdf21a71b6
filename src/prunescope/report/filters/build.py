"""Tables of a folder in, one HTML file out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prunescope.core.files import write_atomic
from prunescope.report.filters.charts import layer_figures
from prunescope.report.filters.classes import class_rows
from prunescope.report.filters.data import layer_data, layer_pictures
from prunescope.report.filters.folder import Filters, read_filters
from prunescope.report.filters.layers import cards, stars
from prunescope.report.filters.marks import KINDS
from prunescope.report.filters.removal import curve_figures, removals
from prunescope.report.filters.words import answer, caveats, measured, name_of, patches, removing, seeing
from prunescope.report.page import render_page
from prunescope.report.safe import safe_json


def build_filter_page(folder: Path, out: Path | None = None) -> Path:
    """Write `index.html` (or `out`) from the tables of `prunescope car --out FOLDER` alone. Returns its path.

    Sections whose tables are not there (`sees.csv`, `orders.csv`, `curves.csv`, `enrichment.csv`) are left out.

    Raises:
        PrunescopeError: `units.csv`, `classes.csv` or `car.json` is missing, or a table is damaged.
    """
    page = out or folder / "index.html"
    write_atomic(page, render_filters(read_filters(folder)))
    return page


def render_filters(found: Filters) -> str:
    """The page: everything in it, nothing fetched."""
    return render_page(name_of(found), "filters", _content(found))


def _content(found: Filters) -> dict[str, Any]:
    """What the template needs."""
    figures = {**layer_figures(found), **curve_figures(found)}
    return {
        "figures": figures, "answer": answer(found), "measured": measured(found), "caveats": caveats(found),
        "seeing": seeing(found), "looked": found.look is not None, "kinds": KINDS, "cards": cards(found),
        "classes": class_rows(found), "removals": removals(found, figures), "removing": removing(found),
        "total": len(found.units), "stars": stars(found), "patches": patches(found),
        "class_names": safe_json(found.classes),
        "layers": [[safe_json(part(found, name)) for part in (layer_data, layer_pictures)] for name in found.layers],
    }  # fmt: skip
