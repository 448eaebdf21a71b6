"""Masks that change while a network trains: exact zeros, no memory of what was pruned, the same bits after a kill."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_train import PLAIN, PowerCutError, data, network, random_mask, same

from prunescope.core.errors import PrunescopeError, PrunescopeWarning
from prunescope.core.mask import Mask
from prunescope.engine.masking import StepState
from prunescope.engine.train import fit


class Rotating:
    """Every third step the mask moves on by one place, so that in every tensor weights go and others come back."""

    def __init__(self, every: int = 3) -> None:
        self.mask, self.every, self.identity = random_mask(network(), 0, 0.5), every, f"rotating {every}"

    def update(self, state: StepState) -> bool:
        if state.step % self.every:
            return False
        assert all(parameter.grad is not None for parameter in state.model.parameters())
        self.mask = Mask({name: kept.flatten().roll(1).view_as(kept) for name, kept in self.mask.items()})
        return True


OPTIMIZERS = pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])


@OPTIMIZERS
def test_what_is_pruned_is_zero_and_what_comes_back_begins_anew(optimizer: Any) -> None:
    moving, seen = Rotating(), 0
    masks = [moving.mask]

    def look(state: StepState) -> None:
        nonlocal seen
        seen += 1
        weights = dict(state.model.named_parameters())
        masks.append(moving.mask)
        for name, kept in moving.mask.items():
            pruned, back = weights[name][~kept], kept & ~masks[-2][name]
            assert not pruned.any()
            assert not torch.signbit(pruned).any()
            assert not weights[name][back].any()
            assert bool(back.any()) == (state.step % 3 == 0)
            for value in state.optimizer.state[weights[name]].values():
                if value.shape == kept.shape:
                    assert not value[back].any()
                    assert value[kept & ~back].any()  # what stays is remembered

    training = replace(PLAIN, optimizer=optimizer, lr=0.01)
    fit(network(), data(), training, seed=0, mask=moving, on_step=[look], device="cpu")
    assert seen == 15


def test_without_forgetting_momentum_would_come_back_with_a_weight() -> None:
    """So that the test above can fail: gradients of pruned weights do go into the momentum."""
    mask, found = random_mask(network(), 0, 0.5), list[bool]()

    def look(state: StepState) -> None:
        weight = dict(state.model.named_parameters())["6.weight"]
        found.append(bool(state.optimizer.state[weight]["momentum_buffer"][~mask["6.weight"]].any()))

    fit(network(), data(), PLAIN, seed=0, mask=mask, on_step=[look], device="cpu")
    assert all(found)


def test_a_mask_that_never_changes_is_a_fixed_mask() -> None:
    fixed, moving = network(), network()
    fit(fixed, data(), PLAIN, seed=0, mask=Rotating().mask, device="cpu")
    fit(moving, data(), PLAIN, seed=0, mask=Rotating(every=1000), device="cpu")
    assert same(fixed, moving)


@OPTIMIZERS
@pytest.mark.parametrize("at", [3, 6, 8, 15])
def test_killed_and_resumed_gives_the_same_bits(tmp_path: Path, at: int, optimizer: Any) -> None:
    training, state = replace(PLAIN, optimizer=optimizer, lr=0.01), tmp_path / "state"
    expected, whole = network(dropout=0.3), Rotating()
    fit(expected, data(), training, seed=0, mask=whole, device="cpu")

    def kill(step: StepState) -> None:
        if step.step == at:
            raise PowerCutError

    with pytest.raises(PowerCutError):
        fit(
            network(dropout=0.3), data(), training, seed=0, mask=Rotating(), state=state, on_step=[kill],
            device="cpu",
        )  # fmt: skip
    found, parts = network(dropout=0.3), Rotating()
    fit(found, data(), training, seed=0, mask=parts, state=state, device="cpu")
    assert same(found, expected)
    assert parts.mask == whole.mask


def test_a_state_belongs_to_its_sparsifier(tmp_path: Path) -> None:
    state = tmp_path / "state"
    fit(network(), data(), PLAIN, seed=0, mask=Rotating(), state=state, device="cpu")
    stored = state.read_bytes()
    for other in ({"mask": Rotating(every=4)}, {"mask": Rotating().mask}):
        state.write_bytes(stored)
        with pytest.warns(PrunescopeWarning, match="belongs to another training"):
            fit(network(), data(), PLAIN, seed=0, state=state, device="cpu", **other)  # type: ignore[arg-type]


def test_a_mask_over_other_parameters_is_refused() -> None:
    class Careless(Rotating):
        def update(self, state: StepState) -> bool:
            self.mask = Mask({"0.weight": self.mask["0.weight"]})
            return True

    with pytest.raises(PrunescopeError, match="the same parameters before and after"):
        fit(network(), data(), PLAIN, seed=0, mask=Careless(), device="cpu")
