"""Claims as the page and the digest show them: supported, not supported or undecided, with the numbers behind each."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

from prunescope.report.charts import sentence_case
from prunescope.report.facts import metrics
from prunescope.report.measures import array_words
from prunescope.report.places import number, percent, units
from prunescope.report.style import ROLES
from prunescope.study.claims import stated
from prunescope.study.results import MEASURE, Results

CLAIMS_LEAD = (
    "A claim says that pruning changes a measure by at least a margin that was set before. Supported: a change is "
    "shown (Student's t-test), and it is at least the margin. Not supported: it is shown to be smaller than the margin "
    "(two one-sided tests). Undecided: neither; that nothing was shown does not mean that there is nothing. The "
    "network is the unit, networks of one seed are compared, the spread between seeds is pooled over a recipe's "
    "densities, and p is corrected (Holm) for the number of all claims on this page."
)
COLUMNS = ("at", "beside", "outcome", "difference", "95 % interval", "margin", "p, difference", "p, equivalence",
           "seeds", "seeds needed")  # fmt: skip


@dataclass(frozen=True)
class ClaimTable:
    """All claims about one measure: rows as in `COLUMNS`, and what the rate does to it, in sentences."""

    title: str
    counts: str
    rows: tuple[tuple[str, ...], ...]
    words: tuple[str, ...]


@dataclass(frozen=True)
class ClaimView:
    """The section; `tables` is empty where nothing is claimed."""

    words: tuple[str, ...]
    tables: tuple[ClaimTable, ...]


def claim_view(found: Results) -> ClaimView:
    """One table per measure, in the study's order."""
    told = stated(found)
    claims, titles = told.claims, _titles(found)
    tables = []
    for measure in dict.fromkeys(claims["measure"]):
        mine = claims[claims["measure"] == measure]
        rows = tuple(_row(found, row) for _, row in mine[mine["recipe"].notna()].iterrows())
        relations = told.relations[told.relations["measure"] == measure].set_index("claim")
        words = tuple(_relation(row, relations.loc[row["claim"]]) for _, row in mine[mine["recipe"].isna()].iterrows())
        tables.append(ClaimTable(titles.get(measure, measure), _counts(mine), rows, words))
    words = () if claims.empty else (f"Of {len(claims)} claims {_counts(claims)}.", *_advice(claims), *told.notes)
    return ClaimView(words, tuple(tables))


def _titles(found: Results) -> dict[str, str]:
    """{measure: its title}."""
    drifts = found.drift.drop_duplicates(MEASURE)[[*MEASURE, "title"]].itertuples(index=False, name=None)
    told = {column: fact.title for column, fact in metrics(found).items()} if len(found.runs) else {}
    for *measure, title in drifts:
        images = "both right" if measure[3] == "both_right" else "all images"
        told["/".join(measure)] = f"{title} ({array_words(measure[0], measure[1])}, {images})"
    told = {measure: sentence_case(title) for measure, title in told.items()}
    often = Counter(told.values())
    return {
        measure: title if often[title] == 1 else f"{title} ({measure.partition('.')[0]})"
        for measure, title in told.items()
    }


def _counts(claims: pd.DataFrame) -> str:
    """`2 supported, 3 not supported, 1 undecided`."""
    known = Counter(claims["outcome"])
    return ", ".join(f"{known[name]} {name}" for name in ("supported", "not supported", "undecided"))


def _advice(claims: pd.DataFrame) -> Iterator[str]:
    """Where too few seeds leave claims undecided: how many would do."""
    open_ = claims[(claims["outcome"] == "undecided") & claims["recipe"].notna()]
    needed = open_["needed"].dropna()
    if (open_["runs"] < 2).any():
        yield "Where there is a single seed, nothing can be decided: give at least two ticket seeds."
    if len(needed):
        yield (
            f"If mean and spread stayed as they are, {int(needed.median())} ticket seeds would decide half of the "
            f"undecided claims with a probability of 80\u00a0%, counted claim by claim."
        )


def _row(found: Results, row: pd.Series[Any]) -> tuple[str, ...]:
    kept = f"{percent(row['density'])} of the {units(found, row['recipe'])}"
    role = "" if row["role"] == "ticket" else f", {ROLES[row['role']]}"
    interval = f"{signed(row['low'])} to {signed(row['high'])}" if math.isfinite(row["low"]) else "–"
    needed = "–" if row["needed"] is None or pd.isna(row["needed"]) else f"{int(row['needed'])}"
    return (
        f"{row['recipe']}{role}, {kept}", str(row["against"]), str(row["outcome"]), signed(row["value"]), interval,
        f"{row['margin']:g}", chance(row["p"]), chance(row["p_equal"]), f"{row['runs']}", needed,
    )  # fmt: skip


def _relation(claim: pd.Series[Any], row: pd.Series[Any]) -> str:
    """One sentence for one claim that a measure changes with the rate."""
    which = "retrained networks" if row["role"] == "ticket" else f"networks that were {ROLES[row['role']]}"
    text = (
        f"It changes with the rate in {which}: {claim['outcome']}. Within methods, from the lowest rate to the "
        f"highest: {signed(claim['value'])} ({signed(claim['low'])} to {signed(claim['high'])}; {row['runs']} "
        f"networks; margin {claim['margin']:g}; permutation {equals(claim['p'])}, equivalence "
        f"{equals(claim['p_equal'])}, both corrected)."
    )
    if row["model"] in ("random", "fixed"):
        held = f", accuracy held {_effect(row, 'rate')}" if pd.notna(row["accuracy"]) else f" {_effect(row, 'rate')}"
        text += f" Mixed model with method and seed as groups, per unit of rate{held}"
        text += f"; per unit of accuracy {_effect(row, 'accuracy')}." if pd.notna(row["accuracy"]) else "."
        text += " Its groups have fixed intercepts." if row["model"] == "fixed" else ""
    if row["note"] and row["model"] != "random":
        text += f" {sentence_case(row['note'])}"
    if math.isfinite(row["pooled_r"]) and row["methods"] > 1:
        text += (
            f" All {row['methods']} methods pooled, which takes differences between them for an effect: r "
            f"{signed(row['pooled_r'])} ({signed(row['pooled_low'])} to {signed(row['pooled_high'])}), "
            f"{equals(row['pooled_p'])}."
        )
    return text


def _effect(row: pd.Series[Any], name: str) -> str:
    low, high = signed(row[f"{name}_low"]), signed(row[f"{name}_high"])
    return f"{signed(row[name])} ({low} to {high}), {equals(row[f'{name}_p'])}"


def signed(value: float) -> str:
    """Three digits behind the point, with a sign.

    >>> signed(0.0123), signed(-0.5)
    ('+0.012', '−0.500')
    """
    return f"+{number(value)}" if math.isfinite(value) and value >= 0 else number(value)


def chance(p: float) -> str:
    """A p value for a table.

    >>> chance(0.00001), chance(0.0312), chance(float("nan"))
    ('< 0.001', '0.031', '–')
    """
    return "–" if not math.isfinite(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def equals(p: float) -> str:
    """A p value for a sentence: `p = 0.031`."""
    text = chance(p)
    return f"p {text}" if text.startswith("<") else "p not known" if text == "–" else f"p = {text}"
