"""The probe `dissection`: its record is what `dissect` finds, and drift goes by distribution and unit by unit."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import prunescope as ps
from prunescope.core.errors import PrunescopeError
from prunescope.core.types import Record
from prunescope.data.segments import Segments
from prunescope.engine.detectors import Question
from prunescope.engine.dissection import dissect
from prunescope.probes.base import Subject, measure, probe
from prunescope.probes.dissection import FACTS, Dissect
from prunescope.study.drift import drift
from prunescope.testing import ProbeContract
from prunescope.testing.samples import tiny_data, tiny_network


class TestASecondPass(ProbeContract):
    """What every probe must do, also where the network runs twice."""

    probe = Dissect(quantile=0.02, draws=3, memory=0)


DATA = tiny_data()
DEAD = [1, 4]


def measured(model: nn.Module, **options: object) -> Record:
    return probe("dissection", **{"quantile": 0.05, "draws": 5, **options}).measure(Subject(model, DATA), batch_size=8)


def pruned() -> nn.Module:
    model = tiny_network()
    with torch.no_grad():
        model.conv2.weight[DEAD], model.conv2.bias[DEAD] = 0, 0.3  # type: ignore[index, operator, union-attr]
        model.conv2.weight[2] *= -1  # type: ignore[index, operator, union-attr]
    return model


def test_the_record_is_what_was_found() -> None:
    record, found = measured(pruned()), dissect(pruned(), DATA.test, question=Question(0.05, 0.04, 5))
    arrays, metrics = record.arrays, record.metrics
    assert record.info["layers"] == found.layers == {"conv1": 6, "conv2": 8}
    assert np.flatnonzero(arrays["unit.dead"]).tolist() == [6 + i for i in DEAD]
    np.testing.assert_array_equal(np.isnan(arrays["unit.iou"]), arrays["unit.dead"] | arrays["unit.tied"])
    np.testing.assert_array_equal(arrays["unit.iou"], found.best)
    np.testing.assert_array_equal(arrays["unit.concept"], found.concept)
    np.testing.assert_array_equal(arrays["layer.iou"][0, :6], found.best[:6])
    assert np.isnan(arrays["layer.iou"][0, 6:]).all()
    assert metrics["dead"] == 2 / 14
    scored = int(found.scored.sum())
    assert metrics["detectors"] == found.detector.sum() / scored
    assert metrics["beyond"] == found.beyond.sum() / scored
    assert metrics["unique"] == len({found.concept[u] for u in np.flatnonzero(found.detector)})
    assert metrics["iou"] == pytest.approx((found.best[:6].mean() + np.nanmean(found.best[6:])) / 2)
    assert metrics["chance"] == pytest.approx(np.nanquantile(found.chance[found.scored], 0.95))
    assert metrics["detectors_by_chance"] == pytest.approx((found.chance[found.scored] > 0.04).mean())
    for row, width in enumerate((6, 8)):
        for unit in range(width):
            mine = arrays["layer.concept"][row, unit]
            here = 6 * row + unit
            assert mine == found.concept[here] if found.detector[here] else np.isnan(mine)
    assert set(FACTS) == set(metrics) - {"units"}
    assert record.info["passes"] == 1
    assert measured(pruned(), memory=0).info["passes"] == 2
    np.testing.assert_array_equal(measured(pruned(), memory=0).arrays["unit.iou"], found.best)


def test_all_layers_and_probes_go_in_one_pass() -> None:
    """Kept maps leave nothing for a second pass; the other unit probes go along."""
    wanted = {"a": probe("dissection", quantile=0.05), "b": probe("selectivity"), "c": probe("performance")}
    model, passes = tiny_network(), []
    model.register_forward_hook(lambda _m, inputs, _o: passes.append(len(inputs[0])))
    made = measure(model, wanted, DATA, batch_size=8)
    assert passes == [8] * 4
    assert set(made) == set(wanted)
    assert list(made["a"].info["layers"]) == list(made["b"].info["layers"])


def test_drift_goes_by_distribution_and_unit_by_unit_only_from_the_same_start() -> None:
    first, second = ({"d": measured(model)} for model in (tiny_network(), pruned()))
    distances = {"d": probe("dissection").distances}
    rows = {(row.array, row.distance): row.estimate for row in drift(first, second, distances, same_start=True)}
    a, b = (record["d"].arrays["layer.concept"] for record in (first, second))
    kept = [np.mean(y[np.isfinite(x)] == x[np.isfinite(x)]) for x, y in zip(a, b, strict=True) if np.isfinite(x).any()]
    assert rows["layer.concept", "still"].value == pytest.approx(np.mean(kept))
    assert rows["layer.concept", "still"].value < 1
    apart = {row.distance for row in drift(first, second, distances)}
    assert apart == {"mean_change", "wasserstein", "spread"}
    alike = {row.distance: row.estimate.value for row in drift(first, first, distances, same_start=True)}
    assert (alike["still"], alike["same"], alike["spread"], alike["mean_change"]) == (1, 1, 0, 0)


def test_a_network_of_which_all_is_pruned_away_detects_nothing() -> None:
    model = tiny_network()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    record = measured(model)
    assert record.metrics["dead"] == 1
    assert record.metrics["unique"] == 0
    assert np.isnan([record.metrics[name] for name in ("detectors", "beyond", "iou", "chance")]).all()


def test_concepts_without_positives_are_named_and_others_out_of_reach_too() -> None:
    segments = DATA.test.segments
    assert segments is not None
    masks = segments[:].clone()
    masks[:, 3] = False
    test = replace(DATA.test, segments=Segments.of(masks, segments.names, segments.categories))
    record = probe("dissection").measure(Subject(tiny_network(), replace(DATA, test=test)))
    assert record.info["absent"] == ["upper half"]
    assert not (record.arrays["unit.concept"] == 3).any()
    large = [name for name, area in zip(segments.names, record.info["area"], strict=True) if area > 0.005 / 0.04]
    assert record.info["out_of_reach"] == large


@pytest.mark.parametrize("kind", ["voc", "coco"])
def test_from_files_to_detectors(tmp_path: Path, kind: str) -> None:
    """Red squares on grey in image files, labelled in PNGs or a COCO file, and a unit that sees red."""
    random, notes = np.random.default_rng(0), dict[str, list[dict[str, object]]](images=[], annotations=[])
    notes["categories"] = [{"id": 1, "name": "square", "supercategory": "shape"}, {"id": 2, "name": "unicorn"}]
    for number in range(40):
        name = f"{'ab'[number % 2]}/{number}.png"
        pixels, values = random.integers(100, 120, (16, 16, 3), dtype=np.uint8), np.zeros((16, 16), np.uint8)
        top, left = random.integers(0, 14, 2).tolist()
        pixels[top : top + 2, left : left + 2, 0] = random.integers(200, 255, (2, 2))
        values[top : top + 2, left : left + 2] = 1
        for folder, array in (("images", pixels), ("labels", values)):
            (tmp_path / folder / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(tmp_path / folder / name)
        corners = [left, top, left + 2, top, left + 2, top + 2, left, top + 2]
        notes["images"].append({"id": number, "file_name": name, "width": 16, "height": 16})
        notes["annotations"].append({"image_id": number, "category_id": 1, "segmentation": [corners]})
    (tmp_path / "labels" / "names.txt").write_text("background\nsquare,shape\nunicorn\n")
    (tmp_path / "instances.json").write_text(json.dumps(notes))
    segments = tmp_path / ("labels" if kind == "voc" else "instances.json")
    data = ps.load_data({
        "name": "folder", "root": tmp_path / "images", "segments": segments, "size": 16, "test_fraction": 0.5,
        "cache": False,
    })  # fmt: skip
    model = nn.Sequential(nn.Conv2d(3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, 0.01, 0.003], [0.01, 0.003, 1.0]])[:, :, None, None])
    found = ps.dissect(model, data.test, question=Question(quantile=0.0155))
    assert found.absent == ("unicorn",)
    assert [found.names[i] for i in found.concept.tolist()] == ["square"] * 2
    assert found.best[0] > 0.9
    assert found.beyond.tolist() == [True, False]
    assert found.categories == ("shape", "object")


def test_bad_input_is_refused() -> None:
    with pytest.raises(PrunescopeError, match="split must be one of train, val, test, got 'tests'"):
        probe("dissection", split="tests")
    with pytest.raises(PrunescopeError, match=r"between 0 and 1, got 1\.5"):
        probe("dissection", quantile=1.5)
    bare = replace(DATA, test=replace(DATA.test, segments=None))
    with pytest.raises(PrunescopeError, match="needs labels of pixels, and split 'test' has none"):
        probe("dissection").measure(Subject(tiny_network(), bare))
    with pytest.raises(PrunescopeError, match="has no convolutions"):
        measured(nn.Sequential(nn.Flatten(), nn.Linear(192, 3)))
