"""Class selectivity of units beside a loop over images, and planted units."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import prunescope as ps
from prunescope.core.errors import PrunescopeError
from prunescope.core.types import Record
from prunescope.metrics.selectivity import class_selectivity
from prunescope.probes.base import Subject, probe
from prunescope.study.drift import drift
from prunescope.testing.samples import tiny_data, tiny_network

DATA = tiny_data()


def measured(model: nn.Module, batch_size: int = 7, **options: object) -> Record:
    return probe("selectivity", **options).measure(Subject(model.eval(), DATA), batch_size=batch_size)


def loop(model: nn.Module, layer: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean and peak of the ReLU of a layer's output, for every image: (N, units) twice."""
    kept: list[torch.Tensor] = []
    handle = model.get_submodule(layer).register_forward_hook(lambda _m, _i, out: kept.append(out[0].relu().flatten(1)))
    with torch.no_grad():
        for _, x, _ in DATA.test.batches(1):
            model.eval()(x)
    handle.remove()
    maps = torch.stack(kept)
    return maps.mean(2).numpy(), maps.amax(2).numpy()


def test_both_definitions_equal_loops_over_images() -> None:
    model, labels = tiny_network(), DATA.test.labels.numpy()
    record, row = measured(model, best=9), 0
    assert list(record.info["layers"].items()) == [("conv1", 6), ("conv2", 8)]
    for number, place in enumerate(("norm", "conv2")):
        means, peaks = loop(model, place)
        for unit in range(means.shape[1]):
            by_class = [means[labels == c, unit].mean() for c in range(3)]
            np.testing.assert_allclose(record.arrays["unit.means"][row], by_class, rtol=1e-5, atol=1e-7)
            most = max(by_class)
            rest = (sum(by_class) - most) / 2
            expected = (most - rest) / (most + rest) if most > 0 else np.nan
            found = record.arrays["unit.selectivity"][row]
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
            np.testing.assert_array_equal(record.arrays["layer.selectivity"][number, unit], found)
            top = sorted(range(32), key=lambda i, unit=unit, peaks=peaks: (-peaks[i, unit], i))[:9]
            expected = class_selectivity(peaks[top, unit][None], labels[top][None], 0.5)[0]
            np.testing.assert_allclose(record.arrays["unit.best_selectivity"][row], expected, atol=1e-9)
            row += 1
    assert np.isnan(record.arrays["layer.selectivity"][0, 6:]).all()


def planted() -> nn.Sequential:
    """Unit 0 answers to red objects alone, 1 to every image alike, 2 to none, 3 is pruned away."""
    with torch.random.fork_rng(devices=[]):
        model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    with torch.no_grad():
        model[0].weight.zero_()  # type: ignore[operator, union-attr]
        model[0].bias.copy_(torch.tensor([0.0, 1.0, -99.0, 1.0]))  # type: ignore[operator, union-attr]
        model[0].weight[0, :, 0, 0] = torch.tensor([2.0, -1.0, -1.0])  # type: ignore[index, union-attr]
        model[0].weight[1:3, 0] = 1e-9  # type: ignore[index, union-attr]
        model[0].bias[0] = -4.0  # type: ignore[index, operator, union-attr]
    return model


def test_planted_units_have_the_selectivity_that_was_planted() -> None:
    record = measured(planted())
    red, alike, none, dead = record.arrays["unit.selectivity"]
    assert red > 0.95
    assert alike == pytest.approx(0, abs=1e-6)
    assert np.isnan([none, dead]).all()
    red, alike, none, dead = measured(planted(), best=32).arrays["unit.best_selectivity"]
    assert red == 1
    assert alike == pytest.approx(30 / 31)  # two classes of three hold half of all images
    assert np.isnan([none, dead]).all()
    assert (record.metrics["dead"], record.metrics["silent"]) == (0.25, pytest.approx(1 / 3))


def test_the_library_s_door_gives_what_the_probe_records() -> None:
    record, found = measured(tiny_network(), best=9), ps.selectivity(tiny_network(), DATA.test, best=9, batch_size=5)
    assert found.layers == record.info["layers"]
    for name, array in (("selectivity", found.from_means), ("best_selectivity", found.from_best), ("dead", found.dead),
                        ("means", found.means)):  # fmt: skip
        np.testing.assert_allclose(array, record.arrays[f"unit.{name}"], rtol=1e-5, atol=1e-7)
    assert list(ps.selectivity(tiny_network(), DATA.test, layers=["conv2"]).layers) == ["conv2"]
    with pytest.raises(PrunescopeError, match="no images"):
        ps.selectivity(tiny_network(), DATA.test.subset([]))


def test_drift_goes_by_distribution_and_unit_by_unit_only_from_the_same_start() -> None:
    first, second = ({"s": measured(tiny_network(seed=seed))} for seed in (0, 1))
    distances = {"s": probe("selectivity").distances}
    assert {row.distance for row in drift(first, second, distances)} == {"selectivity"}
    rows = drift(first, first, distances, same_start=True)
    assert {row.distance: row.estimate.value for row in rows if row.array == "layer.selectivity"} == {
        "selectivity": 0, "selectivity_order": pytest.approx(1),
    }  # fmt: skip


def test_bad_options_and_layers_are_refused() -> None:
    with pytest.raises(PrunescopeError, match="at least 2 images, got 1"):
        probe("selectivity", best=1)
    with pytest.raises(PrunescopeError, match="above 0 and up to 1, got 0"):
        probe("selectivity", cover=0.0)
    with pytest.raises(PrunescopeError, match="'conv3' matches no"):
        measured(tiny_network(), layers=("conv3",))
    with pytest.raises(PrunescopeError, match="has no convolutions"):
        measured(nn.Sequential(nn.Flatten(), nn.Linear(192, 3)))
    model = tiny_network()
    with torch.no_grad():
        model.norm.weight.fill_(float("inf"))
    with pytest.raises(PrunescopeError, match="not finite"):
        measured(model)
