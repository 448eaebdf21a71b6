"""The answer in words follows from the verdicts, case by case."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from prunescope.report.answers import answer
from prunescope.report.caveats import caveats
from prunescope.report.glance import Cell, Kind, Lens, lenses
from prunescope.report.words import summary
from prunescope.study.results import results

VERDICT = {"w": "within the floor", "b": "beyond the floor", "u": "undecided", "-": "no floor", "x": "no floor"}
DENSITIES = (0.5, 0.2, 0.1)


def lens(subject: str, verdicts: str, kind: Kind = "reasons") -> Lens:
    """`wbx`: within at 50 %, beyond at 20 %, no value at 10 %."""
    cells = tuple(Cell(d, "–" if v == "x" else "0.5", "", VERDICT[v]) for d, v in zip(DENSITIES, verdicts, strict=True))
    return Lens(kind, subject, "", "", "" if verdicts == "---" else "0.1 to 0.2", cells)


def told(accuracy: str, *reasons: str) -> tuple[str, str]:
    names = ("heat maps", "concept rankings", "concept scores")
    seen = [lens("accuracy", accuracy, "accuracy"), *(lens(n, v) for n, v in zip(names, reasons, strict=False))]
    found = answer("late", seen)
    return found.short.replace("\u00a0", " "), found.sentence.replace("\u00a0", " ")


def test_same_accuracy_other_reasons() -> None:
    short, sentence = told("www", "wub", "www")
    assert short == "Yes down to 50 % of the weights; no at 10 %"
    assert sentence == (
        "With 10 % of the weights, heat maps differ from the dense network's more than other seeds' do, while accuracy "
        "is never below the dense networks' range. Not clearly beyond the noise floor: concept rankings."
    )


def test_two_measures_leave_at_different_densities() -> None:
    short, sentence = told("www", "wwb", "wbb", "bbb")
    assert short == "No at 50 % and below"
    assert "With 50 % of the weights and fewer, concept scores differ" in sentence
    assert "(concept rankings: at 20 % and below; heat maps: at 10 %)" in sentence


@pytest.mark.parametrize(
    ("accuracy", "words"),
    [
        ("wwb", "sooner than accuracy, which leaves the dense networks' range at 10 %"),
        ("wbb", "at the same density as accuracy leaves the dense networks' range"),
        ("bbb", "later than accuracy, which leaves the dense networks' range at 50 %"),
        ("wuu", "while accuracy is not clearly below the dense networks' range"),
        ("---", "while accuracy cannot be judged"),
    ],
)
def test_reasons_against_accuracy(accuracy: str, words: str) -> None:
    assert words in told(accuracy, "wbb")[1]


def test_everything_holds() -> None:
    short, sentence = told("wwb", "www", "www")
    assert short == "Yes, as far as measured"
    assert "heat maps and concept rankings differ" in sentence
    assert "accuracy leaves the dense networks' range at 10 %" in sentence


def test_not_settled() -> None:
    short, sentence = told("www", "wbu")
    assert short == "Not settled"
    assert "(first at 20 % of the weights), and lie beyond it at 20 %, though not below" in sentence


def test_without_a_value_there_is_no_way_back() -> None:
    assert told("www", "wbx")[0] == "Yes down to 50 % of the weights; no at 20 % and below"
    short, sentence = told("www", "wwx", "www")
    assert short == "Not settled"
    assert "heat maps cannot be compared at every density" in sentence


@pytest.mark.parametrize("share", [0.04, 0.06])
def test_many_blank_maps_are_a_caveat(finished: Path, share: float) -> None:
    found = results(finished)
    recipe = found.study.recipes[0].name
    tickets = (found.runs["role"] == "ticket") & (found.runs["recipe"] == recipe)
    runs = found.runs.assign(**{"gradcam.blank.reference": np.where(tickets & (found.runs["round"] == 2), share, 0.0)})
    told = caveats(replace(found, runs=runs))
    assert ("6 % at 25 % of the weights" in " ".join(told).replace("\u00a0", " ")) == (share > 0.05)


def test_nothing_to_judge() -> None:
    assert told("www")[0] == "Not asked"
    assert told("---", "---")[0] == "Cannot be said"


@pytest.mark.parametrize(
    ("verdicts", "tone"), [("www", "within"), ("wwb", "beyond"), ("wwu", "undecided"), ("---", "none")]
)
def test_tones(verdicts: str, tone: Literal["within", "beyond", "undecided", "none"]) -> None:
    assert answer("late", [lens("heat maps", verdicts)]).tone == tone


def test_lenses_and_sentences_of_a_study(finished: Path) -> None:
    found = results(finished)
    recipe = found.study.recipes[0].name
    seen = lenses(found, recipe)
    assert [lens.kind for lens in seen][:2] == ["accuracy", "decisions"]
    assert {"heat maps", "concept rankings", "concept scores"} <= {lens.subject for lens in seen}
    runs = found.runs
    last = runs[(runs["role"] == "ticket") & (runs["round"] == 2)]["performance.top1"].mean()
    assert seen[0].cells[-1].text.startswith(f"{100 * last:.1f}".removesuffix(".0"))
    dense = runs[runs["role"] == "dense"]["performance.top1"]
    assert seen[0].floor.startswith(f"{100 * dense.min():.1f}".removesuffix(".0"))
    words = " ".join(summary(found)).replace("\u00a0", " ")
    assert "4 classes, 80 test images. 3 dense networks of different seeds; 2 of them pruned" in words
    assert "magnitude pruning (global) to 25 % of the weights in 2 rounds" in words
    assert "(random mask): accuracy" in words
