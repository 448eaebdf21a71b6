"""Floating-point operations of a forward pass, counted while it runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from prunescope.engine.untouched import untouched


@dataclass(frozen=True)
class Flops:
    """Operations of one pass: a multiplication and an addition are two.

    Attributes:
        total: of convolutions, matrix products and attention, as dense hardware does them; norms, activations and
            pooling (a per cent or so) are left out, and padding counts as work.
        nonzero: of these, the ones whose weight is not zero. Theory: no dense kernel leaves the others out.
    """

    total: int
    nonzero: int


def count_flops(model: nn.Module, x: Tensor) -> Flops:
    """FLOPs of `model(x)` in eval mode, by torch's own formulas (`torch.utils.flop_counter`). The model is unchanged.

    >>> layer = nn.Linear(3, 2)
    >>> count_flops(layer, torch.zeros(5, 3)).total  # 5 images x 3 x 2 weights x 2
    60
    """
    with untouched(model), torch.no_grad(), _plain_attention(), _Counter(model) as counter:
        model(x)
    return Flops(counter.total, round(counter.nonzero))


class _Counter(TorchDispatchMode):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.total, self.nonzero = 0, 0.0
        self._weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()} - {0}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            count = int(formula(*args, **(kwargs or {}), out_val=out))
            self.total += count
            self.nonzero += count * min([1.0, *map(_share, filter(self._is_weight, args))])
        return out

    def _is_weight(self, value: object) -> bool:
        """A parameter or a view of one, such as a linear layer's transposed; biases multiply nothing."""
        return isinstance(value, Tensor) and value.ndim > 1 and value.untyped_storage().data_ptr() in self._weights


def _share(weight: Tensor) -> float:
    return int(torch.count_nonzero(weight)) / max(1, weight.numel())


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Attention as matrix products: of its fused kernels, torch counts some and some not."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
