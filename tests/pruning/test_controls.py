"""Controls: the ticket's counts at random places, its mask on other weights, and nothing cut at all."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import hypergeom
from tiny_nets import PRUNABLE, noise, same, state, tiny_net
from torch import nn

from prunescope.core.mask import Mask
from prunescope.engine.train import fit
from prunescope.engine.training import Training
from prunescope.pruning.controls import shuffled, uncut
from prunescope.pruning.criteria.magnitude import Magnitude
from prunescope.pruning.recipe import Recipe
from prunescope.pruning.schedule import Rewind
from prunescope.pruning.scoring import cut
from prunescope.pruning.turn import retrain


def ticket(seed: int = 0, keep: float = 0.2) -> Mask:
    net = tiny_net(seed)
    return cut(net, Mask.dense(net, PRUNABLE), Magnitude(), keep=keep)


@given(st.integers(0, 50), st.floats(0, 1), st.integers(0, 10**9))
@settings(max_examples=40, deadline=None)
def test_a_random_mask_has_the_tickets_count_in_every_tensor(net: int, keep: float, seed: int) -> None:
    mask = ticket(net, keep)
    control = shuffled(nn.Module(), mask, seed)
    assert list(control) == list(mask)
    assert {n: int(kept.sum()) for n, kept in control.items()} == {n: int(kept.sum()) for n, kept in mask.items()}
    assert {n: kept.shape for n, kept in control.items()} == {n: kept.shape for n, kept in mask.items()}
    assert control == shuffled(nn.Module(), mask, seed)


def test_a_random_mask_overlaps_the_ticket_as_chance_would() -> None:
    mask = ticket()
    overlap = [(shuffled(nn.Module(), mask, seed) & mask).kept for seed in range(40)]
    laws = [hypergeom(kept.numel(), int(kept.sum()), int(kept.sum())) for kept in mask.values()]
    mean, deviation = sum(law.mean() for law in laws), sum(law.var() for law in laws) ** 0.5
    assert abs(sum(overlap) / 40 - mean) < 4 * deviation / 40**0.5
    assert len(set(overlap)) > 3  # seeds differ


def test_every_place_is_equally_likely() -> None:
    mask = Mask({"w": torch.arange(10) < 3})
    counts = sum(shuffled(nn.Module(), mask, seed)["w"].int() for seed in range(1000))
    assert isinstance(counts, torch.Tensor)
    # Binomial(1000, 0.3): standard deviation 14.5.
    assert float((counts - 300).abs().max()) < 5 * 14.5


def test_uncut_keeps_everything() -> None:
    mask = uncut(ticket())
    assert mask.kept == mask.total == ticket().total
    assert list(mask) == PRUNABLE


TRAINING = Training(epochs=2, batch_size=16, lr=0.05, precision="32")
RECIPE = Recipe("late", rewind=Rewind("late", "2it"))


@pytest.mark.parametrize("kind", ["random", "dense"])
def test_random_and_dense_controls_start_where_the_ticket_does(kind: str) -> None:
    split, net, late = noise(), tiny_net(3), tiny_net()
    fit(late, split, TRAINING, seed=0, stop=2, device="cpu")
    mask = shuffled(nn.Module(), ticket(), 1) if kind == "random" else uncut(ticket())
    retrain(net, mask, RECIPE, split, TRAINING, rewind_weights=state(late), order=1, seed=0, stop=2, device="cpu")
    mask.apply_(late)
    assert same(state(net), state(late))
    history = retrain(net, mask, RECIPE, split, TRAINING, rewind_weights=None, order=1, seed=0, device="cpu")
    assert [entry["step"] for entry in history] == [3, 6]
    assert Mask.of_zeros(net, PRUNABLE) == mask


def test_the_reinit_control_trains_the_tickets_mask_on_other_weights_from_the_beginning() -> None:
    split, net, fresh, mask = noise(), tiny_net(), tiny_net(7), ticket()
    seen: list[int] = []
    retrain(
        net, mask, RECIPE, split, TRAINING, rewind_weights=state(fresh), start=0, order=1, seed=0,
        on_step=[lambda step: seen.append(step.step)], device="cpu",
    )  # fmt: skip
    expected = fresh
    fit(expected, split, TRAINING, seed=0, mask=mask, order=1, device="cpu")
    assert seen == [1, 2, 3, 4, 5, 6]
    assert same(state(net), state(expected))
    assert Mask.of_zeros(net, PRUNABLE) == mask
