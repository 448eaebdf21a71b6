"""A network run on booleans: what is alive (1) and what is dead (0), forwards and backwards."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from prunescope.core.mask import Mask
from prunescope.models.live_rules import (
    ASIDE,
    ATTRIBUTES,
    CONTRACTION,
    IN_PLACE,
    SAME,
    SPECIAL,
    STRUCTURE,
    WEIGHTED,
    alive,
    constant,
    flat,
    is_signal,
    refusal,
    silent,
)


class Liveness(TorchFunctionMode):
    """While active, every torch function works on liveness: 0/1 tensors of float64 on the CPU.

    Weights are replaced by their mask (or by ones), sums and pools become "any of", and each result is put back to
    0/1, also its gradient on the way back, so nothing overflows and no sum cancels. After a backward pass from the
    outputs, `reached` says which weights lie on a live path. Only a tensor that depends on the image is a signal;
    everything else is a constant, and constants carry none.
    """

    def __init__(self, model: nn.Module, mask: Mask) -> None:
        super().__init__()
        self.names = {id(parameter): name for name, parameter in model.named_parameters()}
        self.known = {*self.names, *map(id, model.buffers())}
        self.leaves = {name: kept.double().requires_grad_() for name, kept in mask.items()}

    def reached(self, name: str) -> Tensor:
        """After the backward pass: the elements of a parameter between something alive and a live output."""
        grad = self.leaves[name].grad
        return torch.zeros(self.leaves[name].shape, dtype=torch.bool) if grad is None else grad != 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", str(func))
        if name == "__get__" and func.__self__.__name__ in ATTRIBUTES:  # of a tensor: x.T
            name = ATTRIBUTES[func.__self__.__name__]
        signal = any(is_signal(value) for value in flat((args, tuple(kwargs.values()))))
        if name in ASIDE or not signal:
            return constant(func(*args, **kwargs))
        # Private copies: what autograd keeps for the way back must survive a later operation in place.
        result = alive(self._apply(name, func, alive(args), alive(kwargs)))
        return args[0].copy_(result) if name in IN_PLACE and is_signal(args[0]) else result

    def _apply(self, name: str, func: Any, args: Any, kwargs: Any) -> Any:
        if name in WEIGHTED:
            return WEIGHTED[name](self, func, *args, **kwargs)
        if name in SAME:
            return args[0] if args else kwargs["input"]
        if name in SPECIAL:
            return SPECIAL[name](*args, **kwargs)
        if name in STRUCTURE:
            return func(*silent(args), **kwargs)
        if name in CONTRACTION:
            return func(*self._factors(args), **kwargs)
        raise refusal(repr(name))

    def leaf(self, weight: Tensor) -> Tensor:
        """The liveness of a parameter or buffer: its mask, or ones."""
        if id(weight) not in self.known:
            raise refusal("a layer whose weights are computed")
        name = self.names.get(id(weight), "")
        return self.leaves[name] if name in self.leaves else torch.ones(weight.shape, dtype=torch.float64)

    def covered(self, parameter: Tensor | None) -> Tensor | None:
        """The mask of a parameter, None when the mask does not cover it."""
        return None if parameter is None else self.leaves.get(self.names.get(id(parameter), ""))

    def _factors(self, args: Any) -> Any:
        if isinstance(args, (list, tuple)):
            return type(args)(self._factors(item) for item in args)
        return self.leaf(args) if isinstance(args, Tensor) and not is_signal(args) else args
