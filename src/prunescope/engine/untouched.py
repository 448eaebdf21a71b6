"""A context in which a network can be looked at and is the same afterwards, also when the looking failed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy

import numpy as np
import torch
from torch import Tensor, nn

#: Dictionaries of a module that are put back as they were: what it consists of, and what listens to it.
_TABLES = (
    "_parameters", "_buffers", "_modules", "_backward_hooks", "_backward_pre_hooks",
    "_forward_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called",
    "_forward_pre_hooks", "_forward_pre_hooks_with_kwargs",
)  # fmt: skip
_FLAGS = ("training", "_is_full_backward_hook", "_non_persistent_buffers_set")


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
    """Eval mode and frozen weights inside; everything a look could change is restored after, also when it failed.

    That is: submodules, parameters and buffers (the objects, and their values, types and devices), modes,
    requires_grad, gradients, hooks, the global random state and whether gradients are recorded.

    Criteria and probes run in here, so that a careless one (train mode left on, a hook not removed, BatchNorm
    statistics updated) cannot change what is measured after it. The price is a copy of the weights.
    """
    modules = [_Module(module) for module in model.modules()]
    tensors = [_Values(tensor) for tensor in (*model.parameters(), *model.buffers())]
    with fixed_rng(), torch.set_grad_enabled(torch.is_grad_enabled()):
        try:
            model.eval()
            for parameter in model.parameters():
                parameter.requires_grad_(False)
                parameter.grad = None  # a backward pass in here would add to the caller's, in place
            yield model
        finally:
            for module in modules:
                module.restore()
            for tensor in tensors:
                tensor.restore()


class _Module:
    """What one module is made of."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        tables = {name: module.__dict__.get(name) for name in _TABLES}
        self.tables = {name: table.copy() for name, table in tables.items() if isinstance(table, dict)}
        self.flags = {name: copy(getattr(module, name)) for name in _FLAGS}

    def restore(self) -> None:
        for name, before in self.tables.items():
            table = self.module.__dict__[name]  # the same dictionary: handles of hooks refer to it
            table.clear()
            table.update(before)
        self.module.__dict__.update(self.flags)


class _Values:
    """What one parameter or buffer holds."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor, self.value = tensor, tensor.detach().clone()
        self.requires_grad, self.grad = tensor.requires_grad, tensor.grad

    @torch.no_grad()
    def restore(self) -> None:
        tensor, value = self.tensor, self.value
        tensor.grad = None
        if (tensor.dtype, tensor.device, tensor.shape) != (value.dtype, value.device, value.shape):
            tensor.data = value
        elif not torch.equal(tensor, value):
            tensor.copy_(value)
        tensor.requires_grad_(self.requires_grad)
        tensor.grad = self.grad
