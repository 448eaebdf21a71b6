"""Everything about a network, and about the global random state, that looking at it must not change."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class Snapshot:
    """Weights, buffers, gradients, modes, requires_grad, hooks and random state as they are now.

    >>> network = nn.Linear(2, 2)
    >>> before = Snapshot(network)
    >>> _ = network.eval()
    >>> before.differences()
    ['mode of the network']
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self._facts = _facts(network)

    def differences(self) -> list[str]:
        """What is no longer as it was, in words; empty when nothing changed."""
        now = _facts(self.network)
        names = dict.fromkeys([*self._facts, *now])
        return [name for name in names if not _equal(self._facts.get(name), now.get(name))]


def prepare(network: nn.Module) -> nn.Module:
    """Give the network a state that careless code would lose: mixed modes, frozen weights, a gradient, a hook."""
    network.train()
    for number, (module, parameter) in enumerate(zip(network.children(), network.parameters(), strict=False)):
        module.train(number % 2 == 0)
        parameter.requires_grad_(number % 2 == 0)
        parameter.grad = torch.full_like(parameter, 0.5) if number == 0 else None
    next(network.children()).register_forward_hook(_look)
    return network


def _look(_module: nn.Module, _inputs: Any, _output: Any) -> None:
    """A hook of the user's."""


def _facts(network: nn.Module) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    for name, tensor in network.state_dict(keep_vars=True).items():
        facts[f"values of {name}"] = tensor.detach().clone()
        facts[f"requires_grad of {name}"] = tensor.requires_grad
        facts[f"gradient of {name}"] = None if tensor.grad is None else tensor.grad.clone()
    for name, module in network.named_modules():
        place = name or "the network"
        facts[f"mode of {place}"] = module.training
        facts[f"hooks of {place}"] = [list(getattr(module, hooks).items()) for hooks in _HOOKS]
    facts["random state of torch"] = torch.get_rng_state()
    facts["random state of numpy"] = np.random.get_state()  # noqa: NPY002 (the global state is the point)
    facts["random state of Python"] = random.getstate()
    return facts


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)
    if isinstance(a, tuple) and isinstance(b, tuple):  # numpy's random state is a tuple with an array in it
        return len(a) == len(b) and all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
    return type(a) is type(b) and bool(a == b)
