"""The game in a real browser: answered by mouse and by keys, counted beside the machine, started again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tabs import CONTRAST, NEEDED, opened_in, overflow

from prunescope.report.build import build_report

pytestmark = [pytest.mark.browser, NEEDED]


@pytest.fixture(scope="module")
def written(readable: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_report(readable, tmp_path_factory.mktemp("game") / "report.html")


@pytest.fixture(scope="module", params=[("light", 1280), ("dark", 390)], ids=["laptop", "phone"])
def opened(browser: Any, written: Path, request: pytest.FixtureRequest) -> Iterator[tuple[Any, list[str]]]:
    scheme, width = request.param
    made, wrong = opened_in(browser, written, viewport={"width": width, "height": 850}, color_scheme=scheme)
    yield made, wrong
    made.close()


@pytest.fixture
def tab(opened: tuple[Any, list[str]]) -> Iterator[Any]:
    made, wrong = opened
    made.select_option("#game-network", "")
    made.select_option("#game-which", "")
    made.select_option("#game-length", "12")
    made.click("#game-again")
    yield made
    assert not wrong
    assert made.evaluate("window.broken") is None


# The task that is shown, and which of the two queries is the right one: found by its pictures.
SHOWN = """
() => {
  const { tasks, pictures } = JSON.parse(document.getElementById("game-data").textContent);
  const sources = (id) => Array.from(document.querySelectorAll(`#${id} img`), (e) => e.src).join();
  const own = (places) => places.map((place) => pictures[place]).join();
  const fits = (t) => own(t.up.slice(1)) === sources("game-up") && own(t.down.slice(1)) === sources("game-down");
  const task = tasks.find(fits), up = pictures[task.up[0]], down = pictures[task.down[0]];
  const shown = ["first", "second"].map((name) => document.querySelector(`#game-${name} img`).src);
  const right = shown.indexOf(up);
  return { task, right, sound: shown[right] === up && shown[1 - right] === down };
}
"""


TASKS = "JSON.parse(document.getElementById('game-data').textContent).tasks"


def count(tab: Any, who: str) -> str:
    return " ".join(tab.locator(f"#game-{who}").inner_text().split())


def test_right_and_wrong_answers_are_counted_beside_the_machine(tab: Any) -> None:
    mine, machine, sides = 0, 0.0, set()
    for number, wish in enumerate((True, False, True, True, False, True), start=1):
        shown = tab.evaluate(SHOWN)
        assert shown["sound"]
        sides.add(shown["right"])
        tab.locator(".query").nth(shown["right"] if wish else 1 - shown["right"]).click()
        mine, machine = mine + wish, machine + shown["task"]["machine"]
        assert count(tab, "you") == f"{mine} of {number}"
        assert count(tab, "machine") == f"{machine:g} of {number}"
        assert count(tab, "chance") == f"{number / 2:g} of {number}"
        told = tab.locator("#game-told").inner_text()
        assert ("Right" in told) == wish
        assert shown["task"]["layer"] in told
        assert tab.locator(".query:disabled").count() == 2
        assert tab.locator(".query.is-up").count() == tab.locator(".query.is-down").count() == 1
        assert tab.locator("#game-marks-you i").count() == number
        assert tab.evaluate("document.activeElement.id") == "game-next"
        tab.click("#game-next")
        assert tab.locator("#game-told").inner_text() == ""
    assert overflow(tab) == 0


def test_a_second_click_does_not_count(tab: Any) -> None:
    tab.locator("#game-first").click()
    tab.evaluate("document.getElementById('game-second').click()")
    tab.keyboard.press("2")
    assert count(tab, "you").endswith("of 1")


def test_keys_play_to_the_end_and_the_result_adds_up(tab: Any) -> None:
    tab.select_option("#game-network", "1")
    tab.select_option("#game-length", "")
    tab.locator("#game-first").focus()
    mine, machine, total = 0, 0.0, 0
    by_which: dict[str, int] = {}
    while True:
        shown = tab.evaluate(SHOWN)
        assert shown["task"]["network"] == 1
        tab.keyboard.press("2" if total % 2 else "ArrowLeft")
        right = shown["right"] == total % 2
        mine, machine, total = mine + right, machine + shown["task"]["machine"], total + 1
        by_which[shown["task"]["which"]] = by_which.get(shown["task"]["which"], 0) + right
        if tab.locator("#game-end").is_visible():
            break
        assert total < 60
        tab.keyboard.press("Enter")
    assert total == sum(task["network"] == 1 for task in tab.evaluate(TASKS))
    rows = [[cell.strip() for cell in row.split("\t")] for row in tab.locator("#game-end tbody tr").all_inner_texts()]
    assert rows[0] == ["all", str(mine), f"{machine:g}", str(total)]
    assert len(rows) == 2 + 3  # all, the one network, best, median and worst
    assert {row[0].split()[0]: int(row[1]) for row in rows[2:]} == by_which
    assert tab.locator("#game-next").is_hidden()
    assert tab.evaluate(CONTRAST) == []
    assert overflow(tab) == 0
    assert tab.evaluate("document.activeElement.id") == "game-again"
    tab.keyboard.press("Enter")
    assert count(tab, "you") == "0 of 0"
    assert tab.locator("#game-end").is_hidden()


def test_a_round_has_as_many_tasks_as_were_asked_for(tab: Any) -> None:
    assert tab.locator("#game-left").inner_text() == "12 to go"
    tab.select_option("#game-length", "24")
    assert tab.locator("#game-left").inner_text() == "24 to go"


def test_units_can_be_chosen_and_pictures_are_drawn(tab: Any) -> None:
    for which in ("best", "worst"):
        tab.select_option("#game-which", which)
        assert tab.evaluate(SHOWN)["task"]["which"] == which
    assert tab.evaluate(
        "Array.from(document.querySelectorAll('#game img'), e => e.complete && e.naturalWidth).every(w => w === 16)"
    )
    assert tab.locator("#game-up img").count() == tab.locator("#game-down img").count() == 9


def test_charts_are_drawn(tab: Any) -> None:
    for chooser, chart in (("#readable-chart-of", "#readable-chart"), ("#selectivity-chart-of", "#selectivity-chart")):
        for key in tab.locator(f"{chooser} option").evaluate_all("all => all.map(e => e.value)"):
            tab.select_option(chooser, key)
            assert tab.locator(f"{chart} .plot").get_attribute("data-figure") == key
            assert tab.locator(f"{chart} .boxlayer path.box").count() > 0
    assert overflow(tab) == 0


def test_contrast_of_all_text(tab: Any) -> None:
    tab.evaluate(
        "document.querySelectorAll('#readable details, #representations details').forEach(e => { e.open = true; })"
    )
    tab.locator("#game-first").click()
    assert tab.evaluate(CONTRAST) == []
