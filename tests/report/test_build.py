"""The page as a file: built from any study, the same bytes again, nothing in it that runs or loads by accident."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hostile_data import NAMES, SCRIPT
from hostile_study import RECIPE, run

from prunescope.core.errors import PrunescopeError
from prunescope.report.answers import answers
from prunescope.report.build import build_report
from prunescope.report.glance import mark
from prunescope.report.places import number
from prunescope.report.safe import plotly, safe_json
from prunescope.report.tables import TABLES
from prunescope.study.results import results


class Reader(HTMLParser):
    """Elements, attributes and text as a browser's parser would find them."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text = ""
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts.append(data)
        elif self._inside != "style":
            self.text += data


@pytest.fixture(scope="module")
def read(page: Path) -> Reader:
    return Reader(page.read_text())


def test_hostile_names_are_text(read: Reader, page: Path) -> None:
    assert len([tag for tag, _ in read.elements if tag == "script"]) == 5  # theme, figures, layers, plotly, ours
    assert not [tag for tag, attrs in read.elements if tag == "svg" or (tag == "i" and "class" not in attrs)]
    assert not [a for _, attrs in read.elements for a in attrs if a.startswith("on")]
    for name in (*NAMES, SCRIPT, RECIPE):
        assert name in read.text
    ours = page.read_text().replace(plotly(), "")
    assert "window.broken=1</script>" not in ours
    assert "<img src=x" not in ours


def test_figures_are_json_and_their_names_are_no_markup(read: Reader) -> None:
    figures = json.loads(read.scripts[1])
    assert any(key.startswith("drift/") for key in figures)
    shown = [trace.get("name", "") for figure in figures.values() for trace in figure["data"]]
    assert any("script" in name for name in shown)
    assert not [name for name in shown if "<" in name]
    assert {"title", "alt", "note", "table"} <= set(next(iter(figures.values())))
    for figure in figures.values():  # every chart has its numbers as a table, too
        assert figure["table"]["rows"]
        assert {len(row) for row in figure["table"]["rows"]} == {len(figure["table"]["columns"])}


def test_nothing_is_fetched(read: Reader, page: Path) -> None:
    for tag, attributes in read.elements:
        assert tag not in ("link", "iframe", "object", "embed", "base", "form")
        for name in ("src", "href", "srcset", "action", "data"):
            assert (attributes.get(name) or "#").startswith(("#", "data:")), (tag, attributes)
    policy = next(a["content"] for _, a in read.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert "default-src 'none'" in policy
    ours = page.read_text().replace(plotly(), "")
    assert not re.findall(r"url\((?!data:)", ours)
    assert "@import" not in ours


def test_size(page: Path) -> None:
    assert len(page.read_bytes()) - len(plotly().encode()) < 1_500_000


def test_structure_for_readers_of_all_kinds(read: Reader) -> None:
    tags = [tag for tag, _ in read.elements]
    assert tags.count("h1") == tags.count("main") == 1
    assert dict(read.elements)["html"]["lang"] == "en"
    ids = [a["id"] for _, a in read.elements if a.get("id")]
    assert len(ids) == len(set(ids))
    for tag, attributes in read.elements:
        if tag == "a":
            assert (attributes["href"] or "")[1:] in ids
        if tag == "th":
            assert attributes.get("scope") in ("row", "col")
        if tag == "img":
            assert "alt" in attributes
        if attributes.get("role") == "img":
            assert attributes.get("aria-label")
    labelled = {a.get("for") for tag, a in read.elements if tag == "label"}
    assert {a["id"] for tag, a in read.elements if tag in ("select", "input")} <= labelled
    assert tags.count("table") == tags.count("caption")


def test_rebuilt_with_the_same_bytes(finished: Path, page: Path, tmp_path: Path) -> None:
    again = build_report(finished, tmp_path / "again.html")
    assert again.read_bytes() == page.read_bytes()
    for name in TABLES:
        assert (tmp_path / "tables" / f"{name}.csv").read_bytes() == (
            page.parent / "tables" / f"{name}.csv"
        ).read_bytes()


def test_tables_hold_what_the_page_shows(finished: Path, page: Path) -> None:
    found = results(finished)
    elsewhere = {  # nothing in this study goes by them
        "sensitivity", "unit_layers", "unit_classes", "dissection", "tcav", "sanity", "mis_layers",
        "selectivity_layers", "similarity_layers",
    }  # fmt: skip
    for name in TABLES:
        csv = pd.read_csv(page.parent / "tables" / f"{name}.csv")
        parquet = pd.read_parquet(page.parent / "tables" / f"{name}.parquet")
        assert len(csv) == len(parquet), name
        assert (len(csv) > 0) == (name not in elsewhere), name
        assert list(csv) == list(parquet)
    classes = pd.read_parquet(page.parent / "tables" / "classes.parquet")
    assert len(classes) == len(found.points) * len(NAMES)
    point = next(p for p in found.points if p.role == "ticket")
    mine = classes[classes["checkpoint"] == point.checkpoint].set_index("class")
    record = found.record(point, "performance")
    assert mine.loc[NAMES[0], "recall"] == pytest.approx(record.arrays["class.recall"][0])
    flips = pd.read_parquet(page.parent / "tables" / "flips.parquet")
    moved = flips[flips["checkpoint"] == point.checkpoint]["images"].sum()
    drift = found.drift[(found.drift["distance"] == "agreement") & (found.drift["role"] == "ticket")]
    same = drift[(drift["seed"] == point.seed) & (drift["round"] == point.round)]["value"].iloc[0]
    assert moved == round((1 - same) * len(record.arrays["image.label"]))
    pooled = pd.read_parquet(page.parent / "tables" / "pooled.parquet")
    shares = pooled[pooled["distance"] == "agreement"]
    assert shares["high"].max() <= 1
    assert shares["low"].min() >= 0


def test_the_digest_says_what_the_page_says(finished: Path, page: Path) -> None:
    text = (page.parent / "summary.md").read_text()
    for answer in answers(results(finished)):
        assert f"## {html.escape(answer.recipe, quote=False)}: {answer.short}\n" in text
    assert "<" not in text
    pooled = pd.read_parquet(page.parent / "tables" / "pooled.parquet")
    agreement = pooled[(pooled["role"] == "ticket") & (pooled["distance"] == "agreement")]
    for _, rows in agreement.groupby("recipe", sort=False):
        cells = [
            f"{number(row.value)} {mark(row.verdict)[0]} ({number(row.low)} to {number(row.high)})"
            for row in rows.sort_values("density", ascending=False).itertuples()
        ]
        assert f"| Same decision | performance |  | {' | '.join(cells)} | " in text


def test_tables_of_the_digest_are_whole(page: Path) -> None:
    blocks = (page.parent / "summary.md").read_text().split("\n\n")
    for block in blocks:
        if block.startswith("|"):
            assert len({line.replace("\\|", "").count("|") for line in block.splitlines()}) == 1


Without = Callable[[Callable[[dict[str, Any]], bool]], Path]


def test_unfinished(without: Without) -> None:
    root = without(lambda cell: cell["kind"] == "retrain" and cell["params"]["round"] == 2)
    text = Reader(build_report(root).read_text()).text
    assert "not complete and are left out" in text
    assert "50\u00a0%" in text


def test_only_the_dense_networks_are_done(without: Without) -> None:
    text = Reader(build_report(without(lambda cell: cell["kind"] in ("prune", "retrain"))).read_text()).text
    assert "Nothing pruned yet." in text
    assert "Dense accuracy" in text


def test_only_the_data_is_there(without: Without) -> None:
    assert "Nothing pruned yet." in Reader(build_report(without(lambda cell: cell["kind"] != "data")).read_text()).text


def test_nothing_is_there(without: Without, tmp_path: Path) -> None:
    with pytest.raises(PrunescopeError, match="nothing is done yet"):
        build_report(without(lambda cell: True))
    with pytest.raises(PrunescopeError, match="no study in"):
        build_report(tmp_path / "elsewhere")


def test_a_dense_network_is_lost_and_cells_have_failed(without: Without) -> None:
    root = without(lambda cell: cell["kind"] == "train" and cell["label"] == "dense seed 2")
    (root / "failed").mkdir()
    failure = {"cell": "retrain-0", "label": "late", "error": f"Diverged: {SCRIPT}"}
    (root / "failed" / "retrain-0.json").write_text(json.dumps(failure))
    page = Reader(build_report(root).read_text())
    assert f"Diverged: {SCRIPT}" in page.text
    assert "There is no noise floor" in page.text


def test_one_seed_two_classes_no_explanations(tmp_path: Path) -> None:
    root = run(
        tmp_path / "study", data={"name": "tests.report.hostile_data:evil", "classes": 2}, seeds=1,
        controls="none", probes=["performance"],
    )  # fmt: skip
    text = Reader(build_report(root).read_text()).text
    assert "This study measures no explanations" in text
    assert "Changed decisions by true class" in text


def test_no_recipes(tmp_path: Path) -> None:
    root = run(tmp_path / "study", seeds=1, recipes=[], probes=["performance", "gradcam"])
    text = Reader(build_report(root).read_text()).text
    assert "Nothing pruned yet." in text
    assert "What the networks looked at" not in text


def test_many_classes(tmp_path: Path) -> None:
    data = {"name": "tests.report.hostile_data:many"}
    recipes = [{"name": "once", "schedule": {"density": 0.2, "kind": "one-shot"}, "rewind": {"to": "init"}}]
    root = run(tmp_path / "study", data=data, seeds=2, recipes=recipes, probes=["performance", "gradcam"])
    page = build_report(root)
    assert "Of 200 classes the 40 that lose most are shown." in Reader(page.read_text()).text
    assert len(pd.read_csv(page.parent / "tables" / "classes.csv")["class"].unique()) == 200


def test_json_cannot_end_its_element() -> None:
    text = "</script><!--\u2028\u2029&"
    assert json.loads(safe_json({text: text})) == {text: text}
    assert not set("<>&\u2028\u2029") & set(safe_json({text: text}))
    with pytest.raises(ValueError, match="Out of range"):
        safe_json(float("nan"))
