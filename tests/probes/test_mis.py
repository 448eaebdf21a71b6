"""MIS of a network's units beside sorted activations and the paper's four terms; planted, scrambled and dead units."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import prunescope as ps
from prunescope.core.errors import PrunescopeError
from prunescope.core.types import Array, Record
from prunescope.data.split import Dataset, Split
from prunescope.engine.embedding.base import embed
from prunescope.engine.embedding.plain import Colour
from prunescope.engine.mis import UnitScores, mis, tasks_of
from prunescope.metrics.mis import draw_tasks
from prunescope.probes.base import Subject, probe
from prunescope.probes.mis import Mis
from prunescope.study.drift import drift
from prunescope.testing.samples import tiny_data, tiny_network

DEAD = [1, 4]


def coloured(n: int = 600) -> Split:
    """Images of one colour each, with noise of each pixel."""
    generator = torch.Generator().manual_seed(0)
    colours = torch.randint(40, 216, (n, 3, 1, 1), generator=generator)
    images = colours + torch.randint(-30, 31, (n, 3, 6, 6), generator=generator)
    return Split(images.to(torch.uint8), torch.arange(n) % 2, np.arange(n).astype(str), ("a", "b"))


def planted() -> nn.Sequential:
    """Channels: red, minus blue, nothing (dead), then 40 linear units that see the noise and not the colour."""
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(), nn.Flatten(), nn.Linear(108, 40), nn.Linear(40, 2))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        model[0].weight.zero_()
        model[0].weight[0, 0], model[0].weight[1, 2] = 1, -1
        model[0].bias.copy_(torch.tensor([20.0, 20.0, -1.0]))
        noise = torch.randn(40, 3, 36, generator=generator)
        model[3].weight.copy_((noise - noise.mean(2, keepdim=True)).flatten(1))
    return model.eval()


def test_a_planted_colour_scores_high_and_noise_a_half() -> None:
    model, split = planted(), coloured()
    found = ps.mis(model, split, "colour", layers=["0", "3"])
    assert found.layers == {"0": 3, "3": 40}
    assert found.constant.tolist() == [False, False, True, *[False] * 40]
    assert np.isnan([found.mis[2], found.accuracy[2]]).all()
    assert found.accuracy[:2].min() > 0.9
    assert found.mis[:2].min() > 0.8
    assert found.accuracy[3:].mean() == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(40 * 15))
    scrambled = np.random.default_rng(0).permutation(embed(Colour(), split))
    assert np.nanmean(mis(model, split, scrambled, layers=["0"]).accuracy) < 0.8
    assert found.mean(found.mis) == pytest.approx((found.mis[:2].mean() + found.mis[3:].mean()) / 2)


def by_hand(maps: Tensor, split: Split, vectors: Array, references: int, alpha: float) -> tuple[Array, Array]:
    """(MIS, accuracy) of units with activations (N, units), from a full sort and four sums a task."""
    order = maps.numpy().argsort(axis=0).T
    number = tasks_of(len(split), 20, references)
    count = number * (references + 1)
    tasks = draw_tasks(order[:, ::-1][:, :count], order[:, :count], number, seed=0)
    likeness = vectors.astype(np.float64) @ vectors.T
    chance, right = np.zeros((2, len(order)))
    for unit, (ups, downs) in enumerate(zip(tasks.up.tolist(), tasks.down.tolist(), strict=True)):
        for (up, *above), (down, *below) in zip(ups, downs, strict=True):
            first = likeness[up, above].mean() - likeness[up, below].mean()
            second = likeness[down, above].mean() - likeness[down, below].mean()
            chance[unit] += 1 / (1 + np.exp(-alpha * (first - second))) / number
            right[unit] += (first > second) / number
    return chance, right


@pytest.mark.parametrize("references", [2, 9])
def test_equal_to_a_sort_of_all_activations_and_four_terms(references: int) -> None:
    model, split = tiny_network().eval(), tiny_data().train
    vectors = embed(Colour(), split)
    found = mis(model, split, vectors, layers=["conv1", "norm", "head"], references=references, alpha=6.25)
    with torch.no_grad():
        x = split.normalisation(split.images[:])
        conv = model.conv1(x)  # type: ignore[operator]
        pooled = torch.cat([conv.mean((2, 3)), model.norm(conv).mean((2, 3)), model(x)], dim=1)  # type: ignore[operator]
    assert not (found.constant | found.tied).any()
    # Tasks are shuffled unit by unit in the order of the rows, so all layers go together.
    chance, right = by_hand(pooled, split, vectors, references, 6.25)
    np.testing.assert_allclose(found.mis, chance, atol=1e-5)
    np.testing.assert_allclose(found.accuracy, right, atol=1e-9)


def measured(model: nn.Module, data: Dataset, **options: object) -> Record:
    judges = {"similarity": "colour", "second": "random", **options}
    return probe("mis", **judges).measure(Subject(model, data), batch_size=32)


def pruned() -> nn.Module:
    model = tiny_network()
    with torch.no_grad():
        model.conv2.weight[DEAD], model.conv2.bias[DEAD] = 0, 0  # type: ignore[index, operator, union-attr]
        model.conv2.weight[2] *= -1  # type: ignore[index, operator, union-attr]
    return model


def test_the_record_keeps_dead_units_apart() -> None:
    record = measured(pruned(), tiny_data())
    rows = {"conv1": 6, "norm": 6, "conv2": 8, "head": 3}
    assert record.info["layers"] == rows
    assert np.flatnonzero(record.arrays["unit.dead"]).tolist() == [12 + i for i in DEAD]
    assert record.metrics["dead"] == 2 / 23
    assert np.isnan(record.arrays["unit.mis"]).tolist() == record.arrays["unit.dead"].tolist()
    assert record.info["tasks"] == 4
    assert record.info["share_a_side"] == 40 / 96
    table, start, means = record.arrays["layer.accuracy"], 0, []
    for row, width in enumerate(rows.values()):
        np.testing.assert_array_equal(table[row, :width], record.arrays["unit.accuracy"][start : start + width])
        assert np.isnan(table[row, width:]).all()
        means.append(np.nanmean(table[row]))
        start += width
    assert record.metrics["accuracy"] == pytest.approx(np.mean(means))
    assert record.metrics["mis_norm"] == pytest.approx(record.arrays["unit.mis"][6:12].mean())
    assert -1 <= record.metrics["agreement"] <= 1
    alone = measured(pruned(), tiny_data(), second=None, kinds=("conv",))
    assert list(alone.info["layers"]) == ["conv1", "conv2"]
    assert "agreement" not in alone.metrics


def test_a_judge_agrees_with_itself() -> None:
    record = measured(tiny_network(), tiny_data(), second="colour")
    assert record.metrics["agreement"] == pytest.approx(1)
    assert record.metrics["mis_second"] == record.metrics["mis"]


def test_drift_pairs_the_units_that_survive_only_where_they_are_the_same_ones() -> None:
    data = tiny_data()
    a, b = ({"mis": measured(model, data)} for model in (tiny_network(), pruned()))
    found = {
        (row.array, row.distance): row.estimate
        for row in drift(a, b, {"mis": Mis.distances}, same_start=True, draws=20)
    }
    x, y = a["mis"].arrays["layer.mis"], b["mis"].arrays["layer.mis"]
    assert found["layer.mis", "paired_change"].value == pytest.approx(np.nanmean(y - x, axis=1).mean())
    assert found["layer.mis", "mean_change"].value == pytest.approx(
        (np.nanmean(y, axis=1) - np.nanmean(x, axis=1)).mean()
    )
    assert found["layer.mis", "paired_change"].value != found["layer.mis", "mean_change"].value
    apart = drift(a, b, {"mis": Mis.distances}, draws=20)
    assert {row.distance for row in apart} == {"mean_change", "wasserstein"}


def test_a_network_of_which_all_is_pruned_away_has_no_score() -> None:
    model = tiny_network()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    record = measured(model, tiny_data())
    assert record.metrics["dead"] == 1
    assert np.isnan([record.metrics[name] for name in ("mis", "accuracy", "mis_conv", "agreement", "logit_sd")]).all()


def test_a_unit_that_is_zero_for_most_images_is_tied() -> None:
    model, split = planted(), coloured()
    model[3].weight.data[0] = 0  # type: ignore[union-attr, operator, index]
    model[3].weight.data[0, :36] = 1 / 36  # type: ignore[union-attr, operator, index]
    model[0].bias.data[0] = -0.5  # type: ignore[union-attr, operator, index]
    found = mis(model, split, "colour", layers=["0", "3"])
    assert found.tied[3]  # what it reads is 0 behind the ReLU for most images, and for some it is not
    assert not found.constant[3]
    assert np.isnan(found.mis[3])


def test_bad_input_is_refused() -> None:
    model, data = tiny_network(), tiny_data()
    with pytest.raises(PrunescopeError, match="needs 20 images, the split has 12"):
        mis(model, data.train.subset(list(range(12))), "colour")
    with pytest.raises(PrunescopeError, match=r"vectors \(96, d\), one per image, got \(5, 2\)"):
        mis(model, data.train, np.ones((5, 2)))
    with pytest.raises(PrunescopeError, match="unknown embedding 'colours'"):
        mis(model, data.train, "colours")
    with pytest.raises(PrunescopeError, match=r"mis.second.*unknown key|did you mean 'bins'"):
        probe("mis", second={"name": "colour", "bin": 3})
    with pytest.raises(PrunescopeError, match="split must be one of train, val, test, got 'tests'"):
        probe("mis", split="tests")
    with pytest.raises(PrunescopeError, match="at least 1, got 0 and 9"):
        probe("mis", tasks=0)
    with pytest.raises(PrunescopeError, match="alpha must be 0"):
        probe("mis", alpha=-1)
    one = replace(data.train, labels=torch.zeros(96, dtype=torch.int64))
    with pytest.raises(PrunescopeError, match="all images are of one"):
        mis(model, one, "encoder")
    assert isinstance(mis(model, data.val, "label", kinds=["linear"]), UnitScores)
