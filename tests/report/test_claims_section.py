"""The section on claims: what `study.claims` found, in words and tables, on the page and in the files beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hostile_study import RECIPE
from tabs import CONTRAST, NEEDED, opened_in, overflow

from claimed import MAPS, results_of
from prunescope.report.build import render
from prunescope.report.claims import COLUMNS, ClaimTable, chance, claim_view, equals, signed
from prunescope.study.claims import stated
from prunescope.study.results import results


def table(found: Any, title: str) -> ClaimTable:
    return next(item for item in claim_view(found).tables if item.title == title)


def test_every_claim_is_told_with_its_numbers(tmp_path: Path) -> None:
    found = results_of(tmp_path)
    view, claims = claim_view(found), stated(found).claims
    assert sum(len(item.rows) + len(item.words) for item in view.tables) == len(claims)
    shown = table(found, "Accuracy")
    row = next(row for row in shown.rows if row[0] == "<filters>, 50\u00a0% of the filters")
    wanted = claims[claims["claim"] == "performance.top1 differs: <filters>, ticket, round 2"].iloc[0]
    assert row == (
        "<filters>, 50\u00a0% of the filters", "dense, retrained (nothing)", "supported", signed(wanted["value"]),
        f"{signed(wanted['low'])} to {signed(wanted['high'])}", "0.01", chance(wanted["p"]),
        chance(wanted["p_equal"]), "3", "–",
    )  # fmt: skip
    assert len(row) == len(COLUMNS)
    assert any(row[0] == "weights, cut, not retrained, 20\u00a0% of the weights" for row in shown.rows)
    counts = claims["outcome"].value_counts()
    assert view.words[0].startswith(f"Of {len(claims)} claims {counts['supported']} supported, ")
    assert shown.counts == "6 supported, 8 not supported, 0 undecided"


def test_what_the_rate_does_is_told_in_three_ways(tmp_path: Path) -> None:
    found = results_of(tmp_path)
    told = next(item for item in claim_view(found).tables if "mis" in item.title.lower()).words[0]
    assert "changes with the rate in retrained networks: supported" in told
    assert "Mixed model with method and seed as groups, per unit of rate, accuracy held −0.0" in told
    assert "All 2 methods pooled, which takes differences between them for an effect: r " in told
    titles = [item.title for item in claim_view(found).tables]
    assert "Rank correlation of heat maps (gradcam, predicted class, both right)" in titles
    assert MAPS not in titles


def test_too_few_seeds_are_told(tmp_path: Path) -> None:
    view = claim_view(results_of(tmp_path, seeds=1))
    assert any("a single seed" in sentence for sentence in view.words)
    wide = results_of(tmp_path, noise=0.02)
    needed = stated(wide).claims["needed"].dropna()
    told = next(sentence for sentence in claim_view(wide).words if "would decide" in sentence)
    assert f"{int(needed.median())} ticket seeds" in told


def test_equal_titles_are_told_apart(tmp_path: Path) -> None:
    margins = {"gradcam.blank.true": 0.01, "attribution.blank.true": 0.01}
    found = results_of(tmp_path, probes=["performance", "gradcam", "attribution"], claims={"margins": margins})
    for column in margins:
        found.runs[column] = 0.5
    titles = {item.title for item in claim_view(found).tables}
    assert titles == {"Blank heat maps, true class (gradcam)", "Blank heat maps, true class (attribution)"}


def test_nothing_claimed_is_no_section(tmp_path: Path) -> None:
    found = results_of(tmp_path)
    found.runs = pd.DataFrame()
    assert claim_view(found).tables == ()


def test_the_page_and_the_files_have_them(finished: Path, page: Path) -> None:
    found = results(finished)
    text, claims = render(found), stated(found).claims
    assert text.count('<section id="claims"') == text.count('href="#claims"') == 1
    assert RECIPE not in text.split('<section id="claims"')[1].split("</section>")[0]
    digest = (page.parent / "summary.md").read_text()
    assert "## Claims" in digest
    assert digest.count("| undecided |") == int(((claims["outcome"] == "undecided") & claims["recipe"].notna()).sum())
    for name, wanted in (("claims", claims), ("relations", stated(found).relations)):
        for kept in (pd.read_csv(page.parent / "tables" / f"{name}.csv"),
                     pd.read_parquet(page.parent / "tables" / f"{name}.parquet")):  # fmt: skip
            assert list(kept) == list(wanted)
            assert list(kept["claim"]) == list(wanted["claim"])


@pytest.mark.parametrize(
    ("p", "text", "sentence"),
    [(0.0312, "0.031", "p = 0.031"), (0.0002, "< 0.001", "p < 0.001"), (float("nan"), "–", "p not known")],
)
def test_p_values(p: float, text: str, sentence: str) -> None:
    assert (chance(p), equals(p)) == (text, sentence)


@pytest.mark.browser
@NEEDED
def test_in_a_browser(browser: Any, page: Path) -> None:
    tab, wrong = opened_in(browser, page, viewport={"width": 390, "height": 850})
    tab.evaluate("document.querySelectorAll('#claims details').forEach(e => { e.open = true; })")
    assert tab.locator("#claims details table:visible").count() == tab.locator("#claims table").count() > 0
    assert tab.locator("#claims tbody th").first.inner_text().startswith(RECIPE)
    assert tab.evaluate("window.broken") is None
    assert tab.evaluate(CONTRAST) == []
    assert overflow(tab) == 0
    assert not wrong
    tab.close()
