"""Peak memory of a forward pass: weights, input and every activation that is alive at once."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from prunescope.core.errors import PrunescopeError
from prunescope.engine.untouched import untouched


def peak_memory(model: nn.Module, x: Tensor) -> int:
    """Bytes of all tensors alive at the worst moment of `model(x)`: in eval mode, without gradients.

    Counted by following each tensor's memory from the operation that made it to where it is freed, so the number is
    the same on every device and at every repetition. What a kernel allocates within itself (workspaces, reordered
    weights) is not seen. The model is unchanged.

    >>> peak_memory(nn.ReLU(), torch.zeros(4, 10))  # input and output
    320
    """
    with untouched(model), torch.no_grad(), _Follower() as follower:
        for tensor in (*model.parameters(), *model.buffers(), x):
            follower.follow(tensor)
        model(x)
    return follower.peak


def peak_allocated(model: nn.Module, x: Tensor) -> int:
    """Bytes that CUDA's allocator had handed out at the worst moment of `model(x)`, workspaces of kernels included.

    Whatever else the process keeps on the device counts too. The model is unchanged.

    Raises:
        PrunescopeError: the images are not on a CUDA device.
    """
    if not x.is_cuda:
        raise PrunescopeError(f"only CUDA tells what it allocated; the images are on {x.device}: use peak_memory")
    with untouched(model), torch.no_grad():
        model(x)  # the first pass also chooses kernels
        torch.cuda.reset_peak_memory_stats(x.device)
        model(x)
        torch.cuda.synchronize(x.device)
    return torch.cuda.max_memory_allocated(x.device)


class _Follower(TorchDispatchMode):
    """Knows the memory behind every tensor it has seen, until that memory is freed."""

    def __init__(self) -> None:
        super().__init__()
        self.alive = self.peak = 0
        self._known: dict[int, weakref.finalize[..., Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for value in tree_leaves(out):
            if isinstance(value, Tensor):
                self.follow(value)
        return out

    def follow(self, tensor: Tensor) -> None:
        """Count the memory behind a tensor once, however many tensors share it."""
        storage = tensor.untyped_storage()
        if storage._cdata in self._known:
            return
        self._known[storage._cdata] = weakref.finalize(storage, self._freed, storage._cdata, storage.nbytes())
        self.alive += storage.nbytes()
        self.peak = max(self.peak, self.alive)

    def _freed(self, key: int, size: int) -> None:
        del self._known[key]
        self.alive -= size

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        for finalizer in self._known.values():
            finalizer.detach()  # weights live on
        self._known.clear()
