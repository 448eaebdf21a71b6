"""Networks that come pruned: what is recognised, and that it stays through every cut and step."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from tiny_nets import PRUNABLE, Tiny, noise, state, tiny_net

from prunescope.core.errors import PrunescopeError
from prunescope.core.mask import Mask
from prunescope.engine.train import StepState, fit
from prunescope.engine.training import Training
from prunescope.models.checkpoint import Checkpoint
from prunescope.pruning.granularity import granularity
from prunescope.pruning.loop import rounds
from prunescope.pruning.recipe import Recipe
from prunescope.pruning.regrow import Regrow
from prunescope.pruning.schedule import Rewind, Schedule
from prunescope.pruning.scoring import criterion
from prunescope.pruning.zeros import own_zeros

SPLIT = noise(48)
TRAINING = Training(epochs=2, batch_size=16, lr=0.1, weight_decay=0.01, precision="32")
NONE = Rewind("none")


def pruned_net(density: float = 0.5) -> tuple[Tiny, Mask]:
    """A trained network of which half of all weights but the head's was cut at random, and the mask."""
    net = tiny_net()
    fit(net, SPLIT, TRAINING, seed=0, device="cpu")
    generator = torch.Generator().manual_seed(0)
    shapes = {name: dict(net.named_parameters())[name].shape for name in PRUNABLE[:2]}
    mask = Mask({name: torch.rand(shape, generator=generator) < density for name, shape in shapes.items()})
    mask.apply_(net)
    return net, mask


def run(recipe: Recipe, **options: Any) -> tuple[list[Checkpoint], Mask]:
    net, mask = pruned_net()
    options = {"zeros": own_zeros(net), **options}
    return list(rounds(net, recipe, SPLIT, TRAINING, seed=0, device="cpu", **options)), mask


def test_zeros_are_recognised_where_there_are_more_than_chance_gives() -> None:
    net, mask = pruned_net()
    net.head.weight.data[0, 0] = 0  # one of fifteen: more than 1 %
    assert set(own_zeros(net)) == set(PRUNABLE)
    assert all(torch.equal(own_zeros(net)[name], mask[name]) for name in mask)
    assert not own_zeros(net, "free")
    with pytest.raises(PrunescopeError, match="did you mean 'keep'"):
        own_zeros(net, "keeep")  # type: ignore[arg-type]


def test_a_few_zeros_or_nothing_but_zeros_are_not_taken_for_pruning_unless_asked() -> None:
    net = torch.nn.Sequential(torch.nn.Linear(20, 20), torch.nn.Linear(20, 2))
    with torch.no_grad():
        net[0].weight.flatten()[:4] = 0  # exactly 1 %
        net[1].weight.zero_()  # a head that has not been trained
    assert not own_zeros(net)
    assert own_zeros(net, "keep").densities == pytest.approx({"0.weight": 0.99, "1.weight": 0.0})


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe("global", schedule=Schedule(0.1, 2), rewind=NONE),
        Recipe("linear", schedule=Schedule(0.1, 2, "linear"), rewind=NONE),
        Recipe("layer", scope="layer", schedule=Schedule(0.4, 2), rewind=NONE),
        Recipe("init", schedule=Schedule(0.1, 2), rewind=Rewind("init")),
        Recipe("cubic", schedule=Schedule(0.1, kind="cubic", every="1it"), rewind=NONE),
        Recipe("before", criterion("snip"), schedule=Schedule(0.1, kind="one-shot", when="before-training"),
               rewind=Rewind("init")),
        Recipe("filters", granularity=granularity("filter"), schedule=Schedule(0.5, 2), rewind=NONE),
        Recipe("channels", granularity=granularity("channel"), schedule=Schedule(0.6, kind="one-shot"), rewind=NONE),
        Recipe("flops", granularity=granularity("channel"), target="flops",
               schedule=Schedule(0.3, kind="one-shot"), rewind=NONE),
        Recipe("each", schedule=Schedule(kind="one-shot", each=(0.4, 0.2)), rewind=NONE),
        Recipe("n:m", granularity=granularity("n:m", n=1, m=2), schedule=Schedule(0.5, kind="one-shot"), rewind=NONE,
               ignore=("conv1", "head")),
        Recipe("spared", schedule=Schedule(0.3, 2), rewind=NONE, ignore=("conv1",)),
        Recipe("only trained", schedule=Schedule(1.0), rewind=NONE),
    ],
    ids=lambda recipe: recipe.name,
)  # fmt: skip
def test_zeros_stay_through_every_cut_and_every_step(recipe: Recipe) -> None:
    alive: list[int] = []

    def look(step: StepState) -> None:
        weights = dict(step.model.named_parameters())
        alive.append(sum(int(weights[name][~kept].count_nonzero()) for name, kept in zeros.items()))

    _, zeros = pruned_net()
    other = state(tiny_net(seed=1)) if not recipe.rewind.keeps_weights else None
    found, zeros = run(recipe, on_step=[look], rewind_weights=other)
    assert alive
    assert not any(alive)
    for checkpoint in found:
        assert not any(checkpoint.weights[name][~kept].any() for name, kept in zeros.items())
        assert checkpoint.mask is not None
        assert not any((checkpoint.mask[n] & ~zeros[n]).any() for n in zeros if n in checkpoint.mask)
    masks = [checkpoint.mask for checkpoint in found if checkpoint.mask is not None]
    if not recipe.schedule.independent:
        assert all(b.nested_in(a) for a, b in pairwise(masks))
    if recipe.scope == "global" and recipe.target == "units" and type(recipe.granularity).name == "weight":
        assert masks[-1].kept == min(round(recipe.schedule.density * masks[-1].total), masks[0].kept)


def test_without_the_mask_training_would_fill_the_zeros() -> None:
    recipe = Recipe("r", schedule=Schedule(1.0), rewind=NONE)
    (free,), zeros = run(recipe, zeros=None)
    assert any(free.weights[name][~kept].any() for name, kept in zeros.items())  # so the test above can fail


@pytest.mark.parametrize("kind", ["geometric", "linear"])
def test_rounds_go_from_what_is_left(kind: Any) -> None:
    (first, last), zeros = run(Recipe("r", schedule=Schedule(0.1, 2, kind), rewind=NONE))
    assert first.mask is not None
    total = first.mask.total
    start = (zeros.kept + total - zeros.total) / total  # the head is whole
    middle = (start * 0.1) ** 0.5 if kind == "geometric" else (start + 0.1) / 2
    assert first.density == pytest.approx(middle, abs=1 / 297)
    assert last.density == pytest.approx(0.1, abs=1 / 297)


def test_what_does_not_go_with_zeros_is_refused() -> None:
    with pytest.raises(PrunescopeError, match=r"weights 5\d\.\d\d% are left, and 60.00% are asked for.*zeros: free"):
        run(Recipe("r", schedule=Schedule(0.6, kind="one-shot"), rewind=NONE))
    with pytest.raises(PrunescopeError, match=r"regrow would bring them back.*zeros: free"):
        run(Recipe("r", schedule=Schedule(0.2, kind="one-shot"), rewind=NONE, regrow=Regrow()))


def test_rounds_can_be_cuts_alone() -> None:
    net = tiny_net()
    before = state(net)
    found = list(
        rounds(net, Recipe("r", schedule=Schedule(0.25, 2)), SPLIT, TRAINING, seed=0, cut_only=True, device="cpu")
    )
    assert [checkpoint.density for checkpoint in found] == pytest.approx([0.5, 0.25], abs=1 / 297)
    for checkpoint in found:
        assert checkpoint.history == ()
        assert checkpoint.mask is not None
        for name, tensor in checkpoint.weights.items():
            kept = checkpoint.mask.get(name, torch.tensor(True))
            assert torch.equal(tensor, before[name].masked_fill(~kept, 0))
    for recipe in (
        Recipe("r", schedule=Schedule(0.1, kind="cubic"), rewind=NONE),
        Recipe("r", schedule=Schedule(0.1, kind="one-shot", when="before-training"), rewind=Rewind("init")),
        Recipe("r", schedule=Schedule(0.1, kind="one-shot"), rewind=NONE, regrow=Regrow()),
    ):
        with pytest.raises(PrunescopeError, match="cannot do without training"):
            next(rounds(tiny_net(), recipe, SPLIT, TRAINING, seed=0, cut_only=True))


@pytest.mark.parametrize("schedule", [Schedule(0.1, 3), Schedule(kind="one-shot", each=(0.5, 0.3, 0.1))], ids=str)
@pytest.mark.parametrize("to", ["none", "init"])
def test_going_on_after_some_rounds_gives_the_same_bits(schedule: Schedule, to: Any) -> None:
    recipe = Recipe("r", criterion("taylor"), schedule=schedule, rewind=Rewind(to))
    options: dict[str, Any] = {"rewind_weights": state(tiny_net(seed=1))}
    whole, _ = run(recipe, **options)
    for count in (1, 2, 3):
        rest, _ = run(replace(recipe), done=whole[:count], **options)
        assert [checkpoint.round for checkpoint in rest] == [1, 2, 3][count:]
        for a, b in zip(whole[count:], rest, strict=True):
            assert a.mask == b.mask
            assert all(torch.equal(a.weights[name], b.weights[name]) for name in a.weights)
