"""Methods of removal beside each other: orders, accuracy, diversity and enrichment, each beside a loop."""

from __future__ import annotations

import copy
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from test_greedy import SIZES, Net, images, logits_without, naive, net, planted

from prunescope.core.errors import PrunescopeError
from prunescope.data.split import Split
from prunescope.engine.ablation.ablate import Ablator
from prunescope.engine.ablation.answers import Effort
from prunescope.engine.train import fit
from prunescope.engine.training import Training
from prunescope.engine.without import Units
from prunescope.metrics.redundancy import clusters
from prunescope.pruning.compare import Comparison, compare_removals, fine_tuning
from prunescope.pruning.kept_out import removal_mask
from prunescope.pruning.orders import METHODS, Ground
from prunescope.pruning.trails import Trail
from prunescope.testing.snapshot import Snapshot

CHEAP = ("car-one-shot", "l1", "outgoing", "random")


def right(model: Net, split: Split, gone: Units) -> list[bool]:
    return (logits_without(model, split, gone).argmax(1) == split.labels).tolist()


def order(model: Any, split: Split, layer: str, method: str, **options: Any) -> list[int]:
    found = METHODS[method](Ground(model, split, **options), layer)
    assert {name for name, _ in found} == {layer}
    return [channel for _, channel in found]


def rising(values: Any) -> list[int]:
    """Least first, of equal ones the last first; the last of all stays."""
    return np.lexsort((-np.arange(len(values)), np.asarray(values))).tolist()[:-1]


# Orders, each by its definition


@pytest.mark.parametrize("layer", ["one", "two", "hidden"])
def test_orders_of_car_are_those_of_loops(layer: str) -> None:
    model, split = net(2), images(40, 2)
    steps = naive(model, split, {layer: SIZES[layer]}, SIZES[layer] - 1)
    assert order(model, split, layer, "car-greedy") == [channel for _, channel, _, _ in steps]
    drops = {}
    for channel in range(SIZES[layer]):
        logits = logits_without(model, split, {layer: [channel]})
        likely = logits.log_softmax(1).gather(1, split.labels[:, None]).mean()
        drops[channel] = (-int((logits.argmax(1) == split.labels).sum()), -float(likely))  # ties: the smaller drop
    assert order(model, split, layer, "car-one-shot") == sorted(drops, key=drops.__getitem__)[:-1]


def test_orders_by_weights_are_those_of_loops() -> None:
    model, split = net(5), images(40, 5)
    own, read = model.one.weight.detach(), model.two.weight.detach()
    sizes = {
        "l1": [float(own[c].abs().sum()) for c in range(5)],
        "l2": [float(own[c].square().sum().sqrt()) for c in range(5)],
        "outgoing": [float(read[:, c].abs().sum()) for c in range(5)],
    }
    for method, values in sizes.items():
        assert order(model, split, "one", method) == rising(values)
    assert len({tuple(order(model, split, "one", method)) for method in sizes}) > 1


def test_the_order_by_zeros_counts_them_behind_the_relu() -> None:
    model, split = net(1), images(40, 1)
    x = split.normalisation(split.images[:])
    with torch.no_grad():
        answers = F.relu(model.norm1(model.one(x)))
    share = (answers != 0).double().mean((0, 2, 3))
    assert order(model, split, "one", "apoz") == rising(share)


def test_the_order_by_taylor_squares_what_a_gate_does_to_each_batch_s_loss() -> None:
    model, split = net(1), images(80, 1)
    total = torch.zeros(4)
    for _, x, y in split.batches(32):
        gate = torch.ones(4, requires_grad=True)
        other = copy.deepcopy(model)
        del other.two.weight
        other.two.weight = model.two.weight.detach() * gate[:, None, None, None]  # type: ignore[assignment]
        (slope,) = torch.autograd.grad(F.cross_entropy(other(x), y), gate)
        total += len(y) * slope.square()
    assert order(model, split, "two", "taylor") == rising(total)


def test_orders_by_chance_and_by_shapley_hang_on_the_seed_alone() -> None:
    model, split = net(1), images(40, 1)
    drawn = {tuple(order(model, split, "one", "random", seed=seed)) for seed in range(8)}
    assert len(drawn) > 4
    assert order(model, split, "one", "random", seed=3) == order(model, split, "one", "random", seed=3)
    first = order(model, split, "one", "shapley", seed=3)
    assert first == order(model, split, "one", "shapley", seed=3)
    model, split = planted()
    # 4 is dead, and twins share what one of them is worth; green is what is said without evidence.
    assert set(order(model, split, "0", "shapley", walks=40)[:4]) == {4, 1, 0, 3}


# Trails


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 99), st.integers(1, 3), st.sampled_from(["one", "two", "hidden"]), st.sampled_from(CHEAP))
def test_accuracy_along_a_trail_is_that_of_hooked_copies(seed: int, every: int, layer: str, method: str) -> None:
    model, choose, report = net(seed), images(30, seed), images(21, seed, "reported")
    (trail,) = compare_removals(model, choose, report, [layer], methods=[method], every=every, at=[0.5]).trails
    assert (trail.layer, trail.method, trail.units) == (layer, method, SIZES[layer])
    expected = {*range(0, SIZES[layer] - 1, every), SIZES[layer] // 2, SIZES[layer] - 1}
    assert trail.removed.tolist() == sorted(expected)
    for count, row in zip(trail.removed.tolist(), trail.right, strict=True):
        assert row.tolist() == right(model, report, {layer: trail.order[:count].tolist()})
        assert trail.rightly(count).tolist() == row.tolist()


def test_nothing_of_the_network_changes_and_trails_come_as_they_are_done() -> None:
    model, choose, report = net(), images(), images(20, 0, "reported")
    model.train()
    before, seen = Snapshot(model), list[Trail]()
    tune = fine_tuning(images(32, 0, "train"), Training(epochs=1, batch_size=16, lr=0.1, precision="32"))
    found = compare_removals(
        model, choose, report, ["one", "two"], methods=CHEAP, fine_tune=tune, on_trail=seen.append
    )  # fmt: skip
    assert before.differences() == []
    assert [(t.layer, t.method) for t in seen] == [(layer, method) for layer in ("one", "two") for method in CHEAP]
    assert found.trails == tuple(seen)


def test_fine_tuning_is_that_of_a_copy_under_a_mask_and_the_same_for_all() -> None:
    model, choose, report, train = net(3), images(seed=3), images(60, 3, "reported"), images(48, 3, "train")
    training = Training(epochs=2, batch_size=16, lr=0.05, precision="32")
    tune = fine_tuning(train, training, seed=4)
    found = compare_removals(model, choose, report, ["one"], methods=("l1", "l2"), fine_tune=tune, at=(0.4, 0.8))
    for trail in found.trails:
        assert sorted(trail.tuned) == [2, 4]
        for count, said in trail.tuned.items():
            other, gone = copy.deepcopy(model), {"one": trail.order[:count].tolist()}
            fit(other, train, training, seed=4, mask=removal_mask(other, gone, train.shape), device="cpu")
            assert said.tolist() == right(other.eval(), report, gone)
            assert trail.rightly(count, tuned=True).tolist() == said.tolist()
            assert said.tolist() != trail.rightly(count).tolist()
    with pytest.raises(PrunescopeError, match=r"l1 in one was measured after \[2, 4\] removals, not after 3"):
        found.trails[0].rightly(3, tuned=True)


def test_with_nothing_out_fine_tuning_is_training() -> None:
    model, other, train = net(3), net(3), images(48, 3, "train")
    training = Training(epochs=1, batch_size=16, lr=0.05, precision="32")
    fine_tuning(train, training, seed=4)(model, {})
    fit(other, train, training, seed=4, device="cpu")
    assert not torch.equal(model.one.weight, net(3).one.weight)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True))


def test_diversity_counts_kinds_of_which_a_channel_is_left() -> None:
    model, split = planted()
    noise = torch.randint(0, 9, split.images.shape, generator=torch.Generator().manual_seed(0))  # type: ignore[arg-type]
    split.images.sub_(noise.to(torch.uint8))  # type: ignore[attr-defined]
    halves = [split.subset(torch.arange(part, 24, 2)) for part in (0, 1)]
    (trail,) = compare_removals(model, *halves, ["0"], methods=["car-greedy"], maps={"0": "1"}).trails
    with torch.no_grad():
        answers = model[1](model[0](halves[0].normalisation(halves[0].images[:])))
    with np.errstate(invalid="ignore", divide="ignore"):
        kinds = clusters(np.corrcoef(answers.transpose(0, 1).flatten(1).double().numpy()))
    assert sorted(set(kinds)) == [-1, 0, 1, 2]
    for count, left in zip(trail.removed.tolist(), trail.diversity.tolist(), strict=True):
        alive = {int(kinds[c]) for c in range(5) if c not in trail.order[:count]} - {-1}
        assert left == pytest.approx(len(alive) / 3)
    with pytest.raises(PrunescopeError, match="maps: 4 has 3 channels, and 0 has 5"):
        compare_removals(model, *halves, ["0"], methods=["l1"], maps={"0": "4"})


def test_without_maps_that_vary_diversity_is_not_known() -> None:
    model, choose, report = net(), images(), images(20, 0, "reported")
    with torch.no_grad():
        model.one.weight.zero_()
    found = compare_removals(model, choose, report, ["one"], methods=["l1"])
    assert np.isnan(found.trails[0].diversity).all()
    assert found.curves()["diversity"].isna().all()


# Tables


def made(order: list[int], units: int, method: str = "l1") -> Trail:
    right, tuned = np.array([[True, True, False], [True, False, False]]), {2: np.array([True, True, True])}
    kept = np.array([1.0, 0.5])
    return Trail("one", method, 7, units, np.array(order), np.array([0, 2]), right, tuned, kept)


def test_tables_have_the_columns_of_the_files() -> None:
    found = Comparison((made([2, 0, 3], 4), made([1, 0, 2], 4, "l2")))
    orders = found.orders()
    assert list(orders) == ["layer", "method", "seed", "place", "channel"]
    assert orders.query("method == 'l1'")["channel"].tolist() == [2, 0, 3]
    assert orders["place"].tolist() == [0, 1, 2] * 2
    curves = found.curves()
    assert list(curves) == ["layer", "method", "seed", "fine_tuned", "removed", "share_removed", "accuracy", "images",
                            "diversity"]  # fmt: skip
    rows = curves.query("method == 'l1'").fillna(-1).to_numpy().tolist()
    assert rows == [
        ["one", "l1", 7, 0, 0, 0.0, 0.666667, 3, 1.0],
        ["one", "l1", 7, 0, 2, 0.5, 0.333333, 3, 0.5],
        ["one", "l1", 7, 1, 2, 0.5, 1.0, 3, -1],
    ]


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(7)), st.lists(st.booleans(), min_size=7, max_size=7))
def test_enrichment_is_the_share_of_draws_with_as_many(channels: list[int], kind: list[bool]) -> None:
    """By counting all draws; the channel that stays is drawn from as well."""
    found = Comparison((made(channels[:6], 7),)).enrichment({"one": np.array(kind)}, first=(2, 9))
    assert found["first"].tolist() == [2, 3]
    for row in found.to_dict("records"):
        hits = sum(kind[channel] for channel in channels[: row["first"]])
        draws = [sum(kind[c] for c in draw) for draw in combinations(range(7), row["first"])]
        assert (row["colour_selective"], row["base"], row["units"]) == (hits, sum(kind), 7)
        assert row["of"] == row["first"]
        assert row["p"] == pytest.approx(np.mean([drawn >= hits for drawn in draws]))
    assert Comparison((made(channels[:6], 7),)).enrichment({"two": np.array(kind)}).empty


def test_bad_input() -> None:
    model, choose, report = net(), images(), images(20, 0, "reported")
    with pytest.raises(PrunescopeError, match="did you mean 'shapley'"):
        compare_removals(model, choose, report, ["one"], methods=["shaply"])
    with pytest.raises(PrunescopeError, match="unknown layer with units 'head'"):
        compare_removals(model, choose, report, ["head"])
    with pytest.raises(PrunescopeError, match=r"shares in \(0, 1\)"):
        compare_removals(model, choose, report, ["one"], at=[0.5, 1.0])
    with pytest.raises(PrunescopeError, match="every 1 removal or more"):
        compare_removals(model, choose, report, ["one"], every=0)
    with pytest.raises(PrunescopeError, match="30 images both choose and report"):
        compare_removals(model, choose, choose, ["one"])


def test_copies_that_are_fine_tuned_are_measured_within_the_same_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def made(*given: Any, **options: Any) -> Ablator:
        asked.append(options["effort"])
        return Ablator(*given, **options)

    monkeypatch.setattr("prunescope.pruning.compare.Ablator", made)
    effort = Effort(memory=2**28)
    compare_removals(
        net(), images(), images(20, 0, "reported"), ["one"], methods=["l1"], at=[0.5], effort=effort,
        fine_tune=lambda model, gone: None,
    )  # fmt: skip
    assert asked == [effort]
