"""What a reader must know before believing the numbers."""

from __future__ import annotations

from collections.abc import Iterator

from prunescope.report.collapsed import collapses
from prunescope.report.places import percent, recipes_done, ticket_rows, units
from prunescope.study.results import Results

#: Share of blank maps from which comparisons of the others may speak for a minority.
_MANY = 0.05


def caveats(found: Results) -> list[str]:
    """Sentences: what is missing or failed, layers that pass nothing on, blank heat maps. The page escapes them."""
    return [*found.problems, *collapses(found), *_blank(found)]


def _blank(found: Results) -> Iterator[str]:
    """A layer that pruning has emptied gives no maps, and what is not there cannot drift: this has to be said."""
    for key in found.study.probes:
        column = f"{key}.blank.reference"
        if column not in found.runs:
            continue
        for recipe in recipes_done(found):
            shares = ticket_rows(found.runs, recipe).groupby("target")[column].mean().sort_index(ascending=False)
            pairs = zip(shares.index.to_list(), shares.to_list(), strict=True)
            many = [f"{percent(share)} at {percent(density)}" for density, share in pairs if share > _MANY]
            if many:
                where = f"{', '.join(many)} of the {units(found, recipe)}"
                yield (
                    f"Heat maps of {key} are blank for many images with {recipe} ({where}): "
                    "nothing at its layer speaks for the class any more, be it that the layer is cut away (see the "
                    "density of every layer). Blank maps are left out of every comparison."
                )
