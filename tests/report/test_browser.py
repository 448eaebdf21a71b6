"""The page in a real browser: drawn without errors or requests, usable by mouse and keyboard, at any width."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hostile_nets import LAYER
from tabs import CONTRAST, NEEDED, opened_in, overflow

from prunescope.report.build import build_report

pytestmark = [pytest.mark.browser, NEEDED]


@pytest.fixture(scope="module", params=[("light", 1280), ("dark", 390)], ids=["laptop", "phone"])
def opened(browser: Any, page: Path, request: pytest.FixtureRequest) -> Iterator[tuple[Any, list[str]]]:
    """The page in a tab, and what went wrong so far: errors, console messages, requests."""
    scheme, width = request.param
    made, wrong = opened_in(browser, page, viewport={"width": width, "height": 850}, color_scheme=scheme)
    made.wait_for_selector(".plot svg.main-svg")
    yield made, wrong
    made.close()


@pytest.fixture
def tab(opened: tuple[Any, list[str]]) -> Iterator[Any]:
    """The page; whatever a test does with it, nothing may go wrong."""
    made, wrong = opened
    yield made
    assert not wrong


def scroll_through(tab: Any) -> None:
    for y in range(0, tab.evaluate("document.documentElement.scrollHeight"), 500):
        tab.evaluate(f"window.scrollTo(0, {y})")
        tab.wait_for_timeout(30)


def test_keyboard(tab: Any) -> None:
    """The first stop skips the header; controls are reached by Tab and their focus can be seen."""
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.className") == "skip"
    reached = set()
    for _ in range(60):
        tab.keyboard.press("Tab")
        reached.add(tab.evaluate("document.activeElement.id || document.activeElement.tagName"))
        assert tab.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
        if "measure" in reached:
            break
    assert {"theme", "metric", "subset"} <= reached


def test_everything_is_drawn_and_fits(tab: Any) -> None:
    scroll_through(tab)
    tab.wait_for_function("Array.from(document.querySelectorAll('.plot')).every(e => e.querySelector('svg'))")
    assert overflow(tab) == 0
    assert tab.evaluate("window.broken") is None
    legends = tab.locator(".legendtext").all_text_contents()
    assert any("<script>alert('late')</script>" in text for text in legends)


def test_theme(tab: Any) -> None:
    before = tab.evaluate("[document.documentElement.dataset.theme, getComputedStyle(document.body).backgroundColor]")
    assert before[0] == ("dark" if tab.evaluate("matchMedia('(prefers-color-scheme: dark)').matches") else "light")
    ink = tab.locator(".legendtext").first.evaluate("e => getComputedStyle(e).fill")
    tab.click("#theme")
    after = tab.evaluate("[document.documentElement.dataset.theme, getComputedStyle(document.body).backgroundColor]")
    assert after[0] != before[0]
    assert after[1] != before[1]
    assert tab.locator(".legendtext").first.evaluate("e => getComputedStyle(e).fill") != ink


def test_measures(tab: Any) -> None:
    tab.locator("#verdicts button[data-show]:visible").nth(2).click()
    wanted = tab.locator("#verdicts button[data-show]:visible").nth(2).get_attribute("data-show")
    assert tab.locator("#drift-chart .plot").get_attribute("data-figure") == wanted
    assert f"drift/{tab.locator('#measure').input_value()}" == wanted
    keys = tab.locator("#measure option").evaluate_all("all => all.map(e => e.value)")
    for key in keys:
        tab.select_option("#measure", key)
        assert tab.locator("#drift-chart svg.main-svg").count() > 0
        assert tab.locator("#equal-chart .plot").get_attribute("data-figure") == f"accuracy/{key}"
    title = tab.locator("#drift-chart .chart-title").inner_text()
    assert tab.locator("#drift-chart .plot").get_attribute("aria-label").startswith(title)
    tab.locator("#drift-chart .numbers summary").click()
    tab.locator("#drift-chart .numbers td").first.wait_for()  # filled when the browser tells that it was opened
    assert tab.locator("#drift-chart .numbers td").count() > 0
    rows = tab.locator("#verdicts tbody tr:visible").count()
    tab.select_option("#subset", "every")
    assert tab.locator("#verdicts tbody tr:visible").count() > rows
    for key in tab.locator("#metric option").evaluate_all("all => all.map(e => e.value)"):
        tab.select_option("#metric", key)
        assert tab.locator("#metric-chart svg.main-svg").count() > 0


def test_pictures(tab: Any) -> None:
    shown = tab.locator(".gallery:visible")
    assert shown.count() == 1
    first = shown.inner_text()
    for how in ("drift", "flips", "hit"):
        tab.select_option("#gallery-how", how)
        assert shown.count() == 1
        assert shown.get_attribute("data-how") == how
    tab.select_option("#gallery-how", "random")
    tab.select_option("#gallery-which", index=1)
    assert shown.count() == 1
    assert shown.inner_text() != first
    under = shown.locator(".under").first
    assert under.evaluate("e => getComputedStyle(e).backgroundImage").startswith('url("data:image/png')
    assert overflow(tab) == 0


def test_concepts(tab: Any) -> None:
    for index in range(tab.locator("#bump-class option").count()):
        tab.select_option("#bump-class", index=index)
    tab.select_option("#concept-which", index=1)
    assert tab.locator(".concepts:visible").count() == 1
    assert overflow(tab) == 0


def test_layers_of_a_network(tab: Any) -> None:
    table = tab.locator("#layer-rows")
    rows = table.locator("tbody tr")
    assert [row.split("\n")[0].strip() for row in rows.locator("th").all_inner_texts()] == ["conv1", "conv2", "head"]
    keys = tab.locator("#network option").evaluate_all("all => all.map(e => e.value)")
    seen = set()
    for key in keys:
        tab.select_option("#network", key)
        seen.add(table.locator("tbody").inner_text())
    assert len(seen) == len(keys)
    assert table.locator(".bar i").count() > 0
    for falling in (True, False):
        table.locator("thead button").nth(4).click()
        assert table.locator("th[aria-sort]").get_attribute("aria-sort") == ("descending" if falling else "ascending")
        kept = [
            int(text.split(" of ")[0].replace(",", "")) for text in rows.locator("td:nth-child(5)").all_inner_texts()
        ]
        assert kept == sorted(kept, reverse=falling)
        assert len(set(kept)) > 1
    for key in tab.locator("#size option").evaluate_all("all => all.map(e => e.value)"):
        tab.select_option("#size", key)
        assert tab.locator("#size-chart .plot").get_attribute("data-figure") == key
        assert tab.locator("#size-chart svg.main-svg").count() > 0
    assert overflow(tab) == 0


def test_collapsed_layers_with_hostile_names(browser: Any, collapsed: Path, tmp_path: Path) -> None:
    tab = browser.new_page(viewport={"width": 1280, "height": 850})
    wrong: list[str] = []
    tab.on("console", lambda message: wrong.append(message.text))
    tab.on("pageerror", lambda error: wrong.append(str(error)))
    tab.goto(build_report(collapsed, tmp_path / "report.html").resolve().as_uri())
    tab.evaluate("document.querySelectorAll('details').forEach(e => { e.open = true; })")
    tab.select_option("#network", tab.locator("#network option").nth(2).get_attribute("value"))  # the second round
    badges = tab.locator("#layer-rows .badge").all_inner_texts()
    assert "empty" in badges
    assert LAYER in tab.locator("#layer-rows tbody th").all_inner_texts()
    for key in tab.locator("#size option").evaluate_all("all => all.map(e => e.value)"):
        tab.select_option("#size", key)
    scroll_through(tab)
    assert tab.evaluate("window.broken") is None
    assert tab.evaluate(CONTRAST) == []
    assert overflow(tab) == 0
    assert not wrong
    tab.close()


def test_contrast_of_all_text(tab: Any) -> None:
    tab.evaluate("document.querySelectorAll('details').forEach(e => { e.open = true; })")
    assert tab.evaluate(CONTRAST) == []
    tab.click("#theme")
    assert tab.evaluate(CONTRAST) == []
