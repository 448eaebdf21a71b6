"""How series look: one colour a series on every chart, names that cannot be read as markup."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from prunescope.study.results import Results

#: After Okabe and Ito, darkened to be seen on white and on black; distinguishable with any colour vision.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#B5549A", "#B07A00", "#3E9FD6", "#8a6d3b", "#7f7f7f")
ROLES = {
    "ticket": "ticket", "random": "random mask", "dense-control": "dense, retrained",
    "reinit": "reinitialised", "unretrained": "cut, not retrained",
}  # fmt: skip
_ROLE_COLOUR = {"random": "#B5549A", "dense-control": "#7f7f7f", "reinit": "#B07A00", "unretrained": "#8a6d3b"}
_DASH = {"ticket": "solid", "random": "dot", "dense-control": "dash", "reinit": "dashdot", "unretrained": "longdash"}
_SYMBOL = {"ticket": "circle", "random": "x", "dense-control": "square", "reinit": "diamond", "unretrained": "cross"}


@dataclass(frozen=True)
class Look:
    """Of one series."""

    colour: str
    dash: str
    symbol: str


def plain(text: object) -> str:
    """Text as Plotly shows it unchanged: its pseudo-HTML and its templates are taken out of force.

    >>> plain("<b>a & b</b>")
    '&lt;b&gt;a &amp; b&lt;/b&gt;'
    """
    return html.escape(str(text), quote=False).replace("%{", "%\u200b{")


def series_name(recipe: str, role: str) -> str:
    """Name of a series, as it is."""
    return recipe if role == "ticket" else f"{recipe}: {ROLES.get(role, role)}"


def series(table: pd.DataFrame) -> list[tuple[str, str]]:
    """(recipe, role) pairs in a fixed order: tickets first, dense networks left out."""
    if table.empty:
        return []
    pairs = {(str(recipe), str(role)) for recipe, role in zip(table["recipe"], table["role"], strict=True)}
    order = list(ROLES)
    return sorted((pair for pair in pairs if pair[1] in ROLES), key=lambda pair: (order.index(pair[1]), pair[0]))


def looks(found: Results) -> dict[tuple[str, str], Look]:
    """{(recipe, role): look}, the same on every chart.

    A ticket has its recipe's colour. Controls have a colour of their own, unless several recipes are controlled.
    """
    names = [recipe.name for recipe in found.study.recipes]
    pairs = series(found.runs)
    several = len({recipe for recipe, role in pairs if role != "ticket"}) > 1
    return {pair: _look(names.index(pair[0]), pair[1], several) for pair in pairs}


def _look(index: int, role: str, several: bool) -> Look:
    own: Mapping[str, str] = {} if several else _ROLE_COLOUR
    return Look(own.get(role, COLOURS[index % len(COLOURS)]), _DASH[role], _SYMBOL[role])
