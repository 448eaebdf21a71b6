"""Which distances apply to which kind of array, and what a reader must know of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from prunescope.metrics import importances, maps, predictions, rankings, scores, shares, similarity, tcav, unit_scores
from prunescope.metrics.dissection import same, spread, still

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Distance:
    """One way to compare an array of two networks.

    Attributes:
        function: (dense's array, other's array) -> one value per item, NaN where there is none.
        title: plain words for axes and tables.
        unit: for the axis.
        higher_is_better: True when larger means more alike, False when smaller does, None when 0 does (a difference).
        over: what the items are: `image` (rows aligned by image id, one value per image), `class` or `layer` (one per
            row), or `column` (of images x concepts, images x layers; the function takes bootstrap weights over images
            as a third argument).
        range: smallest and largest possible value.
        unit_by_unit: compares unit i with unit i: only between networks that began from the same initial weights.
    """

    name: str
    function: Callable[..., Array]
    title: str
    unit: str
    higher_is_better: bool | None
    over: Literal["image", "class", "layer", "column"] = "image"
    range: tuple[float, float] = (0.0, 1.0)
    unit_by_unit: bool = False


_SIGNED = (-1.0, 1.0)

#: Families of distances; a probe names the family that applies to each of its arrays. The first is the headline.
FAMILIES: dict[str, tuple[Distance, ...]] = {
    "maps": (
        Distance("spearman", maps.spearman, "rank correlation of heat maps", "Spearman's rho", True, range=_SIGNED),
        Distance("pearson", maps.pearson, "correlation of heat maps", "Pearson's r", True, range=_SIGNED),
        Distance("ssim", maps.ssim, "structural similarity of heat maps", "SSIM", True, range=_SIGNED),
        Distance("iou20", maps.iou20, "overlap of the hottest 20 % of pixels", "intersection over union", True),
        Distance("shift", maps.shift, "shift of the maps' centre", "share of the diagonal", False),
    ),
    "energy": (
        Distance("energy", shares.difference, "difference in heat on the object", "share", None, range=_SIGNED),
    ),
    "pointing": (
        Distance("pointing", shares.difference, "difference in peaks on the object", "share", None, range=_SIGNED),
    ),
    "deletion": (
        Distance(
            "deletion", shares.difference, "difference under the deletion curve", "probability", None, range=_SIGNED
        ),
    ),
    "insertion": (
        Distance(
            "insertion", shares.difference, "difference under the insertion curve", "probability", None, range=_SIGNED
        ),
    ),
    "road": (Distance("road", shares.difference, "difference in ROAD", "probability", None, range=_SIGNED),),
    "labels": (Distance("agreement", predictions.agreement, "same decision", "share of images", True),),
    "rankings": (
        Distance("rbo", rankings.rbo, "overlap of concept rankings", "rank-biased overlap", True, "class"),
        Distance("jaccard", rankings.jaccard, "same five top concepts", "Jaccard index", True, "class"),
        Distance("kendall", rankings.kendall, "order of concepts", "Kendall's tau", True, "class", _SIGNED),
        Distance("cosine", rankings.cosine, "direction of concept contributions", "cosine", True, "class", _SIGNED),
        Distance("sign_flips", rankings.sign_flips, "concepts that change sides", "share of concepts", False, "class"),
    ),
    "scores": (
        Distance(
            "correlation", scores.correlation, "concept scores over images", "Pearson's r", True, "column", _SIGNED
        ),
    ),
    "tcav": (
        Distance("difference", tcav.difference, "difference of TCAV scores", "share of images", False, "class"),
        Distance("same_side", tcav.same_side, "TCAV scores on the same side of one half", "share", True, "class"),
    ),
    "tcav_found": (
        Distance("same_found", tcav.same_found, "same concepts found by TCAV", "Jaccard index", True, "class"),
    ),
    "regions": (
        Distance(
            "difference", tcav.difference, "difference of images within concept regions", "share of images", False,
            "class",
        ),
    ),
    "features": (Distance("cka", similarity.cka, "how layers arrange images", "CKA", True, "column", _SIGNED),),
    "importances": (
        Distance(
            "wasserstein", importances.wasserstein, "how CAR is spread over a layer's units", "accuracy a unit", False,
            "layer", (0.0, 2.0),
        ),
    ),
    "selectivities": (
        Distance(
            "selectivity", importances.wasserstein, "how class selectivity is spread over a layer's units",
            "selectivity", False, "layer",
        ),
        Distance(
            "selectivity_order", importances.order, "order of a layer's units by class selectivity", "Spearman's rho",
            True, "layer", _SIGNED, unit_by_unit=True,
        ),
    ),
    "importance_shares": (
        Distance("share", importances.share, "difference in a layer's share of all harm", "share", False, "layer"),
    ),
    "class_profiles": (
        Distance("profile", importances.profile, "classes that hang on a layer", "Pearson's r", True, "layer", _SIGNED),
    ),
    "image_sets": (
        Distance("overlap", importances.overlap, "images that hang on a layer", "Jaccard index", True, "column"),
    ),
    "unit_scores": (
        Distance(
            "mean_change", unit_scores.mean_change, "change of a layer's mean score", "score", None, "layer", _SIGNED
        ),
        Distance(
            "wasserstein", importances.wasserstein, "how scores are spread over a layer's units", "score", False,
            "layer",
        ),
        Distance(
            "paired_change", unit_scores.paired_change, "change of the units that live in both", "score", None,
            "layer", _SIGNED, unit_by_unit=True,
        ),
    ),
    "unit_concepts": (
        Distance(
            "spread", spread, "which concepts a layer's units detect", "total variation", False, "layer"
        ),
        Distance(
            "still", still, "units that still detect the same concept", "share of detectors", True, "layer",
            unit_by_unit=True,
        ),
        Distance(
            "same", same, "same concept where both are detectors", "share of detectors", True, "layer",
            unit_by_unit=True,
        ),
    ),
    "unit_orders": (
        Distance(
            "order", importances.order, "order of a layer's units by CAR", "Spearman's rho", True, "layer", _SIGNED,
            unit_by_unit=True,
        ),
        Distance(
            "top_tenth", importances.top_tenth, "same tenth of a layer's units on top", "share", True, "layer",
            unit_by_unit=True,
        ),
    ),
}  # fmt: skip
