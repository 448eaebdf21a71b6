"""Features and CKA of networks, beside hooks and a loop over images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import prunescope as ps
from prunescope.core.errors import PrunescopeError
from prunescope.core.types import Record
from prunescope.data.split import Dataset
from prunescope.metrics.similarity import cka
from prunescope.probes.base import Subject, probe
from prunescope.probes.performance import Performance
from prunescope.study.drift import drift
from prunescope.testing.samples import tiny_data, tiny_network

LAYERS = ("relu1", "relu2")


def features(model: nn.Module, data: Dataset, layer: str) -> np.ndarray:
    """A forward pass for every image."""
    found: list[np.ndarray] = []
    handle = model.get_submodule(layer).register_forward_hook(
        lambda _m, _i, output: found.append(output[0].double().flatten(1).mean(1).numpy())
    )
    with torch.no_grad():
        for _, x, _ in data.test.batches(1):
            model(x)
    handle.remove()
    return np.stack(found)


def measured(model: nn.Module, data: Dataset, **options: object) -> Record:
    return probe("similarity", **options).measure(Subject(model, data))


def moved(model: nn.Module) -> nn.Module:
    """The same function with the units of the first convolution in another order."""
    order = torch.tensor([3, 1, 0, 4, 5, 2])
    with torch.no_grad():
        for tensor in (model.conv1.weight, *(value for _, value in model.norm.named_parameters()), *list(
            model.norm.buffers())[:2]):  # fmt: skip
            tensor.copy_(tensor[order])
        model.conv2.weight.copy_(model.conv2.weight[:, order])
    return model


def test_the_record_holds_every_image_s_pooled_features() -> None:
    model, data = tiny_network().eval(), tiny_data()
    record = measured(model, data)
    assert list(record.info["layers"].items()) == [("relu1", 6), ("relu2", 8)]
    assert record.arrays["image.features"].shape == (32, 2, 8)
    assert (record.arrays["image.features"][:, 0, 6:] == 0).all()
    for layer, name in enumerate(LAYERS):
        expected, scale = features(model, data, name), record.arrays["layer.scale"][layer]
        found = record.arrays["image.features"][:, layer, : expected.shape[1]].astype(np.float64) * scale
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * scale)
        assert scale / 2 <= expected.max() < scale
        assert np.log2(scale) % 1 == 0


def test_similarity_equals_cka_of_the_pooled_features_and_ignores_the_order_of_units() -> None:
    first, second, data = tiny_network().eval(), tiny_network(seed=1).eval(), tiny_data()
    found = ps.similarity(first, second, data.test, draws=50)
    assert list(found) == list(LAYERS)
    for name in LAYERS:
        expected = cka(*(features(model, data, name)[:, None] for model in (first, second)))[0]
        value, low, high = found[name]
        assert value == pytest.approx(expected, abs=2e-3)
        assert low < value < high
    again = ps.similarity(first, moved(tiny_network()).eval(), data.test, draws=5)
    assert all(row == pytest.approx((1, 1, 1), abs=1e-5) for row in again.values())
    assert found["relu1"][0] < 0.99


def test_the_networks_may_have_other_widths_but_not_other_layers() -> None:
    first, second, data = tiny_network(), tiny_network(), tiny_data()
    second.relu2 = nn.Sequential(nn.ReLU(), nn.Conv2d(8, 3, 1))
    second.head = nn.Linear(3, 3)
    assert np.isfinite(ps.similarity(first, second, data.test, layers=["relu2"], draws=5)["relu2"]).all()
    with pytest.raises(PrunescopeError, match=r"unknown layer 'relu2\.0'"):
        ps.similarity(second, first, data.test, layers=["relu2.0"])


class UnitsLast(nn.Module):
    """Maps (B, h, w, C) between two permutations, as within Swin transformers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv, self.mlp, self.act = nn.Conv2d(3, width, 1), nn.Linear(width, width), nn.GELU()
        self.head = nn.Linear(width, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.act(self.mlp(self.conv(x).permute(0, 2, 3, 1)))
        return self.head(x.mean((1, 2)))


def test_maps_whose_units_come_last_are_averaged_over_positions() -> None:
    data = tiny_data()
    with torch.random.fork_rng(devices=[]):
        model = UnitsLast(5).eval()
    record = measured(model, data, layers=("conv", "mlp", "act"))
    assert record.info["layers"] == {"conv": 5, "mlp": 5, "act": 5}
    with torch.no_grad():
        ((_, x, _),) = data.test.batches(32)
        expected = model.mlp(model.conv(x).permute(0, 2, 3, 1)).mean((1, 2))
    found = record.arrays["image.features"][:, 1].astype(np.float64) * record.arrays["layer.scale"][1]
    np.testing.assert_allclose(found, expected.numpy(), atol=2e-3)
    with pytest.raises(PrunescopeError, match=r"'mlp' gives \(32, 8, 8, 8\), in which units may be the second axis or"):
        measured(UnitsLast(8).eval(), data, layers=("mlp",))


def test_drift_is_the_mean_over_layers_with_an_interval_and_a_row_for_images_both_get_right() -> None:
    data, networks = tiny_data(), [tiny_network(), tiny_network(seed=1)]
    records = [
        {"s": measured(model, data), "p": Performance().measure(Subject(model, data))} for model in networks
    ]  # fmt: skip
    rows = drift(*records, {"s": probe("similarity").distances})
    assert [(row.distance, row.subset) for row in rows] == [("cka", "all"), ("cka", "both_right")]
    values = [row[0] for row in ps.similarity(*networks, data.test, draws=5).values()]
    found = rows[0].estimate
    assert found.value == pytest.approx(np.mean(values), abs=1e-6)
    assert found.low < found.value < found.high
    assert found.n == 2


def test_a_layer_that_was_pruned_away_has_no_cka_and_is_counted() -> None:
    data, dense, ticket = tiny_data(), tiny_network(), tiny_network()
    with torch.no_grad():
        ticket.conv2.weight.zero_()
    record = measured(ticket, data)
    assert record.metrics["silent"] == 0.5
    assert measured(dense, data).metrics["silent"] == 0
    found = ps.similarity(dense, ticket, data.test, draws=5)
    assert found["relu1"][0] == pytest.approx(1, abs=1e-6)
    assert np.isnan(found["relu2"]).all()
    rows = drift({"s": measured(dense, data)}, {"s": record}, {"s": probe("similarity").distances})
    assert (rows[0].estimate.n, rows[0].estimate.dropped) == (1, 1)


def test_the_images_are_the_same_for_every_network_and_have_all_classes() -> None:
    data = tiny_data()
    first, second = (measured(tiny_network(seed=seed), data, images=8) for seed in (0, 1))
    assert first.ids is not None
    assert second.ids is not None
    assert first.ids.tolist() == second.ids.tolist()
    assert len(first.ids) == 8
    whole = measured(tiny_network(), data)
    assert whole.ids is not None
    rows = [whole.ids.tolist().index(name) for name in first.ids.tolist()]
    assert set(data.test.labels[rows].tolist()) == {0, 1, 2}
    np.testing.assert_allclose(
        first.arrays["image.features"].astype(float) * first.arrays["layer.scale"][:, None],
        whole.arrays["image.features"][rows].astype(float) * whole.arrays["layer.scale"][:, None], atol=1e-3,
    )  # fmt: skip


def test_large_activations_do_not_leave_the_range() -> None:
    model, data = tiny_network(), tiny_data()
    with torch.no_grad():
        model.conv2.weight.mul_(1e7)
    assert ps.similarity(tiny_network(), model, data.test, draws=5)["relu1"][0] == pytest.approx(1, abs=1e-6)
    assert np.isfinite(measured(model, data).arrays["image.features"]).all()


def test_what_cannot_be_compared_is_refused() -> None:
    data, model = tiny_data(), tiny_network()
    with pytest.raises(PrunescopeError, match="unknown layer 'relu3'; did you mean"):
        measured(model, data, layers=("relu3",))
    with pytest.raises(PrunescopeError, match="0 \\(all\\) or at least 4, got 3"):
        probe("similarity", images=3)
    with pytest.raises(PrunescopeError, match="at least 4 images, got 3"):
        measured(model, replace(data, test=data.test.subset([0, 1, 2])))
    with torch.no_grad():
        model.norm.weight.fill_(float("inf"))
    with pytest.raises(PrunescopeError, match="'relu1' gives values that are not finite"):
        measured(model, data, layers=("relu1",))


def test_too_many_numbers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prunescope.probes.similarity._MOST", 32 * 2 * 8 - 1)
    with pytest.raises(PrunescopeError, match="32 images x 2 layers x 8 units"):
        measured(tiny_network(), tiny_data())
