"""Pruning while the network trains: against trainings in pieces with cuts between them, and the papers' formulas."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from test_loop import SPLIT, TOTAL, TRAINING, K, rewind_weights, run, trained
from test_regrow import rigl
from tiny_nets import PRUNABLE, same, state, tiny_net
from torch import Tensor

from prunescope.core.errors import PrunescopeError
from prunescope.core.mask import Mask
from prunescope.core.seeds import derive
from prunescope.engine.masking import StepState
from prunescope.engine.train import fit
from prunescope.pruning.criteria.chance import Random
from prunescope.pruning.criteria.flow import SynFlow
from prunescope.pruning.criteria.loss import Snip
from prunescope.pruning.during import MovingMask
from prunescope.pruning.granularity import granularities, granularity
from prunescope.pruning.recipe import Recipe
from prunescope.pruning.regrow import Regrow
from prunescope.pruning.schedule import Rewind, Schedule
from prunescope.pruning.scope import Sensitivity, Table
from prunescope.pruning.scoring import criteria, criterion, criterion_batches, cut
from prunescope.pruning.turn import first_mask

CUBIC = Schedule(0.1, kind="cubic", begin="1it", end="8it", every="2it")  # cuts at 3, 5 and 7
ONCE = Schedule(0.2, kind="one-shot", when="before-training")
ALL = sum(dict(tiny_net().named_parameters())[name].numel() for name in PRUNABLE)
INIT, NONE = Rewind("init"), Rewind("none")
RIGL = Recipe("rigl", Random(), "erk", ONCE, INIT, regrow=Regrow(every="2it", until="8it"))
SET = Recipe("set", Random(), "erk", ONCE, INIT, regrow=Regrow("random", 0.3, "none", "1ep", "100%"))
GRANET = Recipe("granet", schedule=CUBIC, rewind=INIT, regrow=Regrow(share=0.5, every="1it", until="100%"))


def begin(recipe: Recipe) -> Any:
    """The network that the recipe's training begins with."""
    net, weights = trained(), rewind_weights(recipe)
    if weights is not None:
        net.load_state_dict(weights)
    return net


def watched(recipe: Recipe, **options: Any) -> tuple[list[StepState], list[Mask], MovingMask]:
    """A training by the recipe from its start; masks after every step."""
    net, masks, states = begin(recipe), [], []
    mask = first_mask(net, recipe)
    if not recipe.schedule.gradual:
        mask = cut(net, mask, recipe.criterion, keep=recipe.schedule.density, scope=recipe.scope)
    moving = MovingMask(mask, recipe, SPLIT, TRAINING, seed=0, number=1)

    def look(step: StepState) -> None:
        weights = dict(step.model.named_parameters())
        assert all(not weights[name][~kept].any() for name, kept in moving.mask.items())
        masks.append(moving.mask)
        states.append(step)

    start = recipe.rewind.start(3, TOTAL)
    fit(net, SPLIT, TRAINING, seed=0, mask=moving, start=start, order=1, on_step=[look], device="cpu", **options)
    return states, masks, moving


# Cubic


@pytest.mark.parametrize("rewind", [NONE, INIT, Rewind("late", f"{K}it"), Rewind("lr", f"{K}it")], ids=lambda r: r.to)
def test_densities_are_zhu_and_guptas_after_every_step(rewind: Rewind) -> None:
    start = rewind.start(3, TOTAL)
    first, n = max(1, start), (8 - max(1, start)) // 2
    _, masks, _ = watched(Recipe("cubic", schedule=CUBIC, rewind=rewind))
    s_i, s_f, sparsity, expected = 0.0, 0.9, 0.0, []
    for t in range(start + 1, TOTAL + 1):
        if t > first and (t - first) % 2 == 0 and t <= first + 2 * n:
            sparsity = s_f + (s_i - s_f) * (1 - (t - first) / (n * 2)) ** 3  # eq. 1
        expected.append(round((1 - sparsity) * ALL))
    assert [mask.kept for mask in masks] == expected
    assert expected[-1] == round(0.1 * ALL) < expected[0] == ALL
    assert all(b.nested_in(a) for a, b in pairwise(masks))


@pytest.mark.parametrize(
    "options",
    [{}, {"scope": "layer"}, {"scope": "erk"}, {"scope": Table((("conv1", 0.5), ("conv2", 0.9)))},
     {"target": "flops"}, {"target": "parameters"}, {"criterion": Snip()}, {"criterion": Random()},
     {"criterion": SynFlow(iterations=3)}, {"granularity": granularity("filter"), "scope": "layer"},
     {"ignore": ("head",)}],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("rewind", [NONE, INIT], ids=lambda r: r.to)
def test_one_training_is_its_pieces_with_cuts_between(options: dict[str, Any], rewind: Rewind) -> None:
    """Without momentum, which a new call of `fit` begins anew, the bits must be the same."""
    plain = replace(TRAINING, momentum=0.0)
    recipe = Recipe("cubic", schedule=CUBIC, rewind=rewind, training=plain, **options)
    (found,) = run(recipe)
    net, last = begin(recipe), 0
    mask = first_mask(net, recipe)
    for step, done in ((3, 1 / 3), (5, 2 / 3), (7, 1.0), (TOTAL, None)):
        fit(net, SPLIT, plain, seed=0, mask=mask, start=last, stop=step, order=1, device="cpu")
        if done is not None:
            seed = derive(0, "criterion", 1, step)
            mask = cut(
                net.eval(), mask, recipe.criterion, keep=0.1 + 0.9 * (1 - done) ** 3, scope=recipe.scope,
                granularity=recipe.granularity, target=recipe.target, shape=SPLIT.shape,
                batches=criterion_batches(SPLIT, plain, seed), seed=seed,
            )  # fmt: skip
        last = step
    assert found.mask == mask
    assert same(dict(found.weights), state(net))


def test_density_one_cuts_nothing() -> None:
    (found,) = run(Recipe("whole", schedule=replace(CUBIC, density=1.0), rewind=NONE))
    net = trained()
    fit(net, SPLIT, TRAINING, seed=0, order=1, device="cpu")
    assert same(dict(found.weights), state(net))


@pytest.mark.filterwarnings("ignore:.*no weights are left")
@pytest.mark.parametrize("schedule", [CUBIC, ONCE], ids=["during", "before"])
@pytest.mark.parametrize("name", sorted(set(criteria) - {"bn-scale"}))  # before training all scales are 1
def test_every_criterion_cuts_before_and_in_training(name: str, schedule: Schedule) -> None:
    options = {"iterations": 3} if name == "synflow" else {}
    by = criterion(name, **options)
    units = granularity("filter" if by.per == "filter" else "weight")
    (found,) = run(Recipe("r", by, schedule=replace(schedule, density=0.5), rewind=INIT, granularity=units))
    assert found.mask is not None
    if by.per == "filter":
        left = sum(int(kept.flatten(1).any(1).sum()) for kept in found.mask.values())
        assert left == round(0.5 * sum(len(kept) for kept in found.mask.values()))
    else:
        assert found.mask.kept == round(0.5 * ALL)


@pytest.mark.parametrize("schedule", [CUBIC, ONCE], ids=["during", "before"])
@pytest.mark.parametrize("name", sorted(set(granularities) - {"n:m"}))
def test_every_granularity_is_cut_before_and_in_training(name: str, schedule: Schedule) -> None:
    (found,) = run(Recipe("r", granularity=granularity(name), schedule=replace(schedule, density=0.5), rewind=INIT))
    assert found.mask is not None
    net = tiny_net()
    units = granularity(name).fitted(net, SPLIT.shape)
    assert units.density(net, found.mask) == pytest.approx(0.5, abs=0.1)  # there are few of some


# Regrowing


class Watching:
    """Hands on what a moving mask does, and keeps what it saw before."""

    def __init__(self, recipe: Recipe) -> None:
        net = tiny_net()
        first = cut(net, first_mask(net, recipe), recipe.criterion, keep=0.2, scope=recipe.scope)
        self.inner = MovingMask(first, recipe, SPLIT, TRAINING, seed=0, number=1)
        self.identity = self.inner.identity
        self.seen: list[tuple[int, dict[str, Tensor], dict[str, Tensor], Mask, Mask]] = []

    @property
    def mask(self) -> Mask:
        return self.inner.mask

    @mask.setter
    def mask(self, mask: Mask) -> None:
        self.inner.mask = mask

    def update(self, step: StepState) -> bool:
        parameters = {name: p for name, p in step.model.named_parameters() if name in PRUNABLE}
        weights = {name: p.detach().clone() for name, p in parameters.items()}
        slopes = {name: p.grad.clone() for name, p in parameters.items() if p.grad is not None}
        before = self.mask
        changed = self.inner.update(step)
        self.seen.append((step.step, weights, slopes, before, self.mask))
        return changed


def test_rigl_is_its_algorithm_at_every_step() -> None:
    watching = Watching(RIGL)
    fit(tiny_net(), SPLIT, TRAINING, seed=0, mask=watching, device="cpu")
    changed = 0
    for step, weights, slopes, before, after in watching.seen:
        fraction = 0.15 * (1 + torch.cos(torch.tensor(torch.pi * step / 8)).item()) if step in (2, 4, 6) else 0.0
        for name, kept in before.items():
            flat = [x.flatten().tolist() for x in (weights[name], slopes[name], kept)]
            assert after[name].flatten().tolist() == rigl(*flat, fraction)
        changed += before != after
    assert changed == 3


def test_set_exchanges_after_every_epoch_but_the_last() -> None:
    watching = Watching(SET)
    fit(tiny_net(), SPLIT, TRAINING, seed=0, mask=watching, device="cpu")
    assert [step for step, _, _, before, after in watching.seen if before != after] == [3, 6]
    for _, weights, _, before, after in watching.seen:
        for name, kept in before.items():
            count = int(0.3 * int(kept.sum()))
            sizes = weights[name][kept].abs().sort().values
            gone, came = kept & ~after[name], after[name] & ~kept
            assert int(gone.sum()) == int(came.sum()) <= count
            if before != after:
                assert bool(after[name][weights[name].abs() > sizes[count - 1]].all())  # only the smallest go


@pytest.mark.parametrize("recipe", [RIGL, SET], ids=lambda recipe: recipe.name)
def test_every_layers_density_stays(recipe: Recipe) -> None:
    _, masks, moving = watched(recipe)
    assert {tuple(int(kept.sum()) for kept in mask.values()) for mask in masks} == {
        tuple(int(kept.sum()) for kept in masks[0].values())
    }
    assert masks[0].kept == pytest.approx(0.2 * ALL, abs=1.5)  # rounded in every layer
    assert not moving.mask.nested_in(masks[0])


def test_granet_regrows_on_the_way_down() -> None:
    _, masks, _ = watched(GRANET)
    _, plain, _ = watched(replace(GRANET, regrow=None))
    assert [mask.kept for mask in masks] == [mask.kept for mask in plain]
    assert masks[-1].kept == round(0.1 * ALL)
    changes = [a != b for a, b in pairwise(masks)]
    # From step 3 on: everything is kept before. At last the share that goes is less than a weight.
    assert changes == [False, *[True] * 5, False, False]
    assert sum(not b.nested_in(a) for a, b in pairwise(masks)) > 2


def test_rounds_may_regrow_too() -> None:
    recipe = Recipe("r", schedule=Schedule(0.2, 3), rewind=NONE, regrow=Regrow(every="2it"))
    found = [checkpoint.mask for checkpoint in run(recipe)]
    assert [mask.kept for mask in found if mask is not None] == [round(d * ALL) for d in recipe.schedule.densities()]
    fixed = [checkpoint.mask for checkpoint in run(replace(recipe, regrow=None))]
    assert all(a != b for a, b in zip(found, fixed, strict=True))


# Interrupted


class PowerCutError(Exception):
    """Stands in for a power cut."""


@pytest.mark.parametrize(
    "recipe", [Recipe("snip", Snip(), schedule=CUBIC, rewind=NONE), RIGL, SET, GRANET], ids=lambda recipe: recipe.name
)
@pytest.mark.parametrize("at", [5, 7])
def test_killed_and_resumed_gives_the_same_bits(tmp_path: Path, recipe: Recipe, at: int) -> None:
    states, _, whole = watched(recipe)

    def kill(entry: dict[str, Any]) -> None:
        if entry["step"] >= at:
            raise PowerCutError

    with pytest.raises(PowerCutError):
        watched(recipe, state=tmp_path / "state", on_epoch=kill)
    again, _, parts = watched(recipe, state=tmp_path / "state")
    assert parts.mask == whole.mask
    assert 0 < len(again) < len(states) or at == 7
    assert same(ends(recipe, tmp_path / "state"), ends(recipe, None))


def ends(recipe: Recipe, state_file: Path | None) -> dict[str, Tensor]:
    """Weights at the end of a training that goes on from the stored state, where there is one."""
    net = begin(recipe)
    mask = first_mask(net, recipe)
    if not recipe.schedule.gradual:
        mask = cut(net, mask, recipe.criterion, keep=recipe.schedule.density, scope=recipe.scope)
    moving = MovingMask(mask, recipe, SPLIT, TRAINING, seed=0, number=1)
    fit(net, SPLIT, TRAINING, seed=0, mask=moving, order=1, state=state_file, device="cpu")
    return state(net)


# Refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schedule": CUBIC, "granularity": granularity("n:m")}, "in one cut: write schedule"),
        ({"schedule": CUBIC, "scope": Sensitivity()}, "write erk or a table"),
        ({"schedule": CUBIC, "target": "latency", "granularity": granularity("channel")}, "write target: flops, or"),
        ({"regrow": Regrow(), "granularity": granularity("filter")}, "regrow exchanges single weights.*'filter'"),
        ({"schedule": replace(CUBIC, end="50%"), "rewind": Rewind("late", "60%")}, "from 60% to 50%"),
        ({"schedule": Schedule(kind="cubic"), "rewind": Rewind("lr", "3ep"), "training": replace(TRAINING, epochs=4)},
         "from 3ep to 75% there is no step"),
        ({"regrow": Regrow(until="1ep"), "rewind": Rewind("late", "2ep"), "training": TRAINING}, "from 2ep to 1ep"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(PrunescopeError, match=message):
        Recipe("r", **options).require_fits(TRAINING)


def test_a_schedule_s_places_are_checked() -> None:
    with pytest.raises(PrunescopeError, match="go with kind: cubic; a geometric schedule has none"):
        Schedule(every="2%")
    with pytest.raises(PrunescopeError, match="write kind: one-shot, not cubic"):
        Schedule(kind="cubic", when="before-training")
    with pytest.raises(PrunescopeError, match="from 50% to 40%"):
        Schedule(kind="cubic", begin="50%", end="40%")
    with pytest.raises(PrunescopeError, match="every 9 steps, there is none"):
        watched(Recipe("r", schedule=Schedule(kind="cubic", every="3ep"), rewind=NONE))
