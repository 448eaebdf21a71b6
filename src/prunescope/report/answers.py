"""The answer, per recipe: does the pruned network still decide for the same reasons?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from prunescope.report.charts import sentence_case
from prunescope.report.glance import BEYOND, WITHIN, Lens, lenses
from prunescope.report.places import percent, recipes_done, units
from prunescope.study.results import Results


@dataclass(frozen=True)
class Answer:
    """A short answer and the sentence behind it; `tone` is the verdict whose colour it has, `units` what is kept."""

    recipe: str
    tone: Literal["within", "beyond", "undecided", "none"]
    short: str
    sentence: str
    lenses: tuple[Lens, ...]
    units: str = "weights"


def answers(found: Results) -> list[Answer]:
    """One per recipe of which tickets are done."""
    return [answer(recipe, lenses(found, recipe), units(found, recipe)) for recipe in recipes_done(found)]


def answer(recipe: str, seen: Sequence[Lens], kept: str = "weights") -> Answer:
    """Compares the density at which reasons leave the noise floor with the one at which accuracy leaves the dense
    networks' range."""
    reasons = [lens for lens in seen if lens.kind == "reasons"]
    judged = [lens for lens in reasons if lens.judged]
    if not reasons:
        return Answer(recipe, "none", "Not asked", "This study measures no explanations.", tuple(seen), kept)
    if not judged:
        why = "There is no noise floor to hold the drift against: it takes three dense networks of different seeds."
        return Answer(recipe, "none", "Cannot be said", why, tuple(seen), kept)
    if any(lens.left is not None for lens in judged):
        return _left(recipe, judged, seen, kept)
    if all(lens.held for lens in judged):
        sentence = f"At every density, {_list(judged)} differ from the dense network's no more than other seeds' do"
        return Answer(recipe, "within", "Yes, as far as measured", f"{sentence}; {_accuracy(seen)}.", tuple(seen), kept)
    return _unsettled(recipe, judged, seen, kept)


def _left(recipe: str, judged: Sequence[Lens], seen: Sequence[Lens], kept: str) -> Answer:
    lowest = min(cell.density for lens in judged for cell in lens.cells)
    first = max(lens.left for lens in judged if lens.left is not None)
    leaving = [lens for lens in judged if lens.left == first]
    later = sorted((lens for lens in judged if lens.left is not None and lens.left < first), key=_left_at, reverse=True)
    rest = [lens.subject for lens in judged if lens.left is None]
    also = "; ".join(f"{lens.subject}: {_from(_left_at(lens), lowest)}" for lens in later)
    sentence = (
        f"With {percent(first)} of the {kept}{'' if first == lowest else ' and fewer'}, {_list(leaving)} differ from "
        f"the dense network's more than other seeds' do{f' ({also})' if also else ''}, {_against(first, seen)}."
    )
    if rest:
        sentence += f" Not clearly beyond the noise floor: {_join(rest)}."
    return Answer(recipe, "beyond", _short(first, lowest, _safe(judged), kept), sentence, tuple(seen), kept)


def _from(density: float, lowest: float) -> str:
    return f"at {percent(density)}" if density == lowest else f"at {percent(density)} and below"


def _short(first: float, lowest: float, safe: float | None, kept: str) -> str:
    no = f"no {_from(first, lowest)}"
    return sentence_case(no) if safe is None else f"Yes down to {percent(safe)} of the {kept}; {no}"


def _left_at(lens: Lens) -> float:
    assert lens.left is not None
    return lens.left


def _unsettled(recipe: str, judged: Sequence[Lens], seen: Sequence[Lens], kept: str) -> Answer:
    """Nothing leaves the floor for good, but not everything stays inside it."""
    places = [(lens, cell) for lens in judged for cell in lens.cells if cell.verdict != WITHIN and cell.known]
    if not places:
        gone = _list([lens for lens in judged if not lens.held])
        told = f"Nothing leaves the noise floor, but {gone} cannot be compared at every density"
        return Answer(recipe, "undecided", "Not settled", f"{told}; {_accuracy(seen)}.", tuple(seen), kept)
    highest = max(cell.density for _, cell in places)
    beyond = sorted({cell.density for _, cell in places if cell.verdict == BEYOND}, reverse=True)
    open_ = list(dict.fromkeys(lens.subject for lens, _ in places))
    sentence = f"No measure leaves the noise floor for good, but {_join(open_)} are not safely inside it everywhere"
    sentence += f" (first at {percent(highest)} of the {kept})"
    if beyond:
        sentence += f", and lie beyond it at {_join([percent(density) for density in beyond])}, though not below"
    return Answer(recipe, "undecided", "Not settled", f"{sentence}; {_accuracy(seen)}.", tuple(seen), kept)


def _safe(judged: Sequence[Lens]) -> float | None:
    """The lowest density down to which every measure lies within the floor."""
    safe = None
    for density in sorted({cell.density for lens in judged for cell in lens.cells}, reverse=True):
        if any(cell.verdict != WITHIN for lens in judged for cell in lens.cells if cell.density == density):
            break
        safe = density
    return safe


def _against(first: float, seen: Sequence[Lens]) -> str:
    """Accuracy beside the density at which reasons leave the floor."""
    left = [lens.left for lens in seen if lens.kind == "accuracy" and lens.left is not None]
    if not left:
        return f"while {_accuracy(seen)}"
    at = max(left)
    if at == first:
        return "at the same density as accuracy leaves the dense networks' range"
    order = "sooner" if at < first else "later"
    return f"{order} than accuracy, which leaves the dense networks' range at {percent(at)}"


def _accuracy(seen: Sequence[Lens]) -> str:
    told = [lens for lens in seen if lens.kind == "accuracy" and lens.judged]
    if not told:
        return "accuracy cannot be judged"
    left = [lens.left for lens in told if lens.left is not None]
    if left:
        return f"accuracy leaves the dense networks' range at {percent(max(left))}"
    if all(lens.held for lens in told):
        return "accuracy is never below the dense networks' range"
    return "accuracy is not clearly below the dense networks' range"


def _list(seen: Sequence[Lens]) -> str:
    return _join([lens.subject for lens in seen])


def _join(words: Sequence[str]) -> str:
    """`a, b and c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
