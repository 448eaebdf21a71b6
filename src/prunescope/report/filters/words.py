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
        made_again(told),
        "Two filters that do the same each look needless: the other one stands in. Redundancy tells who may stand in "
        "for whom; what happens when several are removed is seen by removing them.",
        "Units that were chosen on these images will do worse on others: report the accuracy on other images.",
    ]
    return [sentence for sentence in said if sentence]


def _few_images(told: Mapping[str, Any]) -> str:
    counts = [count for count in told.get("class_images") or [] if count]
    empty = told.get("classes_without_images") or []
    lacks = f" {len(empty):,} class{'es have' if len(empty) > 1 else ' has'} no images." if empty else ""
    if not counts:
        return lacks.strip()
    few, most = min(counts), max(counts)
    return (
        f"A class has {_range(f'{few:,}', f'{most:,}')} images, so that class CAR moves in steps of "
        f"{_range(f'1/{most:,}', f'1/{few:,}')}; the most harmed of many classes is harmed by chance, too.{lacks}"
    )


def made_again(told: Mapping[str, Any]) -> str:
    """How many predictions were not sure at first, and in how many measurements that was seen too late; older folders
    do not say all of it."""
    ways = (
        ("full_passes", "within rounding of a tie and made by full forward passes"),
        ("again_in_float32", f"not sure in {told.get('precision')} and made again in float32"),
    )
    counts = [f"{told[key]:,} were {how}" for key, how in ways if told.get(key)]
    said = f"Of {told['worlds']:,} predictions {', '.join(counts)}." if counts and "worlds" in told else ""
    if told.get("surprises"):
        said += (
            f" In {told['surprises']:,} measurements an error was larger than was trusted until then: predictions made "
            "before these may be off where they were nearly ties."
        )
    return said.strip()


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
        f"the largest correlation of its activation map with another filter's of the layer.{_made(look)}"
    )


def _made(look: Mapping[str, Any]) -> str:
    """Of pictures that were made to excite filters; nothing where none were."""
    told = look.get("maximise")
    if not told:
        return ""
    none = f" (there is none for {', '.join(told['failed'])})" if told["failed"] else ""
    return (
        f" In front of the patches is a picture that was made to excite the filter, by {told['steps']:,} steps of "
        f"gradient ascent{none}: what it asks for at most, not what it meets."
    )


def removing(found: Filters) -> str:
    """By which images orders were chosen, and on which accuracy was measured; nothing where nobody wrote it down."""
    told, compared = found.facts, found.compare
    if compared is None:
        return ""
    epochs, reported = compared["fine_tune_epochs"], f"{compared['report_images']:,} {compared['report_split']} images"
    tuned = (
        f" What is called fine-tuned is a copy without the filters, trained for {epochs:g} epochs on training images."
        if epochs else ""
    )  # fmt: skip
    return (
        f"Methods that look at images chose by {told['images']:,} {told['split']} images; accuracy along every order "
        f"is that on {reported}, by which nothing was chosen.{tuned}"
    )
