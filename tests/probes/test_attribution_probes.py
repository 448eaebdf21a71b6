"""The probes `attribution`, `faithfulness` and `sanity`, and their doors in the library."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import prunescope as ps
from prunescope.core.errors import PrunescopeError
from prunescope.core.types import Record
from prunescope.engine.attribute import normalised
from prunescope.engine.faithfulness import Protocol
from prunescope.probes import attribution, faithfulness, sanity
from prunescope.probes.base import Probe, measure, probe
from prunescope.study.drift import drift
from prunescope.testing import ProbeContract, Snapshot, assert_same_record, tiny_data, tiny_network
from prunescope.testing.snapshot import prepare


class TestInputMethods(ProbeContract):
    probe = probe("attribution", method={"name": "integrated_gradients", "steps": 3}, images=20)
    make_ids: Any = None

    def test_its_record_is_well_formed(self) -> None:
        """Some images only."""
        assert len(self._record().ids) == 20  # type: ignore[arg-type]


class TestScoreCam(ProbeContract):
    probe = probe("attribution", method="scorecam")


class TestFaithfulnessOfPixels(ProbeContract):
    probe = probe("faithfulness", method="input_x_gradient", steps=3, shares=[0.3])


class TestSanityOfPixels(ProbeContract):
    probe = probe("sanity", method="saliency", stages=2)


def images(count: int = 100) -> tuple[Tensor, Tensor]:
    _, x, y = next(tiny_data().test.batches(count))
    return x.contiguous(), y


def record(model: nn.Module, item: Probe, **options: Any) -> Record:
    return measure(model, {"it": item}, options.pop("data", tiny_data()), batch_size=9, **options)["it"]


# -- attribution


def test_with_gradcam_it_is_the_probe_gradcam() -> None:
    model = tiny_network()
    ours = record(model, probe("attribution", method={"name": "gradcam", "layer": "relu1"}))
    theirs = record(model, probe("gradcam", layer="relu1"))
    assert ours.info == {**theirs.info, "method": "gradcam", "options": {"name": "gradcam", "layer": "relu1"}}
    assert_same_record(replace(ours, probe="gradcam", info=theirs.info), theirs)


@pytest.mark.parametrize("method", ["gradcam++", "scorecam", "saliency", "deeplift", "lrp", "edges"])
def test_the_record_holds_the_maps(method: str) -> None:
    model, (x, y) = tiny_network(), images()
    found = record(model, probe("attribution", method=method))
    own = torch.tensor(record(model, probe("performance")).arrays["image.predicted"]).long()
    for name, target in (("reference", own), ("true", y)):
        expected = normalised(ps.attributions(model, x, method=method, target=target)).numpy()
        np.testing.assert_allclose(found.arrays[f"image.{name}"], expected, atol=2e-3)
    assert set(found.metrics) == set(attribution.FACTS)


def test_some_images_are_the_same_of_every_network_and_kind() -> None:
    whole = record(tiny_network(), probe("attribution"))
    for method in ("gradcam++", "scorecam"):
        part = record(tiny_network(), probe("attribution", method=method, images=11))
        other = record(tiny_network(seed=3), probe("attribution", method=method, images=11))
        assert part.ids is not None
        assert whole.ids is not None
        assert part.ids.tolist() == other.ids.tolist()  # type: ignore[union-attr]
        place = [whole.ids.tolist().index(name) for name in part.ids]
        if method == "gradcam++":
            np.testing.assert_array_equal(part.arrays["image.true"], whole.arrays["image.true"][place])


def test_a_second_target_costs_only_where_it_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = tiny_network(), tiny_data()
    asked: list[int] = []

    def counting(_model: nn.Module) -> Any:
        def maps(x: Tensor, _target: Tensor) -> Tensor:
            asked.append(len(x))
            return x.abs().sum(1)

        return maps

    monkeypatch.setattr(type(probe("attribution", method="edges").method), "explainer", lambda _s, m: counting(m))  # type: ignore[attr-defined]
    found = record(model, probe("performance")).arrays
    record(model, probe("attribution", method="edges"))
    assert sum(asked) == 32 + int((found["image.predicted"] != data.test.labels.numpy()).sum())


def test_two_methods_side_by_side_drift_apart() -> None:
    wanted = {
        "performance": probe("performance"), "cam": probe("attribution"),
        "ig": probe("attribution", method="input_x_gradient"),
    }  # fmt: skip
    a, b = (measure(tiny_network(seed=seed), wanted, tiny_data()) for seed in (0, 1))
    rows = drift(a, b, {name: item.distances for name, item in wanted.items()}, draws=50)
    for key in ("cam", "ig"):
        mine = [row for row in rows if row.probe == key and row.distance == "spearman" and row.subset == "all"]
        assert {row.array for row in mine} == {"image.reference", "image.true"}
        assert all(row.estimate.low <= row.estimate.value <= row.estimate.high for row in mine)


def test_doors_leave_the_network_alone_and_take_splits() -> None:
    model, data = prepare(tiny_network(inplace=True)), tiny_data()
    before, (x, _) = Snapshot(model), images()
    for method in ("layercam", "lrp"):
        maps = ps.attributions(model, x, method=method)
        torch.testing.assert_close(ps.attributions(model, data.test, method=method, batch_size=5), maps)
    assert len(ps.faithfulness(model, data.test, method="gradcam")["road"]) == 32
    assert ps.sanity(model, data.test, stages=2).cascading.shape == (2, 2, 32)
    assert not before.differences()
    with pytest.raises(PrunescopeError, match="unknown attribution method 'gradcm'"):
        ps.attributions(model, x, method="gradcm")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("attribution", {"method": "gradcm"}, "unknown attribution method"),
        ("attribution", {"targets": []}, "`targets` is empty"),
        ("attribution", {"images": -1}, "images must be 0"),
        ("faithfulness", {"images": -1}, "images must be 0"),
        ("faithfulness", {"shares": []}, "`shares` is empty"),
        ("faithfulness", {"shares": [1.0]}, "shares lie between 0 and 1"),
        ("faithfulness", {"steps": 0}, "steps >= 1"),
        ("sanity", {"stages": 0}, "stages >= 1"),
        ("sanity", {"method": {"name": "lrp", "rule": "x"}}, "rule"),
    ],
)
def test_bad_options_are_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(PrunescopeError, match=message):
        probe(name, **options)


# -- faithfulness


def test_faithfulness_is_that_of_the_maps_beside_random_ones() -> None:
    model, (x, _) = tiny_network(), images()
    own = torch.tensor(record(model, probe("performance")).arrays["image.predicted"]).long()
    found = record(model, probe("faithfulness", method="gradcam", steps=5, shares=[0.2, 0.6]))
    assert set(found.metrics) == set(faithfulness.FACTS)
    direct = ps.faithfulness(
        model, x, maps=ps.attributions(model, x), target=own, protocol=Protocol(steps=5, shares=(0.2, 0.6))
    )
    for name, values in direct.items():
        np.testing.assert_allclose(found.arrays[f"image.{name}"], values, rtol=1e-4, atol=1e-5)
        known = values[values.isfinite()]
        assert found.metrics[name] == pytest.approx(float(known.mean()), abs=1e-5)
    assert np.isnan(found.arrays["image.random.road"]).tolist() == np.isnan(found.arrays["image.road"]).tolist()
    assert found.metrics["blank"] == np.isnan(found.arrays["image.road"]).mean()
    np.testing.assert_allclose(found.arrays["curve.at"], np.array([0, 12, 25, 38, 51, 64]) / 64)
    known = found.arrays["image.deletion"][np.isfinite(found.arrays["image.deletion"])]
    curve = found.arrays["curve.deletion"]
    assert known.mean() == pytest.approx((curve[1:] + curve[:-1]).mean() / 2, abs=1e-5)


def test_maps_of_another_number_are_refused() -> None:
    with pytest.raises(PrunescopeError, match=r"32 images need maps \(32, h, w\), got \(3, 4, 4\)"):
        ps.faithfulness(tiny_network(), tiny_data().test, maps=torch.zeros(3, 4, 4))


# -- sanity


def test_sanity_tells_what_the_engine_found() -> None:
    model = tiny_network()
    found = record(model, probe("sanity", method="saliency", stages=3), seed=4)
    direct = ps.sanity(model, tiny_data().test, method="saliency", stages=3, seed=4)
    assert set(found.metrics) == set(sanity.FACTS)
    np.testing.assert_allclose(found.arrays["stage.cascading"], direct.means("cascading"), atol=1e-5)
    np.testing.assert_allclose(found.arrays["stage.independent"], direct.means("independent"), atol=1e-5)
    assert found.metrics["left"] == found.arrays["stage.cascading"][-1, 0]
    assert found.metrics["head"] == found.arrays["stage.cascading"][0, 0]
    assert found.info["layers"] == [list(stage) for stage in direct.stages]


def test_networks_that_are_not_finite_are_refused() -> None:
    model = tiny_network()
    with torch.no_grad():
        model.head.bias[0] = float("nan")  # type: ignore[union-attr, index]
    for name in ("faithfulness", "sanity"):
        with pytest.raises(PrunescopeError, match="logits are not finite, first for image 'test-0'"):
            record(model, probe(name))
    with pytest.raises(PrunescopeError, match="logits are not finite"):
        record(model, probe("attribution", method="saliency"))


def test_probes_that_run_altered_networks_share_no_pass() -> None:
    for name in ("faithfulness", "sanity"):
        with pytest.raises(PrunescopeError, match="cannot share a pass"):
            probe(name).start(None)  # type: ignore[arg-type]
