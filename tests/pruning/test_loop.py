"""The invariants of pruning, through short real trainings."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from tiny_nets import PRUNABLE, Tiny, noise, same, state, tiny_net
from torch import Tensor

from prunescope.core.errors import PrunescopeError, PrunescopeWarning
from prunescope.core.mask import Mask
from prunescope.core.seeds import derive
from prunescope.engine.distillation import Distillation, Teacher
from prunescope.engine.train import StepState, fit
from prunescope.engine.training import Training
from prunescope.models.checkpoint import Checkpoint
from prunescope.pruning.criteria.chance import Random
from prunescope.pruning.criteria.flow import SynFlow
from prunescope.pruning.criteria.loss import Snip
from prunescope.pruning.criteria.magnitude import Magnitude
from prunescope.pruning.loop import rounds
from prunescope.pruning.recipe import Recipe
from prunescope.pruning.schedule import Rewind, Schedule
from prunescope.pruning.scoring import Criterion, criterion_batches, cut
from prunescope.pruning.turn import cut_round, first_mask, retrain

SPLIT = noise(48)  # three steps an epoch
TRAINING = Training(epochs=3, batch_size=16, lr=0.1, weight_decay=0.01, precision="32")
TOTAL, K = 9, 2
SCHEDULE = Schedule(density=0.2, rounds=3)
LATE = Recipe("late", schedule=SCHEDULE, rewind=Rewind("late", f"{K}it"))


def trained(stop: int | None = None, training: Training = TRAINING) -> Tiny:
    """The dense network at a step of its training."""
    net = tiny_net()
    if stop != 0:
        fit(net, SPLIT, training, seed=0, stop=stop, device="cpu")
    return net


def rewind_weights(recipe: Recipe) -> dict[str, Tensor] | None:
    steps = {"init": 0, "late": K}
    return state(trained(steps[recipe.rewind.to])) if recipe.rewind.to in steps else None


def run(recipe: Recipe, **options: object) -> list[Checkpoint]:
    weights = rewind_weights(recipe)
    return list(
        rounds(trained(), recipe, SPLIT, TRAINING, seed=0, rewind_weights=weights, device="cpu", **options)  # type: ignore[arg-type]
    )


def naive_cut(weights: dict[str, Tensor], before: Mask, count: int) -> Mask:
    """The largest magnitudes among survivors, one by one."""
    alive = [
        (-abs(float(weights[name].flatten()[i])), at, i, name)
        for at, name in enumerate(before)
        for i in before[name].flatten().nonzero().flatten().tolist()
    ]
    kept = {name: torch.zeros(before[name].numel(), dtype=torch.bool) for name in before}
    for _, _, i, name in sorted(alive)[:count]:
        kept[name][i] = True
    return Mask({name: flat.view_as(before[name]) for name, flat in kept.items()})


REWINDS = [Rewind("init"), Rewind("late", f"{K}it"), Rewind("lr", f"{K}it"), Rewind("none")]
each_rewind = pytest.mark.parametrize("rewind", REWINDS, ids=lambda rewind: rewind.to)


@each_rewind
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_pruned_weights_are_exactly_zero_after_every_step(rewind: Rewind, optimizer: str) -> None:
    recipe = Recipe("r", schedule=SCHEDULE, rewind=rewind, training=replace(TRAINING, optimizer=optimizer))  # type: ignore[arg-type]
    zeros: list[int] = []
    others: list[bool] = []

    def look(step: StepState) -> None:
        weights = dict(step.model.named_parameters())
        zeros.append(sum(int((weights[name] == 0).sum()) for name in PRUNABLE))
        others.append(all(bool((p != 0).all()) for name, p in weights.items() if name not in PRUNABLE))
        assert not any(bool(torch.signbit(w[w == 0]).any()) for w in weights.values())

    found = run(recipe, on_step=[look])
    per_round = TOTAL - (K if rewind.has_step else 0)
    total = found[0].mask.total  # type: ignore[union-attr]
    expected = [total - round(density * total) for density in SCHEDULE.densities()]
    assert zeros == [count for count in expected for _ in range(per_round)]
    assert all(others)  # biases and batch norm are trained and never cut


def test_without_the_mask_momentum_and_decay_would_move_pruned_weights() -> None:
    net = trained()
    mask = cut_round(net, first_mask(net, LATE), LATE, density=0.2, split=SPLIT, training=TRAINING, seed=0)
    mask.apply_(net)
    fit(net, SPLIT, TRAINING, seed=0, device="cpu")
    assert Mask.of_zeros(net, PRUNABLE).kept > mask.kept  # so the test above can fail


@each_rewind
def test_densities_are_exact_and_masks_nested(rewind: Rewind) -> None:
    found = run(Recipe("r", schedule=SCHEDULE, rewind=rewind))
    assert [checkpoint.round for checkpoint in found] == [1, 2, 3]
    masks = [checkpoint.mask for checkpoint in found if checkpoint.mask is not None]
    assert [mask.kept for mask in masks] == [round(d * masks[0].total) for d in SCHEDULE.densities()]
    assert all(b.nested_in(a) for a, b in pairwise(masks))
    assert all(list(mask) == PRUNABLE for mask in masks)


@each_rewind
def test_each_cut_looks_at_the_end_of_the_training_before(rewind: Rewind) -> None:
    ends = [state(trained())]
    mask = Mask.dense(tiny_net(), PRUNABLE)
    for checkpoint in run(Recipe("r", schedule=SCHEDULE, rewind=rewind)):
        assert checkpoint.mask is not None
        mask = naive_cut(ends[-1], mask, checkpoint.mask.kept)
        assert checkpoint.mask == mask
        ends.append(dict(checkpoint.weights))
    assert not any(same(a, b) for a, b in pairwise(ends))


# Where retraining starts


def begin(recipe: Recipe, net: Tiny, mask: Mask) -> dict[str, Tensor]:
    """Weights and buffers as the first step of retraining finds them."""
    at = recipe.rewind.start(3, TOTAL)
    retrain(
        net, mask, recipe, SPLIT, TRAINING,
        rewind_weights=rewind_weights(recipe), order=1, seed=0, stop=at, device="cpu",
    )  # fmt: skip
    return state(net)


@each_rewind
def test_retraining_starts_from_the_state_the_recipe_names(rewind: Rewind) -> None:
    recipe = Recipe("r", schedule=SCHEDULE, rewind=rewind)
    net = trained()
    mask = cut_round(net, first_mask(net, recipe), recipe, density=0.3, split=SPLIT, training=TRAINING, seed=0)
    expected = state(trained({"init": 0, "late": K}.get(rewind.to)))
    for name, kept in mask.items():
        expected[name] = torch.where(kept, expected[name], torch.zeros(()))
    assert same(begin(recipe, net, mask), expected)  # weights where kept, biases, batch norm with its statistics


@pytest.mark.parametrize(
    ("rewind", "first"),
    [(Rewind("init"), 0), (Rewind("late", "2it"), 2), (Rewind("lr", "1ep"), 3), (Rewind("none"), 0)],
)
def test_retraining_enters_the_learning_rate_schedule_where_the_recipe_says(rewind: Rewind, first: int) -> None:
    seen: list[tuple[int, float]] = []
    recipe = Recipe("r", schedule=Schedule(0.5, 1), rewind=rewind)
    run(recipe, on_step=[lambda step: seen.append((step.step, step.optimizer.param_groups[0]["lr"]))])
    cosine = [(n + 1, 0.05 * (1 + math.cos(math.pi * n / TOTAL))) for n in range(first, TOTAL)]
    assert seen == [(step, pytest.approx(rate)) for step, rate in cosine]


def test_late_rewinding_without_a_cut_and_with_the_same_data_order_is_the_dense_training() -> None:
    # Without momentum, which is fresh after rewinding, going on from step k must give the very same bits.
    plain = replace(TRAINING, momentum=0.0)
    net, late = trained(training=plain), state(trained(K, plain))
    retrained = tiny_net(5)
    retrain(retrained, first_mask(net, LATE), LATE, SPLIT, plain, rewind_weights=late, order=0, seed=0, device="cpu")
    assert same(state(net), state(retrained))


def test_each_round_has_its_own_data_order() -> None:
    late, mask = state(trained(K)), first_mask(tiny_net(), LATE)
    ends = []
    for order in (1, 1, 2):
        net = tiny_net()
        retrain(net, mask, LATE, SPLIT, TRAINING, rewind_weights=late, order=order, seed=0, device="cpu")
        ends.append(state(net))
    assert same(ends[0], ends[1])
    assert not same(ends[0], ends[2])


# The generator and its pieces


@each_rewind
def test_the_generator_is_its_pieces_done_by_hand(rewind: Rewind) -> None:
    recipe = Recipe("r", schedule=SCHEDULE, rewind=rewind)
    weights, start = rewind_weights(recipe), K if rewind.has_step else 0
    net, mask = trained(), Mask.dense(tiny_net(), PRUNABLE)
    for number, checkpoint in enumerate(run(recipe), start=1):
        mask = naive_cut(state(net), mask, round(SCHEDULE.densities()[number - 1] * mask.total))
        net = tiny_net() if weights is not None else net
        if weights is not None:
            net.load_state_dict(weights)
        history = fit(net, SPLIT, TRAINING, seed=0, mask=mask, start=start, order=number, device="cpu")
        assert same(state(net), dict(checkpoint.weights))
        assert [entry["loss"] for entry in history] == [entry["loss"] for entry in checkpoint.history]


def test_whoever_iterates_may_look_at_the_network_and_may_stop() -> None:
    recipe, found = LATE, []
    net = trained()
    for checkpoint in rounds(net, recipe, SPLIT, TRAINING, seed=0, rewind_weights=rewind_weights(recipe), device="cpu"):
        assert same(state(net), dict(checkpoint.weights))
        net.eval()
        torch.rand(7)
        found.append(checkpoint)
        if checkpoint.round == 2:
            break
    for a, b in zip(found, run(recipe), strict=False):
        assert same(dict(a.weights), dict(b.weights))


def test_a_recipe_may_train_otherwise_and_history_tells() -> None:
    short = replace(TRAINING, epochs=2, lr=0.01)
    entries: list[dict[str, object]] = []
    recipe = Recipe("short", schedule=Schedule(0.5, 2), rewind=Rewind("none"), training=short)
    found = run(recipe, on_epoch=entries.append, validate=noise(12, seed=1))
    assert [len(checkpoint.history) for checkpoint in found] == [2, 2]
    assert entries == [entry for checkpoint in found for entry in checkpoint.history]
    assert all(entry["lr"] <= 0.01 and 0 <= entry["val_accuracy"] <= 1 for entry in entries)  # type: ignore[operator]


def test_rounds_may_differ_in_length() -> None:
    recipe = Recipe("r", schedule=SCHEDULE, rewind=Rewind("none"), epochs_per_round=(1, 1, 2))
    seen: list[tuple[int, float]] = []
    found = run(recipe, on_step=[lambda step: seen.append((step.step, step.optimizer.param_groups[0]["lr"]))])
    assert [checkpoint.history[-1]["step"] for checkpoint in found] == [3, 3, 6]
    assert [step for step, rate in seen if rate == TRAINING.lr] == [1, 1, 1]  # every round enters a schedule of its own
    with pytest.raises(PrunescopeError, match="epochs must be above 0"):
        next(rounds(trained(), replace(recipe, epochs_per_round=(1, 1, 0)), SPLIT, TRAINING, seed=0))


@each_rewind
def test_every_round_learns_from_the_dense_network(rewind: Rewind) -> None:
    by = Distillation(0.7, 2.0)
    found = run(Recipe("taught", schedule=Schedule(0.3, 2), rewind=rewind, distill=by))
    weights, start = rewind_weights(Recipe("r", rewind=rewind)), K if rewind.has_step else 0
    net, teacher = trained(), Teacher(trained(), by)
    for checkpoint in found:
        if weights is not None:
            net.load_state_dict(weights)
        fit(
            net, SPLIT, TRAINING, seed=0, mask=checkpoint.mask, teacher=teacher, start=start,
            order=checkpoint.round, device="cpu",
        )  # fmt: skip
        assert same(state(net), dict(checkpoint.weights))


@pytest.mark.parametrize("by", [Magnitude(), Snip(), SynFlow(iterations=3), Random()], ids=lambda by: by.name)
def test_before_training_the_initialisation_is_cut_and_trained(by: Criterion) -> None:
    schedule = Schedule(0.2, kind="one-shot", when="before-training")
    (found,) = run(Recipe("early", criterion=by, schedule=schedule, rewind=Rewind("init")))
    batches = criterion_batches(SPLIT, TRAINING, derive(0, "criterion", 1))
    net, whole = tiny_net(), Mask.dense(tiny_net(), PRUNABLE)
    mask = cut(net, whole, by, keep=0.2, batches=batches, seed=derive(0, "criterion", 1))
    assert found.mask == mask
    fit(net, SPLIT, TRAINING, seed=0, mask=mask, order=1, device="cpu")
    assert same(state(net), dict(found.weights))
    late = cut(trained(), whole, by, keep=0.2, batches=batches, seed=derive(0, "criterion", 1))
    assert (late == mask) == (by == Random())  # all others look at the weights


@each_rewind
def test_density_one_trains_the_uncut_network_again(rewind: Rewind) -> None:
    (found,) = run(Recipe("whole", schedule=Schedule(density=1), rewind=rewind))
    assert found.mask is not None
    assert found.mask == Mask.dense(tiny_net(), PRUNABLE)
    net, weights = trained(), rewind_weights(Recipe("r", rewind=rewind))
    if weights is not None:
        net.load_state_dict(weights)
    fit(net, SPLIT, TRAINING, seed=0, start=K if rewind.has_step else 0, order=1, device="cpu")
    assert same(state(net), dict(found.weights))


def test_ignored_layers_are_not_in_the_mask() -> None:
    recipe = replace(LATE, ignore=("head", "conv1*"))
    assert list(first_mask(tiny_net(), recipe)) == ["conv2.weight"]
    with pytest.raises(PrunescopeError, match="'haed' matches no parameter"):
        first_mask(tiny_net(), replace(LATE, ignore=("haed",)))


def test_random_criteria_draw_anew_in_every_round_and_seed() -> None:
    recipe = Recipe("random", criterion=Random(), schedule=SCHEDULE, rewind=Rewind("none"))
    net, weights = trained(), state(trained())

    def masks(seed: int) -> list[Mask]:
        net.load_state_dict(weights)
        found = rounds(net, recipe, SPLIT, replace(TRAINING, epochs=1), seed=seed, device="cpu")
        return [checkpoint.mask for checkpoint in found if checkpoint.mask is not None]

    assert masks(0) == masks(0)
    assert masks(0) != masks(1)


@pytest.mark.parametrize("rewind", [Rewind("none"), Rewind("lr", "1ep")], ids=lambda rewind: rewind.to)
def test_recipes_that_keep_the_weights_have_no_use_for_others(rewind: Rewind) -> None:
    recipe = Recipe("r", schedule=SCHEDULE, rewind=rewind)
    other = state(tiny_net(9))
    found = rounds(trained(), recipe, SPLIT, TRAINING, seed=0, rewind_weights=other, device="cpu")
    for given, plain in zip(found, run(recipe), strict=True):
        assert same(dict(given.weights), dict(plain.weights))


@pytest.mark.parametrize("to", ["init", "late"])
def test_rewinding_needs_something_to_rewind_to(to: str) -> None:
    recipe = Recipe("r", rewind=Rewind(to))  # type: ignore[arg-type]
    with pytest.raises(PrunescopeError, match="pass rewind_weights"):
        next(rounds(tiny_net(), recipe, SPLIT, TRAINING, seed=0))


def test_criteria_that_need_data_get_training_batches() -> None:
    batches = criterion_batches(SPLIT, replace(TRAINING, batch_size=20), seed=4)
    first, second = list(batches()), list(batches())
    assert [len(y) for _, y in first] == [20, 20]  # whole batches, normalised, the same each time
    assert all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in zip(first, second, strict=True))
    pixels = SPLIT.normalisation(SPLIT.images[:])
    assert all(any(torch.equal(image, pixel) for pixel in pixels) for image in first[0][0])


def test_a_layer_that_loses_all_its_weights_is_told_of_once() -> None:
    net = tiny_net()
    with torch.no_grad():
        net.conv2.weight.mul_(1e-6)
    recipe = Recipe("harsh", schedule=Schedule(density=0.1, rounds=2), rewind=Rewind("none"))
    with pytest.warns(PrunescopeWarning) as told:
        list(rounds(net, recipe, SPLIT, TRAINING, seed=0, device="cpu", cut_only=True))
    assert [str(each.message) for each in told] == ["recipe 'harsh', round 1: no weights are left in conv2.weight"]
