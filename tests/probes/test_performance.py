"""Numbers equal to scikit-learn's and torchmetrics'; what cannot be measured is NaN and named."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import torch
from sklearn import metrics as sk
from torch import Tensor, nn

from prunescope.core.compat import torchvision_module
from prunescope.core.errors import PrunescopeError
from prunescope.core.seeds import torch_generator
from prunescope.core.types import Record
from prunescope.data.split import Dataset, Normalisation, Split
from prunescope.probes.base import measure, probe
from prunescope.probes.performance import FACTS


class Table(nn.Module):
    """A network that gives the logits of a table: the image's first pixel is the row."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.register_buffer("logits", logits)

    def forward(self, x: Tensor) -> Tensor:
        rows: Tensor = self.logits[x[:, 0, 0, 0].round().long()]  # type: ignore[index]
        return rows


def record(
    logits: Tensor, labels: Tensor, *, batch_size: int = 7, classes: int | None = None, **options: int
) -> Record:
    """Of a network with these logits on images with these labels (at most 256)."""
    n, names = len(labels), tuple(f"c{i}" for i in range(classes or logits.shape[1]))
    images = torch.arange(n, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 2, 2).contiguous()
    ids = np.array([f"i{i}" for i in range(n)])
    split = Split(images, labels, ids, names, Normalisation((0.0,), (1 / 255,)))
    data = Dataset("table", split, split, split)
    return measure(Table(logits), {"it": probe("performance", **options)}, data, batch_size=batch_size)["it"]


def drawn(n: int, classes: int, *, seed: int = 0, scale: float = 2.0) -> tuple[Tensor, Tensor]:
    """Random logits that know a little of the labels; every class has an image."""
    generator = torch_generator(seed, "logits", n, classes)
    labels = torch.cat([torch.arange(classes), torch.randint(0, classes, (n - classes,), generator=generator)])
    logits = scale * torch.randn(n, classes, generator=generator)
    logits[torch.arange(n), labels] += scale
    return logits, labels


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("seed", range(4))
def test_equal_to_scikit_learn(classes: int, seed: int) -> None:
    logits, labels = drawn(90, classes, seed=seed)
    probability = logits.double().softmax(1).numpy()
    predicted, y = probability.argmax(1), labels.numpy()
    found = record(logits, labels)
    of_one = classes == 2
    expected = {
        "top1": sk.accuracy_score(y, predicted),
        "balanced_accuracy": sk.balanced_accuracy_score(y, predicted),
        "auroc": sk.roc_auc_score(y, probability[:, 1] if of_one else probability, multi_class="ovr"),
        "loss": sk.log_loss(y, probability),
        "n": 90.0,
    }
    if classes > 5:
        expected["top5"] = sk.top_k_accuracy_score(y, probability, k=5)
    for name, value in expected.items():
        assert found.metrics[name] == pytest.approx(value, abs=1e-12), name
    np.testing.assert_array_equal(found.arrays["class.confusion"], sk.confusion_matrix(y, predicted))
    np.testing.assert_allclose(found.arrays["class.recall"], sk.recall_score(y, predicted, average=None))
    np.testing.assert_array_equal(found.arrays["image.predicted"], predicted)
    np.testing.assert_array_equal(found.arrays["image.label"], y)
    np.testing.assert_allclose(found.arrays["image.confidence"], probability.max(1), rtol=1e-6)
    np.testing.assert_allclose(found.arrays["image.logits"], logits.numpy(), rtol=1e-3)


@pytest.mark.parametrize("bins", [1, 10, 15])
@pytest.mark.parametrize("classes", [2, 5])
def test_calibration_error_equal_to_torchmetrics(bins: int, classes: int) -> None:
    logits, labels = drawn(200, classes, seed=bins)
    torchvision_module()  # which torchmetrics imports
    torchmetrics = importlib.import_module("torchmetrics.functional.classification")
    probability = logits.double().softmax(1)
    peer = torchmetrics.multiclass_calibration_error(probability, labels, classes, bins, "l1")
    assert record(logits, labels, bins=bins).metrics["ece"] == pytest.approx(float(peer), abs=1e-6)


def test_calibration_error_by_hand() -> None:
    """Four images at confidence 0.75 of which two are right: 0.25 off. At confidence 1, right: nothing."""
    logits = torch.tensor([[3.0, 1.0]] * 4).log()
    assert record(logits, torch.tensor([0, 0, 1, 1])).metrics["ece"] == pytest.approx(0.25, abs=1e-6)
    assert record(torch.tensor([[99.0, 0.0]] * 4), torch.tensor([0, 0, 0, 0])).metrics["ece"] == pytest.approx(0.0)


def test_a_class_without_images_is_named_and_left_out() -> None:
    logits, labels = drawn(60, 4)
    here = labels != 2
    found = record(logits[here], labels[here])
    assert found.info["classes_without_images"] == ["c2"]
    recall = found.arrays["class.recall"]
    assert np.isnan(recall).tolist() == [False, False, True, False]
    assert found.metrics["balanced_accuracy"] == pytest.approx(np.nanmean(recall))
    probability, y = logits[here].double().softmax(1).numpy(), labels[here].numpy()
    rest = [sk.roc_auc_score(y == k, probability[:, k]) for k in (0, 1, 3)]
    assert found.metrics["auroc"] == pytest.approx(np.mean(rest))
    assert found.arrays["class.confusion"].shape == (4, 4)


def test_what_says_nothing_is_nan() -> None:
    logits, labels = drawn(20, 5)
    assert np.isnan(record(logits, labels).metrics["top5"])
    assert np.isnan(record(logits, torch.zeros(20, dtype=torch.long)).metrics["auroc"])


def test_large_logits_stay_finite() -> None:
    logits = torch.tensor([[1e6, -1e6, 0.0]] * 3)
    found = record(logits, torch.tensor([0, 1, 2]))
    assert np.isfinite(found.arrays["image.logits"]).all()
    assert found.arrays["image.predicted"].tolist() == [0, 0, 0]
    assert found.metrics["loss"] == pytest.approx(1e6)  # (0 + 2e6 + 1e6) / 3


def test_facts_tell_of_every_metric() -> None:
    assert set(FACTS) == set(record(*drawn(20, 3)).metrics)


def test_broken_networks_are_refused() -> None:
    logits, labels = drawn(20, 3)
    with pytest.raises(PrunescopeError, match=r"outputs of shape \(7, 3\), but the data has 4 classes"):
        record(logits, labels, classes=4)
    logits[9, 1] = float("nan")
    with pytest.raises(PrunescopeError, match=r"not finite, first for image 'i9'"):
        record(logits, labels)
    with pytest.raises(PrunescopeError, match="bins must be at least 1, got 0"):
        probe("performance", bins=0)
