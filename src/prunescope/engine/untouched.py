"""A context in which a network can be looked at and is the same afterwards, also when the looking failed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


@contextmanager
def fixed_rng() -> Iterator[None]:
    """Restore the global random state of Python, numpy and torch (CPU and CUDA) on leaving."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 (the global state is the point)
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002


@contextmanager
def untouched(model: nn.Module) -> Iterator[nn.Module]:
    """Eval mode and frozen weights inside; weights, buffers, modes, requires_grad, grads, hooks and RNG restored after.

    Criteria and probes run in here, so that a careless one (train mode left on, a hook not removed, BatchNorm
    statistics updated) cannot change what is measured after it.
    """
    modules = list(model.modules())
    modes = [module.training for module in modules]
    hooks = [{name: getattr(module, name).copy() for name in _HOOKS} for module in modules]
    tensors = [*model.parameters(), *model.buffers()]
    values = [tensor.detach().clone() for tensor in tensors]
    flags = [(parameter, parameter.requires_grad, parameter.grad) for parameter in model.parameters()]
    with fixed_rng():
        try:
            model.eval()
            for parameter, _, _ in flags:
                parameter.requires_grad_(False)
            yield model
        finally:
            for module, mode, kept in zip(modules, modes, hooks, strict=True):
                module.training = mode
                for name, before in kept.items():
                    now = getattr(module, name)
                    for key in set(now) - set(before):
                        del now[key]
            with torch.no_grad():
                for tensor, value in zip(tensors, values, strict=True):
                    if not torch.equal(tensor, value):
                        tensor.copy_(value)
            for parameter, flag, grad in flags:
                parameter.requires_grad_(flag)
                parameter.grad = grad
