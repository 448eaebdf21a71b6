"""Drift between records: alignment, subsets, intervals, what is dropped."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from scipy import stats

from prunescope.core.errors import PrunescopeError
from prunescope.core.types import Estimate, Record
from prunescope.metrics import maps
from prunescope.study.drift import DriftRow, drift

N = 40
DISTANCES = {
    "performance": {"image.predicted": "labels"},
    "gradcam": {"image.reference": "maps", "image.inside.reference": "energy"},
    "concepts": {"image.scores": "scores", "class.contributions": "rankings"},
}
CONCEPTS = ("red", "round", "striped", "large", "left", "shiny")


def network(seed: int, *, noise: float = 0.5, images: int = N) -> dict[str, Record]:
    """Records of a made-up network: one common signal, and noise of its own."""
    common, own = np.random.default_rng(99), np.random.default_rng(seed)

    def mix(*shape: int) -> np.ndarray:
        return common.normal(size=shape) + noise * own.normal(size=shape)

    labels = common.integers(3, size=images)
    ids = np.array([f"image{i:03d}" for i in range(images)])
    wrong = own.random(images) < 0.3
    predicted = np.where(wrong, (labels + 1) % 3, labels).astype(np.int16)
    heat = np.maximum(mix(images, 6, 6), 0).astype(np.float16)
    inside = own.random(images).astype(np.float32)
    return {
        "performance": Record("performance", {}, {"image.predicted": predicted, "image.label": labels}, ids),
        "gradcam": Record("gradcam", {}, {"image.reference": heat, "image.inside.reference": inside}, ids),
        "concepts": Record(
            "concepts", {}, {"image.scores": mix(images, 6), "class.contributions": mix(3, 6)}, ids,
            {"concept_names": list(CONCEPTS)},
        ),
    }  # fmt: skip


def changed(record: Record, arrays: Mapping[str, Any] | None = None, **fields: Any) -> Record:
    return Record(
        record.probe, record.metrics, {**record.arrays, **(arrays or {})}, fields.get("ids", record.ids),
        fields.get("info", record.info),
    )  # fmt: skip


def taken(record: Record, rows: np.ndarray) -> Record:
    """The record as it would be with only these images, in this order."""
    assert record.ids is not None
    arrays = {k: v[rows] if k.startswith("image.") else v for k, v in record.arrays.items()}
    return Record(record.probe, record.metrics, arrays, record.ids[rows], record.info)


def by_measure(rows: list[DriftRow]) -> dict[tuple[str, str, str], Estimate]:
    found = {(row.array, row.distance, row.subset): row.estimate for row in rows}
    assert len(found) == len(rows)
    return found


def test_every_measure_has_its_rows() -> None:
    rows = drift(network(0), network(1), DISTANCES)
    subsets = {(row.array, row.distance): 0 for row in rows}
    for row in rows:
        subsets[row.array, row.distance] += 1
        assert row.estimate.metric == f"{row.probe}/{row.array}/{row.distance}"
        assert row.estimate.low <= row.estimate.value <= row.estimate.high
        assert row.measure == (row.probe, row.array, row.distance, row.subset)
    assert subsets == {
        ("image.predicted", "agreement"): 1,  # networks that are both right agree
        **{("image.reference", name): 2 for name in ("spearman", "pearson", "ssim", "iou20", "shift")},
        ("image.inside.reference", "energy"): 2,
        ("image.scores", "correlation"): 2,
        **{("class.contributions", name): 1 for name in ("rbo", "jaccard", "kendall", "cosine", "sign_flips")},
    }


def test_a_network_has_not_drifted_from_itself() -> None:
    for (_, _, _), estimate in by_measure(drift(network(0), network(0), DISTANCES)).items():
        same = {True: 1.0, False: 0.0, None: 0.0}[estimate.higher_is_better]
        np.testing.assert_allclose([estimate.value, estimate.low, estimate.high], same, atol=1e-9)


def test_values_are_means_over_the_images_of_the_subset() -> None:
    a, b = network(0), network(1)
    found = by_measure(drift(a, b, DISTANCES))
    values = maps.pearson(a["gradcam"].arrays["image.reference"], b["gradcam"].arrays["image.reference"])
    decided = [records["performance"].arrays["image.predicted"] for records in (a, b)]
    labels = a["performance"].arrays["image.label"]
    right = (decided[0] == labels) & (decided[1] == labels)
    assert 5 < right.sum() < N - 5
    everything, both = (found["image.reference", "pearson", subset] for subset in ("all", "both_right"))
    assert (everything.value, everything.n) == (pytest.approx(values.mean()), N)
    assert (both.value, both.n) == (pytest.approx(values[right].mean()), right.sum())
    assert found["image.predicted", "agreement", "all"].value == np.mean(decided[0] == decided[1])
    inside = [records["gradcam"].arrays["image.inside.reference"] for records in (a, b)]
    assert found["image.inside.reference", "energy", "all"].value == pytest.approx((inside[1] - inside[0]).mean())


def test_concept_scores_are_correlated_over_images() -> None:
    a, b = network(0), network(1)
    x, y = a["concepts"].arrays["image.scores"], b["concepts"].arrays["image.scores"]
    expected = np.mean([stats.pearsonr(x[:, k], y[:, k]).statistic for k in range(6)])
    found = by_measure(drift(a, b, DISTANCES))["image.scores", "correlation", "all"]
    assert (found.value, found.n, found.dropped) == (pytest.approx(expected), 6, 0)

    def mean_correlation(picks: np.ndarray) -> float:
        return float(np.mean([np.corrcoef(x[picks, k], y[picks, k])[0, 1] for k in range(6)]))

    generator = np.random.default_rng(5)
    draws = [mean_correlation(generator.integers(N, size=N)) for _ in range(500)]
    low, high = np.quantile(draws, [0.025, 0.975])
    assert found.low == pytest.approx(low, abs=0.25 * (high - low))
    assert found.high == pytest.approx(high, abs=0.25 * (high - low))


def test_images_are_aligned_by_id_not_by_place() -> None:
    a, b = network(0), network(1)
    order = np.random.default_rng(0).permutation(N)
    moved = {key: taken(record, order) for key, record in b.items()}
    expected, found = by_measure(drift(a, b, DISTANCES)), by_measure(drift(a, moved, DISTANCES))
    for key, estimate in expected.items():
        assert found[key].value == pytest.approx(estimate.value, abs=1e-12), key


def test_images_of_only_one_network_are_left_out_and_counted() -> None:
    a, b = network(0), network(1)
    fewer = {key: taken(record, np.arange(30)) for key, record in a.items()}
    other = {key: taken(record, np.arange(N - 1, 4, -1)) for key, record in b.items()}
    both = {key: taken(record, np.arange(5, 30)) for key, record in b.items()}
    same = {key: taken(record, np.arange(5, 30)) for key, record in a.items()}
    found, expected = by_measure(drift(fewer, other, DISTANCES)), by_measure(drift(same, both, DISTANCES))
    for key, estimate in expected.items():
        assert (found[key].value, found[key].n) == (pytest.approx(estimate.value, abs=1e-12), estimate.n), key
    assert found["image.reference", "pearson", "all"].dropped == 5 + 10
    assert found["image.reference", "pearson", "both_right"].dropped == 0


def test_blank_maps_are_counted_not_averaged() -> None:
    a, b = network(0), network(1)
    heat = b["gradcam"].arrays["image.reference"].copy()
    heat[:7] = np.nan
    b["gradcam"] = changed(b["gradcam"], {"image.reference": heat})
    found = by_measure(drift(a, b, DISTANCES))["image.reference", "ssim", "all"]
    assert (found.n, found.dropped) == (N - 7, 7)
    assert math.isfinite(found.value)


def test_concepts_that_a_gate_rejects_are_left_out() -> None:
    a, b = network(0), network(1)
    good_a, good_b = np.array([1, 1, 1, 1, 1, 0], dtype=bool), np.array([0, 1, 1, 1, 1, 1], dtype=bool)
    pair = [
        {"concepts": changed(records["concepts"], {"concept.good": good})}
        for records, good in ((a, good_a), (b, good_b))
    ]
    found = by_measure(drift(pair[0], pair[1], DISTANCES))["image.scores", "correlation", "all"]
    x, y = a["concepts"].arrays["image.scores"], b["concepts"].arrays["image.scores"]
    expected = np.mean([stats.pearsonr(x[:, k], y[:, k]).statistic for k in range(1, 5)])
    assert (found.value, found.n, found.dropped) == (pytest.approx(expected), 4, 2)
    none = {"concepts": changed(a["concepts"], {"concept.good": np.zeros(6, dtype=bool)})}
    nothing = by_measure(drift(none, pair[1], DISTANCES))["image.scores", "correlation", "all"]
    assert math.isnan(nothing.value)
    assert (nothing.n, nothing.dropped) == (0, 6)


def test_without_predictions_there_is_only_one_subset() -> None:
    a, b = network(0), network(1)
    del b["performance"]
    assert {row.subset for row in drift(a, b, DISTANCES)} == {"all"}


def test_when_nothing_is_right_the_rows_are_empty_not_gone() -> None:
    a, b = network(0), network(1)
    labels = a["performance"].arrays["image.label"]
    a["performance"] = changed(a["performance"], {"image.predicted": (labels + 1) % 3})
    found = by_measure(drift(a, b, DISTANCES))
    for key in (("image.reference", "pearson", "both_right"), ("image.scores", "correlation", "both_right")):
        assert math.isnan(found[key].value)
        assert found[key].n == 0


def test_a_resample_of_equal_images_does_not_warn() -> None:
    a, b = ({key: taken(r, np.arange(2)) for key, r in network(seed).items()} for seed in (0, 1))
    found = by_measure(drift(a, b, {"concepts": DISTANCES["concepts"]}))["image.scores", "correlation", "all"]
    assert found.n == 6
    assert -1 <= found.low <= found.high <= 1


def test_the_seed_decides_the_interval_and_nothing_else() -> None:
    a, b = network(0), network(1)
    first, again, other = (drift(a, b, DISTANCES, seed=seed) for seed in (1, 1, 2))
    assert first == again
    key = ("image.reference", "pearson", "all")
    assert by_measure(first)[key].value == by_measure(other)[key].value
    assert by_measure(first)[key].low != by_measure(other)[key].low
    alone = drift(a, b, {"gradcam": {"image.reference": "maps"}}, seed=1)  # does not hang on what else is measured
    assert by_measure(alone)[key] == by_measure(first)[key]


def refusals() -> dict[str, tuple[dict[str, Record], str]]:
    b = network(1)
    twice = np.array(["image000", *[f"image{i:03d}" for i in range(N - 1)]])
    renamed = np.array([f"other{i}" for i in range(N)])
    small = np.ones((N, 3, 3))
    names = {"concept_names": [*CONCEPTS[:5], "matt"]}
    return {
        "other data": ({"gradcam": changed(b["gradcam"], ids=renamed)}, "0 images in common"),
        "an id twice": ({"gradcam": changed(b["gradcam"], ids=twice)}, "'image000' is there 2 times"),
        "other layer": (
            {"gradcam": changed(b["gradcam"], {"image.reference": small})}, "gradcam/image.reference: maps must have",
        ),
        "other concepts": ({"concepts": changed(b["concepts"], info=names)}, "different concepts.*matt"),
    }  # fmt: skip


@pytest.mark.parametrize("case", refusals())
def test_what_cannot_be_compared_is_refused(case: str) -> None:
    other, message = refusals()[case]
    with pytest.raises(PrunescopeError, match=message):
        drift(network(0), other, DISTANCES)


def test_an_unknown_family_is_refused_with_the_choices() -> None:
    with pytest.raises(PrunescopeError, match=r"unknown family of distances 'map' in gradcam/x; did you mean 'maps'"):
        drift(network(0), network(1), {"gradcam": {"x": "map"}})
