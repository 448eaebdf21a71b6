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
from prunescope.engine.extremes import ExtremesGatherer
from prunescope.engine.mis import UnitScores, drawn_units, judged, mis, tasks_of
from prunescope.engine.shown_tasks import small
from prunescope.engine.sweep import sweep
from prunescope.metrics.mis import draw_tasks
from prunescope.probes.base import Subject, probe
from prunescope.probes.mis import FACTS, Mis
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
    assert found.dead.tolist() == (~found.scored).tolist() == found.constant.tolist()
    assert found.mean(found.mis) == pytest.approx((found.mis[:2].mean() + found.mis[3:].mean()) / 2)


def test_a_planted_unit_scores_a_half_once_images_and_vectors_are_scrambled() -> None:
    model, split, generator = planted(), coloured(), np.random.default_rng(0)
    vectors = embed(Colour(), split)
    gatherer = ExtremesGatherer(["0:mean", "3:mean"], 150, "mean", "images", 0)
    sweep(model, {"images": split}, [gatherer])
    units = drawn_units(gatherer.found, len(split), references=9)
    scores = [judged(units, generator.permutation(vectors), alpha=6) for _ in range(40)]
    for values in ([item.accuracy[:2].mean() for item in scores], [item.mis[:2].mean() for item in scores]):
        assert np.mean(values) == pytest.approx(0.5, abs=4 * np.std(values) / np.sqrt(40))
        assert np.std(values) < 0.15


def test_alpha_is_fitted_on_the_dense_network_and_frozen() -> None:
    data = tiny_data()
    dense = mis(tiny_network(), data.train, "colour")
    assert (dense.alpha * dense.margin).std() == pytest.approx(2.2)
    ticket = mis(pruned(), data.train, "colour", alpha=dense.alpha)
    assert ticket.alpha == dense.alpha
    assert mis(pruned(), data.train, "colour").alpha != dense.alpha
    judges = probe("mis", similarity="colour", second="random", controls=())
    first = judges.measure(Subject(tiny_network(), data))
    other = judges.measure(Subject(pruned(), data, dense=first))
    assert other.info["alpha"] == first.info["alpha"] == pytest.approx(dense.alpha)
    assert other.info["alpha_second"] == first.info["alpha_second"] != first.info["alpha"]
    assert first.metrics["logit_sd"] == pytest.approx(2.2)
    np.testing.assert_allclose(other.arrays["unit.mis"], ticket.mis)
    older = Record("mis", info={"alpha": 5.0})
    with pytest.raises(PrunescopeError, match=r"made before alpha was fitted to it; remove its record"):
        judges.measure(Subject(pruned(), data, dense=older))
    given = probe("mis", similarity="colour", second="random", controls=(), alpha=3).measure(Subject(pruned(), data))
    assert given.info["alpha"] == given.info["alpha_second"] == 3


@pytest.mark.parametrize("pool", ["max", "centre"])
def test_units_may_be_ranked_by_their_largest_or_middle_value(pool: str) -> None:
    model, split = tiny_network().eval(), tiny_data().train
    vectors = embed(Colour(), split)
    found = mis(model, split, vectors, layers=["conv1", "head"], pool=pool, references=2, alpha=5)  # type: ignore[arg-type]
    with torch.no_grad():
        x = split.normalisation(split.images[:])
        conv = model.conv1(x)  # type: ignore[operator]
        values = conv.amax((2, 3)) if pool == "max" else conv[:, :, 4, 4]
        chance, _ = by_hand(torch.cat([values, model(x)], dim=1), split, vectors, 2, 5)
    np.testing.assert_allclose(found.mis, chance, atol=1e-5)


def test_controls_are_judges_of_the_same_tasks() -> None:
    data = tiny_data()
    record = measured(tiny_network(), data, controls=("label", {"name": "colour", "bins": 3}))
    for name, judge in (("label", "label"), ("colour", {"name": "colour", "bins": 3})):
        alone = mis(tiny_network(), data.train, judge)
        assert record.metrics[f"accuracy_{name}"] == pytest.approx(alone.mean(alone.accuracy))
    assert "accuracy_random" not in record.metrics
    assert set(record.metrics) - {"units"} <= set(FACTS)
    default = measured(tiny_network(), data, similarity="encoder")
    assert {f"accuracy_{name}" for name in ("label", "colour", "random", "permuted")} <= set(default.metrics)


def test_some_tasks_are_kept_with_their_pictures() -> None:
    data = tiny_data()
    record = measured(pruned(), data, shown=2)
    arrays, names = record.arrays, list(record.info["layers"])
    assert arrays["game.which"].tolist() == ["best", "median", "worst"] * 2
    assert arrays["game.up"].shape == arrays["game.down"].shape == (6, 3, 10)
    images = arrays["game.images"]
    assert len(set(images.tolist())) == len(images)
    np.testing.assert_array_equal(arrays["game.pictures"], data.train.images[torch.tensor(images.tolist())].numpy())
    scores = arrays["unit.mis"][arrays["game.unit"]].reshape(2, 3)
    assert (np.diff(scores, axis=1) <= 0).all()
    assert np.nanmax(arrays["unit.mis"][:6]) == scores[0, 0]
    assert names[0] == "conv1"  # its six units are the first rows
    vectors = embed(Colour(), data.train).astype(np.float64)
    for unit in range(6):
        for up, down, margin in zip(
            images[arrays["game.up"][unit]], images[arrays["game.down"][unit]], arrays["game.margin"][unit], strict=True
        ):
            asked = vectors[up[0]] - vectors[down[0]]
            assert margin == pytest.approx(asked @ (vectors[up[1:]].mean(0) - vectors[down[1:]].mean(0)), abs=1e-6)
    assert not [name for name in measured(pruned(), data, shown=0).arrays if name.startswith("game.")]


def test_pictures_that_are_kept_are_small() -> None:
    images = torch.randint(0, 256, (2, 3, 100, 200), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    assert small(images).shape == (2, 3, 32, 64)
    assert torch.equal(small(images[:, :, :64, :64]), images[:, :, :64, :64])
    flat = torch.full((1, 3, 128, 128), 77, dtype=torch.uint8)
    assert (small(flat) == 77).all()


def by_hand(maps: Tensor, split: Split, vectors: Array, references: int, alpha: float) -> tuple[Array, Array]:
    """(MIS, accuracy) of units with activations (N, units), from a full sort and four sums a task."""
    order = maps.numpy().argsort(axis=0).T
    number = tasks_of(len(split), 0, references)
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
    judges = {"similarity": "colour", "second": {"name": "random", "width": 8}, **options}
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
    with pytest.raises(
        PrunescopeError, match=r"1 tasks \(N\) of 9 .*\(K\) need .* = 20 images, the split has 12; .*K = 5"
    ):
        mis(model, data.train.subset(list(range(12))), "colour")
    with pytest.raises(
        PrunescopeError, match=r"20 tasks .* = 400 images, the split has 96; enough for N = 4 with K = 9"
    ):
        mis(model, data.train, "colour", tasks=20)
    with pytest.raises(PrunescopeError, match="400 images, the split has 96"):
        measured(model, data, tasks=20)
    broken = np.ones((96, 2))
    broken[3] = np.nan
    with pytest.raises(PrunescopeError, match="not finite for 1 of 96 images, first for the one at 3"):
        mis(model, data.train, broken)
    with pytest.raises(PrunescopeError, match=r"vectors \(96, d\), one per image, got \(5, 2\)"):
        mis(model, data.train, np.ones((5, 2)))
    with pytest.raises(PrunescopeError, match="unknown embedding 'colours'"):
        mis(model, data.train, "colours")
    with pytest.raises(PrunescopeError, match=r"mis.second.*unknown key|did you mean 'bins'"):
        probe("mis", second={"name": "colour", "bin": 3})
    with pytest.raises(PrunescopeError, match="unknown split 'tests' in mis; did you mean 'test'"):
        probe("mis", split="tests")
    with pytest.raises(PrunescopeError, match="got -1 and 9"):
        probe("mis", tasks=-1)
    with pytest.raises(PrunescopeError, match="shown must be 0"):
        probe("mis", shown=-1)
    with pytest.raises(PrunescopeError, match="two controls have the same name"):
        probe("mis", controls=("label", "label"))
    with pytest.raises(PrunescopeError, match=r"mis.controls\[1\].*did you mean 'bins'"):
        probe("mis", controls=("label", {"name": "colour", "bin": 2}))
    with pytest.raises(PrunescopeError, match="alpha must be 0"):
        probe("mis", alpha=-1)
    one = replace(data.train, labels=torch.zeros(96, dtype=torch.int64))
    with pytest.raises(PrunescopeError, match="all images are of one"):
        mis(model, one, "encoder")
    assert isinstance(mis(model, data.val, "label", kinds=["linear"]), UnitScores)
