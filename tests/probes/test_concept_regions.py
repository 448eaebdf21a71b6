"""Concept regions: against scikit-learn one by one, on a concept that no half space holds, and the test's rate."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from painted import painted, trained
from sklearn.metrics import balanced_accuracy_score
from sklearn.svm import SVC
from torch import Tensor, nn

from prunescope.core.errors import PrunescopeError
from prunescope.core.seeds import torch_generator
from prunescope.core.types import Record
from prunescope.data.split import Dataset
from prunescope.probes.base import measure, probe
from prunescope.probes.tcav import ConceptRegions
from prunescope.probes.tcav.regions import (
    Space,
    balanced_accuracy,
    best_kernel,
    fit_regions,
    judged_regions,
    shuffled_labels,
)
from prunescope.study.drift import drift
from prunescope.testing import ProbeContract


@pytest.fixture(scope="module")
def data() -> Dataset:
    return painted(train=300)


@pytest.fixture(scope="module")
def model(data: Dataset) -> nn.Sequential:
    return trained(data, seed=1)


def found(model: nn.Module, data: Dataset, **options: Any) -> Record:
    return measure(model, {"it": probe("concept_regions", **{"layers": ("1", "4"), **options})}, data)["it"]


@pytest.fixture(scope="module")
def record(model: nn.Sequential, data: Dataset) -> Record:
    return found(model, data)


def points(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """A ring around the middle, a half space, and coin tosses."""
    generator = torch_generator(seed, "points")
    x = torch.randn(n, 3, generator=generator, dtype=torch.float64)
    labels = torch.stack([x.norm(dim=1) < 1.5, x[:, 0] > 0, torch.rand(n, generator=generator) < 0.5], 1)
    return x, labels.to(torch.int8)


def test_equals_scikit_learn_concept_by_concept() -> None:
    x, labels = points(90, 0)
    labels[::5, 1] = -1
    space = Space.of(x)
    z = space(x)
    assert float(torch.pdist(z).square().mean()) == pytest.approx(1, rel=0.02)
    regions = fit_regions(z, labels, 2.0, 10.0)
    for k in range(3):
        rows = labels[:, k] >= 0
        machine = SVC(C=10.0, gamma=2.0, class_weight="balanced").fit(z[rows].numpy(), labels[rows, k].numpy())
        theirs = machine.decision_function(z.numpy())
        np.testing.assert_allclose(regions.decisions(z)[:, k], theirs, atol=0.01 * np.abs(theirs).max())


def test_a_concept_without_examples_has_no_region() -> None:
    x, labels = points(40, 0)
    labels[:, 1] = 0
    regions = fit_regions(x, labels, 1.0, 1.0)
    assert regions.decisions(x)[:, 1].isnan().all()
    assert regions.decisions(x)[:, 0].isfinite().all()


def test_a_ring_is_a_region_and_no_half_space() -> None:
    fit, held = points(200, 1), points(200, 2)
    judged = judged_regions(
        fit, held, gammas=(0.5, 2.0), grid=(1.0, 10.0), shuffles=20, generator=torch_generator(0, "s")
    )
    assert judged.accuracy[0] > 0.85
    assert judged.linear_accuracy[0] < 0.65
    assert judged.linear_accuracy[1] > 0.9
    assert judged.p[:2].tolist() == pytest.approx([1 / 21] * 2)
    assert judged.p[2] > 0.05


def test_accuracy_equals_scikit_learn() -> None:
    x, labels = points(50, 3)
    labels[:7, 0] = -1
    found = balanced_accuracy(x, labels)
    for k in range(3):
        rows = labels[:, k] >= 0
        expected = balanced_accuracy_score(labels[rows, k], x[rows, k] > 0)
        assert float(found[k]) == pytest.approx(expected)
    assert balanced_accuracy(x[:, :1], torch.ones(50, 1)).isnan().all()


def test_shuffling_keeps_each_column_s_examples() -> None:
    labels = torch.randint(-1, 2, (60, 5), generator=torch_generator(0, "labels"), dtype=torch.int8)
    shuffled = shuffled_labels(labels, torch_generator(1, "s"))
    assert torch.equal(shuffled < 0, labels < 0)
    assert torch.equal((shuffled == 1).sum(0), (labels == 1).sum(0))
    assert not torch.equal(shuffled, labels)


def test_the_test_holds_for_random_labels() -> None:
    """Of concepts that are coin tosses, at 10 %: in about 10 % of the sets, or fewer, any is taken for real."""
    wrong = 0
    for seed in range(20):
        (x, _), (y, _) = points(40, 2 * seed), points(40, 2 * seed + 1)
        generator = torch_generator(seed, "coins")
        a, b = (torch.rand(2, 40, 3, generator=generator) < 0.5).to(torch.int8)
        judged = judged_regions((x, a), (y, b), gammas=(1.0,), grid=(1.0,), shuffles=19, generator=generator)
        wrong += bool((judged.p <= 0.1).any())
    assert wrong <= 20 * 0.1 + 3 * (20 * 0.1 * 0.9) ** 0.5


def test_what_judges_chooses_nothing() -> None:
    fit, (x, labels) = points(80, 1), points(60, 2)
    grids: dict[str, Any] = {"gammas": (0.1, 1.0, 8.0), "grid": (0.1, 1.0, 10.0), "shuffles": 0}
    found = [
        judged_regions(fit, (x, asked), generator=torch_generator(0, "s"), **grids) for asked in (labels, 1 - labels)
    ]
    assert (found[0].regions.gamma, found[0].c) == (found[1].regions.gamma, found[1].c)
    assert torch.allclose(found[0].auroc, 1 - found[1].auroc)
    assert best_kernel(fit[0][:, :1], fit[1][:, 1:2], (0.1, 50.0), (1.0,), torch_generator(0, "s"))[0] == 0.1


def test_the_painted_concept_s_images_lie_in_its_region(record: Record, data: Dataset) -> None:
    regions = record.arrays["class.regions"]
    assert (regions[1, :, 0] > 0.9).all()
    assert (regions[0, :, 0] < 0.1).all()
    assert np.isnan(regions[..., 2]).all()
    assert (np.abs(regions[:, 0, 1] - 0.5) < 0.2).all()  # the blue patch is independent of the class
    assert record.arrays["class.images"].tolist() == torch.bincount(data.test.labels).tolist()
    assert record.arrays["concept.p"][0].tolist() == pytest.approx([1 / 21] * 2)
    assert record.arrays["concept.p"][2].min() > 0.05
    assert record.metrics["readable"] == record.arrays["concept.readable"].mean()


def test_no_layer_is_refused(data: Dataset) -> None:
    linear = trained(data, head="linear")
    assert np.isfinite(found(linear, data, layers=("4",), shuffles=0).arrays["class.regions"][..., 0]).all()


def test_bad_input(model: nn.Sequential, data: Dataset) -> None:
    assert data.train.concepts is not None
    concepts = data.train.concepts.clone()
    concepts[:, 1] = 0
    lacking = replace(data, train=replace(data.train, concepts=concepts))
    with pytest.raises(PrunescopeError, match="concept_regions: concept 'blue patch' has no positives"):
        found(model, lacking, concepts=("blue patch",))
    assert np.isnan(found(model, lacking, shuffles=2).arrays["class.regions"][..., 1]).all()
    for options, message in (
        ({"gammas": ()}, "gammas must be"), ({"c": (0.0,)}, "c must be"), ({"shuffles": -1}, "shuffles must be"),
        ({"examples": 3}, "examples must be"), ({"min_auroc": 2}, "min_auroc must be"),
    ):  # fmt: skip
        with pytest.raises(PrunescopeError, match=message):
            probe("concept_regions", **options)  # type: ignore[arg-type]


def test_drift(record: Record) -> None:
    (row,) = drift({"it": record}, {"it": record}, {"it": ConceptRegions.distances}, draws=20)
    assert row.estimate.value == 0


class TestContract(ProbeContract):
    """With two layers and few shuffles."""

    probe = ConceptRegions(layers=("relu1", "relu2"), shuffles=2, min_auroc=0.0)
