"""Store in, one HTML file and tables out. Needs no data, no network and no GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from prunescope.core.files import write_atomic
from prunescope.report.answers import answers
from prunescope.report.caveats import caveats
from prunescope.report.charts import Figure
from prunescope.report.chosen import CHOICES
from prunescope.report.claims import CLAIMS_LEAD, claim_view
from prunescope.report.claims import COLUMNS as CLAIM_COLUMNS
from prunescope.report.classes import by_class
from prunescope.report.concepts import concept_tables
from prunescope.report.cost import cost_tables
from prunescope.report.detector_views import LEAD as DETECTORS
from prunescope.report.detector_views import detector_views
from prunescope.report.digest import digest
from prunescope.report.figures import figures
from prunescope.report.gallery import Gallery, galleries
from prunescope.report.game import game
from prunescope.report.layers import layers
from prunescope.report.magnitudes import magnitudes
from prunescope.report.measures import headlines, measures
from prunescope.report.page import render_page
from prunescope.report.places import performance_key
from prunescope.report.provenance import checkpoints, provenance
from prunescope.report.readable import LEAD as READABLE_LEAD
from prunescope.report.readable import readable_views
from prunescope.report.representations import selectivity_views, similarity_views
from prunescope.report.safe import asset, safe_json
from prunescope.report.sensitivity import sensitivity_tables
from prunescope.report.sparsity import COLUMNS, EFFECTIVE, sparsity
from prunescope.report.tables import write_tables
from prunescope.report.tcav_views import TCAV_LEAD, tcav_views
from prunescope.report.trust import trust_views
from prunescope.report.unit_views import LEAD, unit_views
from prunescope.report.verdicts import verdicts
from prunescope.report.weights import layer_tables
from prunescope.report.words import summary
from prunescope.study.results import Results, results


def build_report(root: Path, out: Path | None = None) -> Path:
    """Write `report.html` (or `out`); beside it `summary.md`, `tables/*.csv` and `*.parquet`. Returns the page's path.

    Raises:
        PrunescopeError: no study there, or nothing of it is done.
    """
    found = results(root)
    page = out or root / "report.html"
    write_tables(found, page.parent / "tables")
    write_atomic(page.parent / "summary.md", digest(found))
    write_atomic(page, render(found))
    return page


def render(found: Results) -> str:
    """The page: everything in it, nothing fetched."""
    return render_page(found.study.name, "report", _content(found))


def _content(found: Results) -> dict[str, Any]:
    """What the templates need."""
    charts, concepts, shown, sizes = figures(found), concept_tables(found), galleries(found), magnitudes(found)
    charts |= {f"bump/{table.key}/{name}": chart for table in concepts for name, chart in table.bumps.items()}
    charts |= {f"size/{recipe}/{layer}": chart for recipe, made in sizes.items() for layer, chart in made.items()}
    readable, selectivities, similarities = readable_views(found), selectivity_views(found), similarity_views(found)
    for made in (*(view.figures for view in readable), *(view.figures for view in selectivities)):
        charts |= made
    trusted = trust_views(found)
    charts |= {place: made for view in trusted for place, made in view.figures.items()}
    columns, rows = checkpoints(found)
    chosen = layers(found)
    return {
        "answers": answers(found), "summary": summary(found), "problems": caveats(found),
        "figures": charts, **_choosers(found, charts), "verdicts": verdicts(found),
        "galleries": shown, "choices": CHOICES, "sprites": _sprites(shown),
        "small": max(found.data["shape"][1:]) <= 64, "concepts": concepts, "classes": by_class(found),
        "unit_views": unit_views(found), "unit_lead": LEAD,
        "readable": readable, "readable_lead": READABLE_LEAD, "game": game(found), "game_asset": asset,
        "selectivities": selectivities, "similarities": similarities,
        "claims": claim_view(found), "claims_lead": CLAIMS_LEAD, "claim_columns": CLAIM_COLUMNS,
        "detector_views": detector_views(found), "detector_lead": DETECTORS,
        "tcav_views": tcav_views(found), "tcav_lead": TCAV_LEAD,
        "trust_views": trusted,
        "sparsity_columns": COLUMNS, "sparsity": sparsity(found), "effective": EFFECTIVE,
        "sizes": {recipe: list(made) for recipe, made in sizes.items()},
        "layer_tables": [*layer_tables(found), *sensitivity_tables(found)],
        "networks": chosen.networks, "layers": safe_json(chosen.data), "as_json": safe_json,
        "costs": cost_tables(found), "checkpoint_columns": columns, "checkpoints": rows,
        "provenance": provenance(found), "config": yaml.safe_dump(found.study.as_mapping(), sort_keys=False),
    }  # fmt: skip


def _choosers(found: Results, charts: dict[str, Figure]) -> dict[str, Any]:
    """Choices of the menus: {figure: words}, and what is shown first."""
    accuracy = f"metric/{performance_key(found.study)}.top1"
    others = {key: chart["title"] for key, chart in charts.items() if key.startswith("metric/") and key != accuracy}
    wanted = [key for key in others if ".inside.reference" in key or key.endswith(".balanced_accuracy")]
    drifts = {item.figure: item for item in measures(found)}
    first = [item.figure for item in headlines(found) if item.family == "maps"]
    return {
        "accuracy": accuracy if accuracy in charts else "", "metrics": others,
        "first_metric": (wanted[::-1] or list(others) or [""])[0], "measures": drifts,
        "first_measure": (first or list(drifts) or [""])[0],
    }  # fmt: skip


def _sprites(shown: list[Gallery]) -> dict[str, str]:
    """{image id: picture}: each picture is on the page once."""
    return {row.image: row.picture for gallery in shown for rows in gallery.groups.values() for row in rows}
