"""The concepts probe, on networks whose embeddings are planted: the pixels are the features."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from prunescope.core.errors import PrunescopeError
from prunescope.core.seeds import torch_generator
from prunescope.core.types import Record
from prunescope.data.split import Dataset, Normalisation, Split
from prunescope.probes.base import measure, probe
from prunescope.probes.concepts import Concepts
from prunescope.probes.concepts.labelled import held_out
from prunescope.study.drift import drift

K, SIDE, CLASSES = 6, 5, ("a", "b", "c")
NAMES = tuple(f"concept {k}" for k in range(K))
#: Class c is called for by concept c and against by concept c + 3.
CAUSES = torch.eye(3).repeat(2, 1) * torch.tensor([[3.0]] * 3 + [[-3.0]] * 3)


def directions() -> Tensor:
    """Orthonormal (K, D): where each concept lies in the embedding."""
    q, _ = torch.linalg.qr(torch.randn(SIDE**2, SIDE**2, generator=torch_generator(0, "directions")))
    return q[:K]


def split(n: int, seed: int) -> Split:
    generator = torch_generator(seed, "planted split")
    concepts = torch.rand(n, K, generator=generator) < 0.4
    x = 40 * concepts.float() @ directions() + 6 * torch.randn(n, SIDE**2, generator=generator)
    images = (x + 128).round().clamp(0, 255).to(torch.uint8).view(n, 1, SIDE, SIDE)
    calls = concepts.float() @ CAUSES + 0.5 * torch.randn(n, 3, generator=generator)
    names = np.array([f"{seed}/{i}" for i in range(n)])
    return Split(
        images, calls.argmax(1), names, CLASSES, Normalisation((0.5,), (0.25,)),
        concepts=concepts.to(torch.int8), concept_names=NAMES,
    )  # fmt: skip


def planted() -> Dataset:
    return Dataset("planted", split(500, 1), split(300, 2), split(200, 3))


def net() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        model = nn.Sequential(nn.Flatten(), nn.Linear(SIDE**2, 3))
        model[1].weight.copy_((directions().T @ CAUSES).T)
        model[1].bias.zero_()
    return model


def found(data: Dataset, seed: int = 0, **options: Any) -> Record:
    return measure(net(), {"concepts": probe("concepts", **{"bootstrap": 10, **options})}, data, seed=seed)["concepts"]


@pytest.fixture(scope="module")
def record() -> Record:
    return found(planted())


def test_planted_concepts_are_found(record: Record) -> None:
    assert record.arrays["concept.good"].all()
    assert record.arrays["concept.auroc"].min() > 0.99
    assert record.arrays["concept.test_auroc"].min() > 0.99
    assert record.metrics["good_share"] == 1
    train = planted().train
    assert train.concepts is not None
    assert record.arrays["concept.positives"].tolist() == (train.concepts == 1).sum(0).tolist()
    assert record.arrays["concept.negatives"].tolist() == (train.concepts == 0).sum(0).tolist()


def test_causes_are_on_top(record: Record) -> None:
    contributions = record.arrays["class.contributions"]
    assert contributions.shape == (3, K)
    assert contributions.argmax(axis=1).tolist() == [0, 1, 2]
    assert contributions.argmin(axis=1).tolist() == [3, 4, 5]
    assert record.arrays["class.top"].shape == (3, 5)
    assert record.arrays["class.top"][:, 0].tolist() == [0, 1, 2]
    assert record.arrays["class.top_frequency"][:, 0].tolist() == [1, 1, 1]


def test_top_holds_what_speaks_for_a_class(record: Record) -> None:
    contributions, top = record.arrays["class.contributions"], record.arrays["class.top"]
    for row, listed, often in zip(contributions, top, record.arrays["class.top_frequency"], strict=True):
        chosen = [k for k in np.argsort(-row, kind="stable") if row[k] > 0][:5]
        assert listed.tolist() == chosen + [-1] * (5 - len(chosen))
        assert ((often >= 0) & (often <= 1)).all()


def test_scores_are_standardised_projections(record: Record) -> None:
    scores = record.arrays["image.scores"]
    assert scores.shape == (200, K)
    assert scores.dtype == np.float32
    test = planted().test
    x = test.normalisation(test.images).flatten(1)
    for k in range(K):
        assert np.corrcoef(scores[:, k], x @ directions()[k])[0, 1] > 0.97
    assert np.abs(scores.mean(axis=0)).max() < 0.3
    assert np.abs(scores.std(axis=0) - 1).max() < 0.2


def test_directions_give_the_scores_but_for_a_constant(record: Record) -> None:
    scores, axes = record.arrays["image.scores"], record.arrays["concept.directions"]
    assert (axes.shape, axes.dtype) == ((K, SIDE**2), np.float32)
    test = planted().test
    projected = test.normalisation(test.images).flatten(1).numpy() @ axes.T
    np.testing.assert_allclose(projected - projected.mean(0), scores - scores.mean(0), atol=1e-4)


def test_metrics(record: Record) -> None:
    metrics = record.metrics
    assert metrics["bottleneck_accuracy"] > 0.7  # many images have no cause or two: the label is then chance
    assert metrics["bottleneck_h_accuracy"] > 0.7
    assert metrics["fidelity"] > 0.7
    assert metrics["random_concept_accuracy"] < metrics["bottleneck_accuracy"] - 0.05
    assert metrics["shuffled_auroc"] == pytest.approx(0.5, abs=0.1)
    assert metrics["nonzeros"] == np.count_nonzero(record.arrays["class.weights"])
    path = record.arrays["path.penalties"]
    assert (np.diff(path) < 0).all()
    assert record.arrays["path.nonzeros"][0] == 0
    assert record.info["penalty"] in path
    chosen = path.tolist().index(record.info["penalty"])
    assert record.arrays["path.nonzeros"][chosen] == metrics["nonzeros"]


def test_facts(record: Record) -> None:
    assert record.info["concept_names"] == list(NAMES)
    assert record.info["layer"] == "1:input"
    assert record.info["concept_level"] == "image"
    assert record.info["not_good"] == []
    assert record.ids is not None
    assert record.ids.tolist() == planted().test.ids.tolist()


def test_weights_are_contributions_per_unit(record: Record) -> None:
    weights, contributions = record.arrays["class.weights"], record.arrays["class.contributions"]
    assert np.array_equal(weights == 0, contributions == 0)
    for k in range(K):
        used = weights[:, k] != 0
        ratio = contributions[used, k] / weights[used, k]  # the standard deviation of the distance: one per concept
        assert (ratio > 0).all()
        np.testing.assert_allclose(ratio, ratio[:1].repeat(used.sum()), rtol=1e-5)


def same(a: Record, b: Record, *, leave_out: tuple[str, ...] = ()) -> None:
    assert a.arrays.keys() == b.arrays.keys()
    for name in a.arrays:
        if name not in leave_out:
            np.testing.assert_array_equal(a.arrays[name], b.arrays[name], err_msg=name)


def test_deterministic_and_global_rng_untouched(record: Record) -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    again = found(planted())
    assert torch.equal(before, torch.random.get_rng_state())
    same(record, again)
    assert record.metrics == again.metrics


def test_seed_reaches_only_what_is_random(record: Record) -> None:
    other = found(planted(), seed=1)
    same(record, other, leave_out=("concept.shuffled_auroc", "class.top_frequency"))
    assert not np.array_equal(record.arrays["concept.shuffled_auroc"], other.arrays["concept.shuffled_auroc"])


def test_nothing_is_chosen_on_the_test_split(record: Record) -> None:
    data = planted()
    order = torch.randperm(200, generator=torch_generator(0, "order"))
    assert data.test.concepts is not None
    wrong = replace(data.test, labels=data.test.labels[order], concepts=data.test.concepts[order])
    other = found(replace(data, test=wrong))
    same(record, other, leave_out=("concept.test_auroc",))
    assert record.metrics["bottleneck_accuracy"] > other.metrics["bottleneck_accuracy"] + 0.2
    for name in ("fidelity", "nonzeros", "mean_auroc"):
        assert record.metrics[name] == other.metrics[name]


def test_shuffled_labels_close_the_gate() -> None:
    data = planted()
    parts = {}
    for name in ("train", "val"):
        part = data[name]
        assert part.concepts is not None
        order = torch.randperm(len(part), generator=torch_generator(0, name))
        parts[name] = replace(part, concepts=part.concepts[order])
    closed = found(replace(data, **parts))
    assert closed.metrics["mean_auroc"] == pytest.approx(0.5, abs=0.1)
    assert not closed.arrays["concept.good"].any()
    assert np.isnan([closed.metrics[m] for m in ("bottleneck_accuracy", "fidelity", "nonzeros")]).all()
    assert not closed.arrays["class.contributions"].any()
    assert (closed.arrays["class.top"] == -1).all()
    assert "No concept" in closed.info["warning"]
    assert np.isfinite(closed.arrays["image.scores"]).all()


def with_concepts(data: Dataset, change: Any) -> Dataset:
    return replace(data, **{name: replace(data[name], **change(data[name])) for name in ("train", "val", "test")})


def test_a_concept_without_positives_is_reported(record: Record) -> None:
    def without(part: Split) -> dict[str, Any]:
        assert part.concepts is not None
        concepts = part.concepts.clone()
        concepts[:, 1] = 0
        return {"concepts": concepts}

    other = found(with_concepts(planted(), without))
    assert other.arrays["concept.good"].tolist() == [True, False, True, True, True, True]
    assert other.info["not_good"] == ["concept 1"]
    assert other.arrays["concept.positives"][1] == 0
    assert np.isnan(other.arrays["concept.auroc"][1])
    assert np.isnan(other.arrays["image.scores"][:, 1]).all()
    assert np.flatnonzero(np.isnan(other.arrays["concept.directions"]).all(axis=1)).tolist() == [1]
    assert not other.arrays["class.contributions"][:, 1].any()
    assert 1 not in other.arrays["class.top"]
    np.testing.assert_allclose(other.arrays["concept.auroc"][[0, 2]], record.arrays["concept.auroc"][[0, 2]], atol=0.01)


def test_unknown_labels_and_rare_concepts() -> None:
    def rare(part: Split) -> dict[str, Any]:
        assert part.concepts is not None
        concepts = part.concepts.clone()
        concepts[:, 0] = torch.where(torch.arange(len(part)) < 20, concepts[:, 0], -1)  # known for 20 images
        return {"concepts": concepts}

    other = found(with_concepts(planted(), rare))
    assert not other.arrays["concept.good"][0]
    assert other.arrays["concept.positives"][0] + other.arrays["concept.negatives"][0] == 20
    assert found(with_concepts(planted(), rare), min_examples=5).arrays["concept.good"][0]


def test_class_level_concepts_are_named_as_such() -> None:
    table = torch.tensor([[1, 0], [0, 1], [1, 1]], dtype=torch.int8)
    level = with_concepts(
        planted(),
        lambda part: {"concepts": table[part.labels], "concept_names": ("p", "q"), "concept_level": "class"},
    )
    other = found(level, min_auroc=0.5)
    assert other.info["concept_level"] == "class"
    assert "whatever the network sees" in other.info["concept_level_note"]
    assert other.arrays["class.contributions"].shape == (3, 2)


def bank() -> Split:
    """Examples of each concept by themselves: labelled for it, unknown for all others."""
    whole = split(600, 9)
    assert whole.concepts is not None
    own = torch.arange(600) % K
    concepts = torch.full_like(whole.concepts, -1)
    concepts[torch.arange(600), own] = whole.concepts[torch.arange(600), own]
    return replace(whole, concepts=concepts)


def test_concept_bank(record: Record) -> None:
    data = with_concepts(planted(), lambda part: {"concepts": None, "concept_names": ()})
    other = found(replace(data, concept_bank=bank()))
    assert other.info["concept_source"] == "bank"
    assert other.arrays["concept.good"].all()
    assert np.isnan(other.arrays["concept.test_auroc"]).all()
    assert other.arrays["class.contributions"].argmax(axis=1).tolist() == [0, 1, 2]
    labelled = other.arrays["concept.positives"] + other.arrays["concept.negatives"]
    assert ((labelled >= 70) & (labelled <= 80)).all()  # of 100 each, a quarter is held out
    assert other.metrics["mean_auroc"] > 0.95


def test_held_out_part_of_a_bank() -> None:
    concepts = bank().concepts
    assert concepts is not None
    held = held_out(concepts, 0)
    assert int(held.sum()) == 150
    for k in range(K):
        for value in (0, 1):
            here = concepts[:, k] == value
            assert abs(float(held[here].double().mean()) - 0.25) < 1.5 / int(here.sum())
    assert not torch.equal(held, held_out(concepts, 1))


def test_training_images_are_capped() -> None:
    few = found(planted(), max_train=300)
    assert few.info["training_images"] == 300
    assert (few.arrays["concept.positives"] + few.arrays["concept.negatives"] == 300).all()
    assert few.arrays["class.contributions"].argmax(axis=1).tolist() == [0, 1, 2]


def test_the_networks_own_decisions_can_be_the_target(record: Record) -> None:
    own = found(planted(), target="prediction")
    assert own.metrics["fidelity"] >= record.metrics["fidelity"]
    assert own.info["target"] == "prediction"


def test_a_network_that_always_says_the_same() -> None:
    model = net()
    with torch.no_grad():
        model[1].bias.copy_(torch.tensor([1e4, 0, 0]))
    wanted = {"concepts": probe("concepts", target="prediction", bootstrap=2)}
    dull = measure(model, wanted, planted())["concepts"]
    assert dull.metrics["fidelity"] == 1
    assert dull.metrics["nonzeros"] == 0


def test_a_network_without_features() -> None:
    model = net()
    model[0] = nn.Sequential(nn.Flatten(), nn.Threshold(1e9, 0.0))
    dead = measure(model, {"concepts": probe("concepts")}, planted())["concepts"]
    assert not dead.arrays["concept.good"].any()
    assert np.isnan(dead.metrics["mean_auroc"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_auroc": 1.5}, "min_auroc must be in"),
        ({"l1_ratio": 0.0}, "l1_ratio must be in"),
        ({"top": 0}, "top must be at least 1"),
        ({"c": ()}, "one or more numbers above 0"),
        ({"target": "guess"}, "target"),
        ({"layers": "x"}, "did you mean 'layer'"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(PrunescopeError, match=message):
        probe("concepts", **options)


def test_data_without_concepts_is_refused() -> None:
    data = with_concepts(planted(), lambda part: {"concepts": None, "concept_names": ()})
    with pytest.raises(PrunescopeError, match="needs concept labels"):
        found(data)


def test_drift_of_a_network_to_itself(record: Record) -> None:
    rows = drift({"concepts": record}, {"concepts": record}, {"concepts": Concepts.distances}, draws=20)
    values = {row.distance: row.estimate.value for row in rows}
    assert values["correlation"] == pytest.approx(1)
    assert values["rbo"] == pytest.approx(1)
    assert values["sign_flips"] == 0
