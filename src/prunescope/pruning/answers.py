"""What filters answer: a layer's output after its norm, a sum and its activation function, as the network runs.

That is where APoZ, mean activations and CHIP are defined: at the ReLU. A layer without an activation function (the
head, a linear bottleneck, a layer before a concatenation) answers with what the next operation reads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from prunescope.core.errors import PrunescopeError
from prunescope.core.mask import Mask
from prunescope.models.live_rules import ASIDE, ATTRIBUTES, SUM, flat, words
from prunescope.pruning.gradients import Data

ACTIVATIONS = words(
    """relu relu_ relu6 leaky_relu leaky_relu_ prelu rrelu elu elu_ selu celu gelu silu mish hardswish hardtanh
    hardtanh_ softplus softsign sigmoid sigmoid_ tanh tanh_ hardsigmoid threshold clamp clamp_ clamp_min"""
)
NORMS = words("batch_norm instance_norm group_norm layer_norm")
SUMS = SUM | words("__iadd__ __isub__")
#: What may lie between a layer and its activation function. Maxima over places: ReLU(max) = max(ReLU).
BETWEEN = SUMS | NORMS | words(
    """dropout dropout2d max_pool1d max_pool2d max_pool3d adaptive_max_pool2d contiguous clone to
    float double half bfloat16"""
)  # fmt: skip
LAYERS = words("conv1d conv2d conv3d linear")


def mean_answers(model: nn.Module, mask: Mask, data: Data, of: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """{weight: mean over images, and over calls of a layer that runs more than once, of a number per filter}.

    Args:
        of: answers (B, filters, places) to numbers (B, filters); places is 1 behind a linear layer on vectors.

    Raises:
        PrunescopeError: a parameter of `mask` is no weight of a convolution or linear layer that runs.
    """
    total: dict[str, Tensor] = {}
    seen = dict.fromkeys(mask, 0)

    def count(name: str, answer: Tensor) -> None:
        numbers = of(answer)
        total[name] = total.get(name, torch.zeros(())).to(numbers) + numbers.sum(0)
        seen[name] += len(numbers)

    for x, _ in data:
        follower = Follower(model, mask, count)
        follower.run(model, x)
        follower.require_all()
    return {name: total[name] / seen[name] for name in mask}


class Follower(TorchFunctionMode):
    """While active, follows what the layers of a mask make until it is their answer.

    Attributes:
        scales: {weight: scale of the norm that reads the layer's own output}, of layers that have one.
    """

    def __init__(self, model: nn.Module, mask: Mask, answered: Callable[[str, Tensor], None]) -> None:
        super().__init__()
        self.parameters = {id(parameter): name for name, parameter in model.named_parameters()}
        self.mask, self.answered = mask, answered
        self.heard: set[str] = set()
        self.scales: dict[str, Tensor] = {}

    @torch.no_grad()
    def run(self, model: nn.Module, x: Tensor) -> None:
        """One batch through the network."""
        with self:
            output = model(x)
        for value in flat(list(output.values()) if isinstance(output, dict) else output):
            self._close(_calls(value), value)

    def require_all(self) -> None:
        """Refuse a mask of which something did not answer."""
        missing = [name for name in self.mask if name not in self.heard]
        if missing:
            raise PrunescopeError(
                f"the criterion scores weights of convolutions and linear layers by what they answer, and "
                f"{', '.join(missing[:3])} does not run as one; add it to `ignore`"
            )

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name == "__get__":
            name = ATTRIBUTES.get(func.__self__.__name__, name)
        if name in ASIDE:
            return func(*args, **kwargs)
        inputs = flat((args, tuple(kwargs.values())))
        calls = [call for value in inputs for call in _calls(value)]
        if name in BETWEEN:
            for call in calls:
                self._note(name, call, inputs)
            return _tagged(func(*args, **kwargs), calls)
        if name not in ACTIVATIONS:  # whatever it is, it reads the layer's answer
            for value in inputs:
                self._close(_calls(value), value)
        result = func(*args, **kwargs)
        if name in ACTIVATIONS:
            self._close(calls, result)
        return _tagged(result, self._begun(name, inputs)) if name in LAYERS else result

    def _begun(self, function: str, inputs: list[Any]) -> list[_Call]:
        """The call of a layer: its weight is the second argument."""
        name = self.parameters.get(id(inputs[1]), "")
        return [_Call(name, -1 if function == "linear" else 1)] if name in self.mask else []

    def _note(self, function: str, call: _Call, inputs: list[Any]) -> None:
        """The scale of a norm, which is its first parameter. Behind a sum it would be that of others as well."""
        x, axis = inputs[0], -1 if function == "layer_norm" else 1
        scale = next((value for value in inputs if id(value) in self.parameters), None)
        call.alone &= function not in SUMS
        if function in NORMS and call.alone and scale is not None and (axis - call.axis) % x.ndim == 0:
            self.scales.setdefault(call.name, scale.detach())

    def _close(self, calls: list[_Call], value: Tensor) -> None:
        for call in calls:
            if call.open:
                call.open = False
                self.heard.add(call.name)
                answer = value.detach().movedim(call.axis, 1)
                self.answered(call.name, answer.flatten(2) if answer.ndim > 2 else answer[..., None])


class _Call:
    """One call of a layer."""

    def __init__(self, name: str, axis: int) -> None:
        self.name, self.axis, self.open, self.alone = name, axis, True, True


def _calls(value: object) -> list[_Call]:
    """Of layers whose answer this tensor is to become."""
    return getattr(value, "_calls", []) if isinstance(value, Tensor) else []


def _tagged(result: Any, calls: list[_Call]) -> Any:
    if isinstance(result, Tensor):
        result._calls = [call for call in calls if call.open]  # type: ignore[attr-defined]
    return result
