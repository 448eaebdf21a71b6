"""Concept completeness: its bounds, the values that an unbounded one ran to, and rebuilt networks beside sklearn's."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from painted import painted, trained
from sklearn.neural_network import MLPClassifier
from torch import Tensor, nn

from prunescope.core.seeds import torch_generator
from prunescope.core.types import Record
from prunescope.data.split import Dataset
from prunescope.probes.base import measure, probe
from prunescope.probes.concepts.completeness import Rebuilding, completeness
from prunescope.probes.concepts.embeddings import Embedded


def test_ordinary() -> None:
    assert completeness(0.7, 0.9, 0.5, 10_000) == (pytest.approx(0.5), pytest.approx(0.5))


@pytest.mark.parametrize(
    ("network", "rebuilt", "raw", "bounded"),
    [
        (0.5412, 0.9605, 11.17, 1.0), (0.5366, 0.4915, -0.231, 0.0), (0.9570, 0.9848, 1.061, 1.0),
        (0.631, 0.5085, 0.065, 0.065),
    ],
)  # fmt: skip
def test_published_values_that_left_the_range(network: float, rebuilt: float, raw: float, bounded: float) -> None:
    found = completeness(rebuilt, network, 0.5, 60_000)
    assert found[1] == pytest.approx(raw, abs=0.05 if raw > 2 else 0.002)
    assert found[0] == pytest.approx(bounded, abs=0.002)


def test_a_network_at_chance_has_none() -> None:
    assert all(map(math.isnan, completeness(0.96, 0.5412, 0.5, 100)))
    assert all(map(math.isnan, completeness(0.5, 0.5, 0.5, 10**9)))
    assert all(map(math.isnan, completeness(0.9, 0.3, 0.5, 10**9)))


@given(
    rebuilt=st.floats(0, 1), network=st.floats(0, 1), chance=st.floats(0.01, 0.99), images=st.integers(0, 10**6)
)  # fmt: skip
def test_never_outside_its_bounds(rebuilt: float, network: float, chance: float, images: int) -> None:
    bounded, raw = completeness(rebuilt, network, chance, images)
    assert math.isnan(bounded) == math.isnan(raw)
    assert math.isnan(bounded) or 0 <= bounded <= 1
    assert math.isnan(raw) or bounded in (0, 1) or bounded == raw


def embedded(n: int, seed: int) -> Embedded:
    """Classes by the signs of two features of ten: no line through one score tells them."""
    x = torch.randn(n, 10, generator=torch_generator(seed, "features"))
    labels = 2 * (x[:, 0] > 0).long() + (x[:, 1] > 0).long()
    return Embedded(x, labels, labels, None)


@pytest.fixture(scope="module")
def rebuilding() -> Rebuilding:
    splits = {name: embedded(n, seed) for seed, (name, n) in enumerate((("train", 600), ("val", 300), ("test", 500)))}
    head = torch.zeros(4, 10)
    head[:, 0], head[:, 1] = torch.tensor([-1.0, -1, 1, 1]), torch.tensor([-1.0, 1, -1, 1])
    return Rebuilding((head, torch.zeros(4)), splits, 0)


def scores(rebuilding: Rebuilding, of: Any) -> dict[str, Tensor]:
    return {name: of(split.x) for name, split in rebuilding.splits.items()}


def test_scores_that_hold_what_decides_give_everything_back(rebuilding: Rebuilding) -> None:
    bounded, _ = rebuilding.completeness(scores(rebuilding, lambda x: x[:, :2]))
    assert bounded > 0.95


def test_scores_that_hold_nothing_of_it_give_nothing_back(rebuilding: Rebuilding) -> None:
    bounded, _ = rebuilding.completeness(scores(rebuilding, lambda x: x[:, 5:8]))
    assert bounded < 0.1


def test_half_of_what_decides(rebuilding: Rebuilding) -> None:
    bounded, _ = rebuilding.completeness(scores(rebuilding, lambda x: x[:, :1]))
    assert bounded == pytest.approx(1 / 3, abs=0.06)  # right about one of two bits: (1/2 - 1/4) / (1 - 1/4)


def test_a_map_that_is_not_linear_is_found(rebuilding: Rebuilding) -> None:
    """The second bit is told by whether two scores agree."""

    def folded(x: Tensor) -> Tensor:
        return torch.stack([x[:, 0] > 0, (x[:, 1] > 0) ^ (x[:, 0] > 0)], 1)

    assert rebuilding.accuracy(scores(rebuilding, folded)) > 0.95


def test_as_accurate_as_a_network_trained_on_the_scores(rebuilding: Rebuilding) -> None:
    mix = torch.randn(10, 4, generator=torch_generator(0, "mix"))
    s = scores(rebuilding, lambda x: x @ mix)
    machine = MLPClassifier((32,), max_iter=600, early_stopping=True, random_state=0, learning_rate_init=0.01)
    machine.fit(s["train"].numpy(), rebuilding.splits["train"].labels.numpy())
    theirs = machine.score(s["test"].numpy(), rebuilding.splits["test"].labels.numpy())
    assert rebuilding.accuracy(s) == pytest.approx(theirs, abs=0.05)


def test_deterministic_and_leaves_the_generator(rebuilding: Rebuilding) -> None:
    s = scores(rebuilding, lambda x: x[:, :3])
    before = torch.random.get_rng_state()
    with torch.inference_mode():
        first = rebuilding.accuracy({name: values.clone() for name, values in s.items()})
    assert first == rebuilding.accuracy(s)
    assert torch.equal(before, torch.random.get_rng_state())


# -- in the probe


@pytest.fixture(scope="module")
def data() -> Dataset:
    return painted(train=300)


def found(model: nn.Module, data: Dataset, **options: Any) -> Record:
    return measure(model, {"it": probe("concepts", bootstrap=0, **options)}, data)["it"]


def test_painted_concepts_are_complete_and_the_others_are_not(data: Dataset) -> None:
    model = trained(data, head="linear", seed=1)
    metrics = found(model, data).metrics
    assert metrics["completeness"] > 0.9
    assert 0 <= metrics["random_completeness"] <= 1
    assert metrics["completeness"] == pytest.approx(np.clip(metrics["completeness_raw"], 0, 1))
    blue = {
        name: replace(data[name], concepts=data[name].concepts[:, 1:2], concept_names=("blue patch",))  # type: ignore[index]
        for name in ("train", "val", "test")
    }
    only = found(model, replace(data, **blue), min_auroc=0.5).metrics
    assert only["completeness"] < metrics["completeness"] - 0.3


def test_where_there_is_none(data: Dataset) -> None:
    model = trained(data, head="linear", seed=1)
    elsewhere = found(model, data, layer="3")
    assert np.isnan(elsewhere.metrics["completeness"])
    assert "last linear layer" in elsewhere.info["no_completeness"]
    with torch.no_grad():
        model[-1].weight.zero_()  # type: ignore[union-attr, operator]
    dull = found(model, data)
    assert "no_completeness" not in dull.info
    assert np.isnan([dull.metrics[name] for name in ("completeness", "completeness_raw", "random_completeness")]).all()


def test_a_head_that_does_not_decide_alone_is_noticed(data: Dataset) -> None:
    class Turned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = trained(data, head="linear", seed=1)

        def forward(self, x: Tensor) -> Tensor:
            return -self.net(x)

    assert np.isnan(found(Turned(), data).metrics["completeness"])
