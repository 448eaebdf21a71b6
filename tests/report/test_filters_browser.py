"""The page of filters in a real browser: sorted, picked, found, without errors or requests; and without scripts."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from tabs import CONTRAST, NEEDED, opened_in, overflow

from prunescope.report.filters.build import build_filter_page
from prunescope.report.filters.marks import signed

pytestmark = [pytest.mark.browser, NEEDED]


@pytest.fixture(scope="module")
def page(filter_tables: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_filter_page(filter_tables, tmp_path_factory.mktemp("filter-page") / "index.html")


@pytest.fixture(scope="module", params=[("light", 1280), ("dark", 390)], ids=["laptop", "phone"])
def opened(browser: Any, page: Path, request: pytest.FixtureRequest) -> Iterator[tuple[Any, list[str]]]:
    scheme, width = request.param
    made, wrong = opened_in(browser, page, viewport={"width": width, "height": 850}, color_scheme=scheme)
    made.wait_for_selector("#car-chart svg.main-svg")
    yield made, wrong
    made.close()


@pytest.fixture
def tab(opened: tuple[Any, list[str]]) -> Iterator[Any]:
    """The page; whatever a test does with it, nothing may go wrong."""
    made, wrong = opened
    yield made
    assert not wrong
    assert made.evaluate("window.broken") is None
    assert overflow(made) == 0


def channels(tab: Any) -> list[int]:
    return [int(text) for text in tab.locator("#unit-rows tbody th").all_inner_texts()]


def column(tab: Any, name: str) -> Any:
    return tab.locator("#unit-rows thead th", has=tab.locator(f"button:text-is('{name}')"))


def test_sorting_by_mouse_and_keyboard(tab: Any, filter_tables: Path) -> None:
    units, sees = (pd.read_csv(filter_tables / name) for name in ("units.csv", "sees.csv"))
    units = units.merge(sees, on=["layer", "channel"])
    own = units[units["layer"] == "3"]
    tab.select_option("#layer", "1")
    tab.select_option("#only", "all")
    column(tab, "channel").get_by_role("button").click()
    for name, key, falling in (("CAR", "car", True), ("place", "place", False), ("colour", "colour", True)):
        button = column(tab, name).get_by_role("button")
        for down in (falling, not falling):
            if down == falling:
                button.click()
            else:
                button.focus()
                tab.keyboard.press("Enter")
            assert column(tab, name).get_attribute("aria-sort") == ("descending" if down else "ascending")
            assert tab.locator("#unit-rows [aria-sort]").count() == 1
            expected = own.sort_values([key, "place"], ascending=not down, na_position="last")["channel"].tolist()
            assert channels(tab) == expected, (name, down)


def test_layers_and_filters_of_rows(tab: Any, filter_tables: Path) -> None:
    sees = pd.read_csv(filter_tables / "sees.csv")
    for place, (layer, own) in enumerate(sees.groupby("layer", sort=False)):
        tab.select_option("#layer", str(place))
        assert tab.locator("#car-chart .plot").get_attribute("data-figure") == f"car/{place}"
        assert f" {layer};" in tab.locator("#car-chart .plot").get_attribute("aria-label")
        assert tab.locator("#plane-chart svg.main-svg").count() > 0
        for only, wanted in (
            ("all", own), ("colour", own[own["colour_selective"] == 1]), ("shape", own[own["shape_selective"] == 1]),
            ("dead", own[own["live"] == 0]),
        ):  # fmt: skip
            tab.select_option("#only", only)
            assert sorted(channels(tab)) == wanted["channel"].tolist()
            assert tab.locator("#count").inner_text().startswith(f"{len(wanted)} ")
        assert "colour-selective" in tab.locator("#rates").inner_text()
    tab.select_option("#only", "all")


def test_pictures(tab: Any) -> None:
    tab.select_option("#layer", "0")
    tab.wait_for_function("[...document.querySelectorAll('#unit-rows img')].every(e => e.naturalWidth > 0)")
    sizes = tab.locator("#unit-rows img").evaluate_all("all => all.map(e => [e.className, e.naturalWidth])")
    assert sizes == [["kernel", 3], ["made", 6], ["strip", 12]] * 6  # four patches of three pixels
    before = tab.locator("#unit-rows .strip").first.bounding_box()["height"]
    tab.locator("#size").fill("64")
    assert before < tab.locator("#unit-rows .strip").first.bounding_box()["height"] == 64
    tab.locator("#size").fill("32")
    tab.select_option("#layer", "1")
    assert "no image excites it" in tab.locator("#unit-rows tr[data-channel='2']").inner_text()


def test_chroma_is_a_column_of_the_first_layer_only(tab: Any, filter_tables: Path) -> None:
    sees = pd.read_csv(filter_tables / "sees.csv")
    tab.select_option("#only", "all")
    tab.select_option("#layer", "0")
    button = column(tab, "kernel chroma").get_by_role("button")
    button.click()
    assert column(tab, "kernel chroma").get_attribute("aria-sort") == "descending"
    own = sees[sees["layer"] == "0"].sort_values("chroma", ascending=False)
    assert channels(tab) == own["channel"].tolist()
    assert tab.locator("#unit-rows td.chroma").all_inner_texts() == [f"{value:.2f}" for value in own["chroma"]]
    tab.select_option("#layer", "1")
    assert not button.is_visible()
    assert not tab.locator("#unit-rows td.chroma").first.is_visible()
    assert column(tab, "CAR").get_attribute("aria-sort") == "descending"


def test_selectivity_of_the_best_images(tab: Any, filter_tables: Path) -> None:
    sees = pd.read_csv(filter_tables / "sees.csv")
    tab.select_option("#only", "all")
    tab.select_option("#layer", "0")
    name = "class selectivity of best images"
    column(tab, name).get_by_role("button").click()
    own = sees[sees["layer"] == "0"].sort_values("class_selectivity", ascending=False)["class_selectivity"]
    place = tab.locator("#unit-rows thead th").all_inner_texts().index(name)
    shown = tab.locator(f"#unit-rows tbody tr > :nth-child({place + 1})").all_inner_texts()
    assert [text.split("\n")[0] for text in shown] == [f"{value:.2f}" for value in own]


def test_the_interval_of_the_class_harmed_most(tab: Any, filter_tables: Path) -> None:
    units = pd.read_csv(filter_tables / "units.csv")
    tab.select_option("#only", "all")
    tab.select_option("#layer", "0")
    harmed = 0
    for row in units[units["layer"] == "0"].itertuples():
        cell = tab.locator(f"#unit-rows tr[data-channel='{row.channel}'] td.class").first
        if pd.isna(row.worst_class):
            assert cell.inner_text() == "–"
            continue
        harmed += 1
        small = cell.locator("small").first
        assert small.inner_text() == f"{signed(row.worst_low)} to {signed(row.worst_high)}"
        assert small.get_attribute("title").startswith("p = ")
    assert harmed


def test_links_lead_to_the_row(tab: Any) -> None:
    tab.select_option("#only", "dead")
    link = tab.locator("#layer-2 a.unit").first
    link.click()
    found = tab.locator("#unit-rows tr.found")
    assert found.get_attribute("data-channel") == link.get_attribute("data-channel")
    assert tab.locator("#layer").input_value() == "2"
    assert tab.evaluate("document.activeElement.className") == "found"


def test_removal(tab: Any) -> None:
    tab.select_option("#removal-layer", "1")
    assert tab.locator(".removal:visible").count() == 1
    tab.locator(".removal:visible .plot").first.scroll_into_view_if_needed()
    tab.wait_for_selector(".removal:visible svg.main-svg")
    shown = tab.locator(".removal:visible .gone")
    assert shown.count() == 18
    assert tab.locator(".removal:visible .gone .first img").count() == 16  # one channel is dead, in two orders
    tab.select_option("#removal-layer", "0")
    assert "<script>" in tab.locator(".removal:visible .orders").inner_text()


def test_contrast_of_all_text(tab: Any) -> None:
    for _ in range(2):
        assert tab.evaluate(CONTRAST) == []
        tab.click("#theme")


def test_many_units_are_shown_bit_by_bit(browser: Any, filter_tables: Path, tmp_path: Path) -> None:
    many = Path(shutil.copytree(filter_tables, tmp_path / "many"))
    for name in ("units.csv", "classes.csv", "sees.csv"):
        table = pd.read_csv(many / name)
        rows = table[table["layer"] == "3"].sample(250, replace=True, random_state=0)
        rows = rows.assign(layer="many", channel=range(250))
        pd.concat([table, rows.assign(place=range(250)) if "place" in rows else rows]).to_csv(many / name, index=False)
    made, wrong = opened_in(browser, build_filter_page(many))
    made.select_option("#layer", "3")
    assert made.locator("#unit-rows tbody tr").count() == 100
    made.click("#more")
    assert made.locator("#unit-rows tbody tr").count() == 200
    link = made.locator("#layer-3 a.unit").last  # the least important: far down
    link.click()
    assert made.locator("tr.found").get_attribute("data-channel") == link.get_attribute("data-channel")
    assert not wrong
    made.close()


def test_without_scripts(browser: Any, page: Path) -> None:
    made, wrong = opened_in(browser, page, java_script_enabled=False)
    assert not made.locator("#units").is_visible()
    assert made.locator(".layer").count() == 3
    assert all(made.locator("table.ends").nth(i).is_visible() for i in range(3))
    assert made.locator("table.ends .strip").first.is_visible()
    assert made.locator(".removal").nth(1).is_visible()
    assert "need JavaScript" in made.locator("main").inner_text()
    assert not wrong
    made.close()
