"""How each torch operation passes liveness (0/1 tensors) on, forwards and backwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prunescope.core.errors import PrunescopeError


def words(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


SAME = words(
    """relu relu_ relu6 leaky_relu leaky_relu_ prelu rrelu elu elu_ selu celu gelu silu mish hardswish hardtanh softplus
    softsign sigmoid sigmoid_ tanh tanh_ hardsigmoid logsigmoid log_softmax threshold clamp clamp_ clamp_min clamp_max
    abs neg square pow sqrt normalize local_response_norm dropout dropout1d dropout2d dropout3d alpha_dropout
    feature_alpha_dropout to float double half bfloat16 type type_as cpu cuda detach"""
)
STRUCTURE = words(
    """cat concat concatenate stack flatten view view_as reshape permute transpose t squeeze unsqueeze expand expand_as
    repeat mean sum avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d
    interpolate pad chunk split tensor_split narrow select index_select roll unfold unflatten movedim swapaxes
    pixel_shuffle pixel_unshuffle channel_shuffle unbind contiguous clone __getitem__"""
)
CONTRACTION = words("matmul bmm einsum __rmatmul__")
SUM = words("add sub add_ sub_ __rsub__ subtract rsub")
PRODUCT = words("mul div mul_ div_ multiply")
IN_PLACE = words("add_ sub_ mul_ div_")
ASIDE = words(
    """__get__ size dim ndimension numel is_floating_point is_complex is_contiguous stride get_device __len__ __hash__
    __bool__ __eq__ __ne__ item _assert data_ptr has_names is_nested new_zeros new_ones new_empty new_full new_tensor
    zeros_like ones_like full_like empty_like"""
)
#: Attributes of tensors that hold the signal, and the operation that each is like.
ATTRIBUTES = {"T": "t", "mT": "t", "H": "t", "mH": "t", "data": "detach"}


class Leaves(Protocol):
    """The liveness of a network's parameters."""

    def leaf(self, weight: Tensor) -> Tensor:
        """Of a parameter or buffer: its mask, or ones."""
        ...

    def covered(self, parameter: Tensor | None) -> Tensor | None:
        """The mask of a parameter, None when the mask does not cover it."""
        ...


class _Boolean(torch.autograd.Function):
    """0/1 forwards and backwards. Both are sums of terms that are not negative, so nonzero means "any of"."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return (x != 0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return (grad != 0).to(grad.dtype)


def alive(result: Any) -> Any:
    """Every signal in a result as a new 0/1 tensor."""
    if isinstance(result, (list, tuple)):
        return type(result)(alive(item) for item in result)
    if isinstance(result, dict):
        return {key: alive(item) for key, item in result.items()}
    return _Boolean.apply(result) if is_signal(result) else result


def constant(result: Any) -> Any:
    """What was computed without the image, so that it does not look like a signal: parameters require gradients."""
    if isinstance(result, (list, tuple)) and any(isinstance(item, Tensor) for item in result):
        return type(result)(constant(item) for item in result)
    return result.detach() if isinstance(result, Tensor) else result


def is_signal(value: object) -> bool:
    """Whether it depends on the image: constants are computed without gradient."""
    return isinstance(value, Tensor) and value.requires_grad and not isinstance(value, nn.Parameter)


def flat(values: Any) -> list[Any]:
    """The items of nested lists and tuples."""
    if isinstance(values, (list, tuple)):
        return [item for value in values for item in flat(value)]
    return [values]


def silent(args: Any) -> Any:
    """Tensors that are no signal, such as class tokens and embeddings, as zeros."""
    if isinstance(args, (list, tuple)):
        return type(args)(silent(item) for item in args)
    if isinstance(args, Tensor) and args.is_floating_point() and not is_signal(args):
        return torch.zeros(args.shape, dtype=torch.float64)
    return args


def refusal(what: str) -> PrunescopeError:
    """The error for a network that does something we have no rule for."""
    return PrunescopeError(
        f"effective density: cannot follow the signal through {what}; leave effective density out for this network"
    )


def _open(gate: Tensor) -> Tensor:
    """Ones, with the gradient of `gate`: what a gate lets through does not hang on the gate, but the gate is used."""
    return 1 + (gate - gate.detach())


def _constant(bias: Tensor) -> Tensor:
    """Zeros, with the gradient of `bias`: it adds no signal, but is used when its unit is."""
    return bias - bias.detach()


def _linear(leaves: Leaves, func: Any, input: Tensor, weight: Tensor, bias: Tensor | None = None,
            *args: Any, **kwargs: Any) -> Tensor:  # fmt: skip
    """Convolutions and linear layers."""
    out = func(input, leaves.leaf(weight), None, *args, **kwargs)
    own = leaves.covered(bias)
    if own is None:
        return out
    channel = -1 if func is F.linear else 1
    shape = [1] * out.dim()
    shape[channel] = -1
    return out + _constant(own).view(shape)


def _norm(leaves: Leaves, weight: Tensor | None, bias: Tensor | None, x: Tensor, channel: int) -> Tensor:
    shape = [1] * x.dim()
    shape[channel] = -1
    scale, shift = leaves.covered(weight), leaves.covered(bias)
    if scale is not None:
        x = x * scale.view(shape)
    return x if shift is None else x + _constant(shift).view(shape)


def _batch_norm(leaves: Leaves, func: Any, input: Tensor, mean: Any, var: Any, weight: Any = None, bias: Any = None,
                *args: Any, **kwargs: Any) -> Tensor:  # fmt: skip
    return _norm(leaves, weight, bias, input, 1)


def _group_norm(leaves: Leaves, func: Any, input: Tensor, groups: int, weight: Any = None, bias: Any = None,
                *args: Any, **kwargs: Any) -> Tensor:  # fmt: skip
    return _norm(leaves, weight, bias, input, 1)


def _layer_norm(leaves: Leaves, func: Any, input: Tensor, shape: Any, weight: Any = None, bias: Any = None,
                *args: Any, **kwargs: Any) -> Tensor:  # fmt: skip
    return _norm(leaves, weight, bias, input, -1)


def _add(first: Any, second: Any, **kwargs: Any) -> Tensor:
    """Signals join; a constant changes nothing but the shape."""
    if is_signal(first) and is_signal(second):
        return first + second
    signal, other = (first, second) if is_signal(first) else (second, first)
    return signal + torch.zeros(getattr(other, "shape", ()), dtype=torch.float64)


def _multiply(first: Any, second: Any, **kwargs: Any) -> Tensor:
    """The smaller of two signals gates the larger; of equal ones (gated linear units) either passes."""
    if not (is_signal(first) and is_signal(second)) or first.shape == second.shape:
        return _add(first, second)
    large, small = (first, second) if first.numel() >= second.numel() else (second, first)
    return large * _open(small)


def _softmax(input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return _open(input)


def _attention(query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return _open(query @ key.transpose(-2, -1)) @ value


def _multi_head(leaves: Leaves, func: Any, query: Tensor, key: Tensor, value: Tensor, embedding: int, heads: int,
                weight: Tensor | None, bias: Any, bias_k: Any, bias_v: Any, zero: Any, dropout: Any,
                out_weight: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, None]:  # fmt: skip
    """`nn.MultiheadAttention` on (L, N, E) or (L, E)."""
    if weight is None:
        raise refusal("attention with separate projections")
    pairs = zip((query, key, value), leaves.leaf(weight).chunk(3), strict=True)
    split = [alive(F.linear(x, part)).unflatten(-1, (heads, -1)).movedim(0, -2) for x, part in pairs]
    mixed = alive(_attention(*split)).movedim(-2, 0).flatten(-2)
    return F.linear(mixed, leaves.leaf(out_weight)), None


def _max_pool(average: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The average in place of the maximum: alive under the same conditions, but its gradient reaches all inputs."""

    def pool(input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
             ceil_mode: bool = False, return_indices: bool = False) -> Tensor:  # fmt: skip
        if return_indices or any(step != 1 for step in flat(dilation)):
            raise refusal("max pooling with dilation or with indices")
        return average(input, kernel_size, stride or kernel_size, padding, ceil_mode)

    return pool


WEIGHTED: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "linear"), _linear),
    "conv_transpose3d": _linear,
    "batch_norm": _batch_norm,
    "instance_norm": _batch_norm,
    "group_norm": _group_norm,
    "layer_norm": _layer_norm,
    "multi_head_attention_forward": _multi_head,
}
SPECIAL: dict[str, Callable[..., Tensor]] = {
    **dict.fromkeys(SUM, _add),
    **dict.fromkeys(PRODUCT, _multiply),
    "softmax": _softmax,
    "scaled_dot_product_attention": _attention,
    "max_pool1d": _max_pool(F.avg_pool1d),
    "max_pool2d": _max_pool(F.avg_pool2d),
    "max_pool3d": _max_pool(F.avg_pool3d),
    "adaptive_max_pool1d": lambda input, size, *_: F.adaptive_avg_pool1d(input, size),
    "adaptive_max_pool2d": lambda input, size, *_: F.adaptive_avg_pool2d(input, size),
    "adaptive_max_pool3d": lambda input, size, *_: F.adaptive_avg_pool3d(input, size),
}
