"""A context in which a network can be looked at and is the same afterwards, also when the looking failed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn


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

    That is: modules with their attributes (so modes, hooks, parametrisations), parameters and buffers (the objects,
    and their values, types and devices), requires_grad, gradients, the global random state, and whether gradients are
    recorded.

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
    """What one module is made of: its class and attributes, and what its tables (submodules, hooks ...) hold."""

    def __init__(self, module: nn.Module) -> None:
        self.module, self.kind = module, type(module)
        self.attributes = dict(module.__dict__)
        self.tables = [(item, item.copy()) for item in self.attributes.values() if isinstance(item, (dict, set))]

    def restore(self) -> None:
        if type(self.module) is not self.kind:  # a parametrisation makes a class of its own
            self.module.__class__ = self.kind
        self.module.__dict__.clear()
        self.module.__dict__.update(self.attributes)
        for table, before in self.tables:  # the same objects: handles of hooks refer to them
            table.clear()
            table.update(before)


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
