"""What the numbers say, and what they do not, in sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prunescope.report.filters.folder import Filters
from prunescope.report.filters.marks import kinds
from prunescope.report.places import percent


def name_of(found: Filters) -> str:
    """The network's name."""
    model = found.facts["model"]
    return str(model.get("name", "network") if isinstance(model, dict) else model)


def answer(found: Filters) -> str:
    """The page in a sentence."""
    kind, n = kinds(found.units), len(found.units)
    helps, harms = int((kind == "helps").sum()), int((kind == "harms").sum())
    also = f"; {harms} do harm for sure" if harms else ""
    return f"{helps:,} of {n:,} filters matter for sure{also}."


def measured(found: Filters) -> str:
    """On what."""
    told, units = found.facts, found.units
    best = units.iloc[int(units["car"].argmax())]
    data = f" of {told['data']}" if told.get("data") else ""
    return (
        f"{name_of(found)} gets {percent(told['accuracy'])} of {told['images']:,} {told['split']} images{data} right. "
        f"Each filter was taken out alone. The network loses most, {percent(best['car'])} of all images, without "
        f"channel {best['channel']} of {best['layer']}."
    )


def caveats(found: Filters) -> list[str]:
    """What to keep in mind."""
    told, units = found.facts, found.units
    below = int(((kinds(units) == "unsure") & (units["car"] < 0)).sum())
    said = [
        f"CAR moves in steps of one image, 1/{told['images']:,}: {told['ties']:,} of {len(units):,} units share theirs "
        "with another, and the mean drop of the true class's log-probability puts them in order.",
        f"{below:,} units have a CAR below 0 that chance may explain." if below else "",
        _few_images(told),
        "Two filters that do the same each look needless: the other one stands in. Redundancy tells who may stand in "
        "for whom; what happens when several are removed is seen by removing them.",
        "Units that were chosen on these images will do worse on others: report the accuracy on other images.",
    ]
    return [sentence for sentence in said if sentence]


def _few_images(told: Mapping[str, Any]) -> str:
    counts = [count for count in told.get("class_images") or [] if count]
    empty = told.get("classes_without_images") or []
    lacks = f" {len(empty)} classes have no images." if empty else ""
    if not counts:
        return lacks.strip()
    few, most = min(counts), max(counts)
    return (
        f"A class has {_range(f'{few:,}', f'{most:,}')} images, so that class CAR moves in steps of "
        f"{_range(f'1/{most:,}', f'1/{few:,}')}; the most harmed of many classes is harmed by chance, too.{lacks}"
    )


def _range(low: str, high: str) -> str:
    return low if low == high else f"{low} to {high}"


def patches(found: Filters) -> int:
    """How many of every filter there are."""
    return int(found.look["patches"]) if found.look else 0


def seeing(found: Filters) -> str:
    """What patches and indices are; why there are none."""
    look = found.look
    if look is None:
        told = found.facts.get("look")
        why = f" ({told})" if isinstance(told, str) and told else ""
        return f"What filters see was not looked at{why}: there are no patches and no indices."
    behind = "behind its norm" if look["behind_norms"] else "before its activation"
    return (
        f"Patches are the pixels in a filter's receptive field where it answers most, one an image, of the same "
        f"{look['images']:,} images that CAR was measured on; mid-grey lies outside the image. A filter's answer is "
        f"taken {behind}. Colour index: the share of the answer that is lost when these pixels are made grey. Shape "
        f"index: when they are put in random order. A filter is called selective (●) from "
        f"{look['colour_selective_from']:.2f} on for colour, {look['shape_selective_from']:.2f} for shape. Redundancy: "
        f"the largest correlation of its activation map with another filter's of the layer."
    )
