"""How each torch operation hands channels on: which channels of its result are which channels of its inputs.

A signal is a tensor of the shape it has in the network, holding the *label* of a channel at each place. Operations that
only move values about work on labels as they are; the others are told here what they do with channels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from prunescope.models.channel_signals import NOTHING, along, is_signal, meta, nothing, signal, signals, small, spread
from prunescope.models.live_rules import CONTRACTION, SUM, flat, words

#: Elementwise: every channel stays what it is.
SAME = words(
    """relu relu_ relu6 leaky_relu leaky_relu_ rrelu elu elu_ selu celu gelu silu mish hardswish hardtanh softplus
    softsign sigmoid sigmoid_ tanh tanh_ hardsigmoid logsigmoid threshold clamp clamp_ clamp_min clamp_max abs neg
    square pow sqrt exp dropout dropout1d dropout2d dropout3d alpha_dropout feature_alpha_dropout to float double half
    bfloat16 type type_as cpu cuda detach contiguous clone requires_grad_"""
)
#: Values move about, and nothing in the code counts channels.
MOVES = words(
    """flatten permute transpose t squeeze unsqueeze expand expand_as movedim swapaxes view reshape view_as unflatten
    stack __getitem__ chunk split tensor_split narrow select unbind"""
)
POOLS = words(
    """avg_pool1d avg_pool2d avg_pool3d max_pool1d max_pool2d max_pool3d adaptive_avg_pool1d adaptive_avg_pool2d
    adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d interpolate lp_pool2d"""
)
BINARY = SUM | words("mul div mul_ div_ multiply __rmul__ maximum minimum __iadd__ __imul__ __isub__ iadd")
MIXING = CONTRACTION | words("softmax log_softmax scaled_dot_product_attention normalize baddbmm addmm")


class Ledger(Protocol):
    """What the rules write down."""

    def fresh(self, name: str, count: int) -> Tensor:
        """Labels of the outputs of a layer, the same ones when it is called again."""
        ...

    def name(self, tensor: object) -> str | None:
        """Name of a parameter or buffer; None for what was computed."""
        ...

    def lies(self, name: str, axis: int, labels: Tensor) -> None:
        """Labels of the indices along an axis of a parameter or buffer."""
        ...

    def unite(self, first: Tensor, second: Tensor) -> None:
        """Channels that stay or go together, pair by pair (broadcast)."""
        ...

    def fix(self, labels: Tensor, reason: str) -> None:
        """Channels that cannot go."""
        ...

    def positions(self, name: str, count: int) -> None:
        """At how many places a layer's weights are applied to one image."""
        ...


def _weighted(book: Ledger, func: Any, input: Tensor, weight: Tensor, bias: Tensor | None = None, *args: Any,
              groups: int = 1, **kwargs: Any) -> Tensor:  # fmt: skip
    """Convolutions and linear layers: they read channels and make new ones."""
    linear = func.__name__ == "linear"
    if not linear and len(args) == 4:
        *args, groups = args  # type: ignore[assignment]
    options = kwargs if linear else {**kwargs, "groups": groups}
    shape = func(meta(input), meta(weight), meta(bias), *args, **options).shape
    axis = -1 if linear else 1
    name, read = book.name(weight), along(input, axis)
    if name is None or read is None:
        book.fix(input, f"{func.__name__} reads it in a way that cannot be followed")
    if name is None:
        return nothing(shape)
    made = book.fresh(name, shape[axis])
    book.lies(name, 0, made)
    if bias is not None and (own := book.name(bias)) is not None:
        book.lies(own, 0, made)
    if groups > 1 and read is not None:  # a group's inputs and outputs stay or go together, so none is left without
        book.unite(read.view(groups, -1), read.view(groups, -1)[:, :1])
        book.unite(made.view(groups, -1), read.view(groups, -1)[:, :1])
    elif read is not None:
        book.lies(name, 1, read)
    book.positions(name, shape.numel() // shape[0] // shape[axis])
    return spread(made, axis, shape)


def _unfollowed(book: Ledger, func: Any, *args: Any, **kwargs: Any) -> Any:
    """Whatever has no rule: its channels cannot go, and its results are none that may."""
    for value in signals((args, tuple(kwargs.values()))):
        book.fix(value, f"{func.__name__} takes all channels together")
    return _without(func(*meta(args), **{key: meta(value) for key, value in kwargs.items()}))


def _without(result: Any) -> Any:
    if isinstance(result, (list, tuple)):
        return type(result)(_without(item) for item in result)
    return nothing(result.shape) if isinstance(result, Tensor) else result


def _channel_norm(book: Ledger, func: Any, input: Tensor, mean: Any = None, var: Any = None, weight: Any = None,
                  bias: Any = None, *args: Any, **kwargs: Any) -> Tensor:  # fmt: skip
    """Batch and instance norm: each channel by itself."""
    labels = along(input, 1)
    for own in (mean, var, weight, bias):
        name = book.name(own)
        if labels is None or (own is not None and name is None):
            book.fix(input, "its norm cannot be followed")
        elif name is not None:
            book.lies(name, 0, labels)
    return input


def _joint_norm(book: Ledger, func: Any, input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Layer norm and kin: the mean over all channels changes with each that goes."""
    book.fix(input, f"{func.__name__} takes the mean over all channels")
    return input


def _prelu(book: Ledger, func: Any, input: Tensor, weight: Tensor) -> Tensor:
    labels, name = along(input, 1), book.name(weight)
    if weight.numel() > 1 and labels is not None and name is not None:
        book.lies(name, 0, labels)
    elif weight.numel() > 1:
        book.fix(input, "prelu cannot be followed")
    return input


def _binary(book: Ledger, func: Any, first: Any, second: Any, *args: Any, **kwargs: Any) -> Tensor:
    """Sums and products: channels that meet stay or go together."""
    if is_signal(first) and is_signal(second):
        book.unite(first, second)
        shape = torch.broadcast_shapes(first.shape, second.shape)
        large = first if first.shape == shape else second
        return large if large.shape == shape else signal(large.expand(shape))
    value, constant = (first, second) if is_signal(first) else (second, first)
    if isinstance(constant, Tensor) and constant.numel() > 1:
        book.fix(value, f"{func.__name__} joins it with weights that have no rule")
        return nothing(torch.broadcast_shapes(value.shape, constant.shape))
    return value


def _pool(book: Ledger, func: Any, input: Tensor, *args: Any, **kwargs: Any) -> Any:
    labels = along(input, 1)
    if labels is None or kwargs.get("return_indices"):
        return _unfollowed(book, func, input, *args, **kwargs)
    return spread(labels, 1, func(meta(input), *args, **kwargs).shape)


def _mean(book: Ledger, func: Any, input: Tensor, dim: Any = None, keepdim: bool = False, **kwargs: Any) -> Any:
    """Over places: channels stay; over channels: none may go."""
    axes = [axis % input.dim() for axis in (flat(dim) if dim is not None else range(input.dim()))]
    low, high = (getattr(small(input), way)(axes, keepdim=keepdim) for way in ("amin", "amax"))
    if bool((low != high).any()):
        return _unfollowed(book, func, input, dim, keepdim=keepdim, **kwargs)
    return signal(low.expand(func(meta(input), dim, keepdim=keepdim).shape))


def _pad(book: Ledger, func: Any, input: Tensor, pad: Any, mode: str = "constant", value: Any = None) -> Tensor:
    labels, shape = along(input, 1), func(meta(input), pad, mode, value).shape
    if labels is None or input.dim() < 2 or shape[1] != input.shape[1]:
        return _unfollowed(book, func, input, pad, mode, value)
    return spread(labels, 1, shape)


def _move(book: Ledger, func: Any, *args: Any, **kwargs: Any) -> Any:
    """Labels move as values do. Code that takes some channels out, or splits their axis, counts them."""
    first, *rest = _filled(args)
    result = func(first.contiguous() if func.__name__ in ("view", "view_as") else first, *rest, **kwargs)
    before = torch.cat([small(value).flatten() for value in signals(args)]).unique()
    for part in flat(result):
        after = small(part).unique()
        if len(after[after != NOTHING]) < len(before[before != NOTHING]):
            book.fix(before, f"{func.__name__} takes some channels and leaves others")
        elif all(along(part, axis) is None for axis in range(part.dim())):
            book.fix(before, f"{func.__name__} splits the axis of channels")
        signal(part)
    return result


def _cat(book: Ledger, func: Any, tensors: Any, dim: int = 0, **kwargs: Any) -> Tensor:
    """Channels one after the other; beside constants (class tokens), or along places, none is followed further."""
    parts = [value if is_signal(value) else nothing(value.shape) for value in tensors]
    dim = kwargs.get("axis", dim) % parts[0].dim()
    labels = [along(part, dim) for part in parts]
    if any(found is None for found in labels):
        return signal(func(parts, dim))
    shape = list(parts[0].shape)
    shape[dim] = sum(part.shape[dim] for part in parts)
    return spread(torch.cat([found for found in labels if found is not None]), dim, shape)


def _filled(args: Any) -> Any:
    """Constants beside signals (class tokens) as signals without channels."""
    if isinstance(args, (list, tuple)) and any(isinstance(item, (list, tuple)) or is_signal(item) for item in args):
        return type(args)(_filled(item) for item in args)
    if isinstance(args, Tensor) and not is_signal(args) and args.is_floating_point():
        return nothing(args.shape)
    return args


def _attention(book: Ledger, func: Any, query: Tensor, key: Tensor, value: Tensor, embedding: int, heads: int,
               weight: Tensor | None, bias: Any, bias_k: Any, bias_v: Any, zero: Any, dropout: Any, out_weight: Tensor,
               out_bias: Any, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """`nn.MultiheadAttention`: a head is a unit, made by the joint projection and read by the output's."""
    for x in (query, key, value):
        book.fix(x, "attention compares positions over all channels")
    joint, out = book.name(weight), book.name(out_weight)
    if joint is None or out is None or bias_k is not None or kwargs.get("need_weights"):
        return nothing(query.shape), nothing((query.shape[1], query.shape[0], key.shape[0]))
    unit = book.fresh(f"{joint} heads", heads).repeat_interleave(embedding // heads)
    for name in (joint, book.name(bias)):
        if name is not None:
            book.lies(name, 0, unit.repeat(3))
    book.lies(out, 1, unit)
    for name in (joint, out):
        book.positions(name, query.shape[0])
    return nothing(query.shape), None


RULES: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(SAME, lambda book, func, input, *args, **kwargs: input),
    **dict.fromkeys(MOVES, _move),
    **dict.fromkeys(("cat", "concat", "concatenate"), _cat),
    **dict.fromkeys(POOLS, _pool),
    **dict.fromkeys(BINARY, _binary),
    **dict.fromkeys(MIXING, _unfollowed),
    **dict.fromkeys(("conv1d", "conv2d", "conv3d", "linear"), _weighted),
    **dict.fromkeys(("batch_norm", "instance_norm"), _channel_norm),
    **dict.fromkeys(("layer_norm", "group_norm", "local_response_norm", "rms_norm"), _joint_norm),
    **dict.fromkeys(("mean", "sum", "amax", "amin"), _mean),
    "prelu": _prelu,
    "pad": _pad,
    "multi_head_attention_forward": _attention,
}


def rule(name: str) -> Callable[..., Any]:
    """The rule for a torch function."""
    return RULES.get(name, _unfollowed)
