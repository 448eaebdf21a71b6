"""What each torch operation can see, given what its inputs see.

A signal holds a bound of the box that each value sees, of the shape that the value has in the network. -inf: nothing;
+inf: as far as the image goes. Bounds are such that more is larger, so what joins values takes their maximum.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from prunescope.models.channel_rules import BINARY, MOVES, SAME
from prunescope.models.channel_signals import is_signal, meta, signal
from prunescope.models.live_rules import flat

NOTHING, EVERYTHING = -torch.inf, torch.inf
Pair = tuple[int, int]


def _pair(value: Any) -> Pair:
    """Of rows and columns: one number counts for both."""
    numbers = flat(value)
    return (int(numbers[0]), int(numbers[-1]))


def _everything(func: Any, *args: Any, **kwargs: Any) -> Any:
    """Whatever has no rule sees the whole image."""
    if func.__name__ == "__setitem__":
        return _filled(EVERYTHING, args[0])
    return _filled(EVERYTHING, func(*meta(args), **{key: meta(value) for key, value in kwargs.items()}))


def _filled(bound: float, values: Any) -> Any:
    """Signals of the shapes of these values, with one bound everywhere."""
    if isinstance(values, tuple) and hasattr(values, "_fields"):
        return type(values)(*(_filled(bound, item) for item in values))
    if isinstance(values, (list, tuple)):
        return type(values)(_filled(bound, item) for item in values)
    return signal(torch.full((), bound).expand(values.shape)) if isinstance(values, Tensor) else values


def _seeing(args: Any) -> Any:
    """Constants beside signals (class tokens, weights) as signals that see nothing."""
    if isinstance(args, (list, tuple)):
        return type(args)(_seeing(item) for item in args)
    constant = isinstance(args, Tensor) and not is_signal(args) and args.is_floating_point()
    return _filled(NOTHING, args) if constant else args


def _windows(input: Tensor, kernel: Any, stride: Any, padding: tuple[Pair, Pair], dilation: Any = 1,
             ceil_mode: bool = False) -> Tensor:  # fmt: skip
    """The hull of each window; (rows, columns) of padding before and after see nothing."""
    (top, bottom), (left, right) = padding
    padded = F.pad(input, (left, right, top, bottom), value=NOTHING)
    return F.max_pool2d(padded, _pair(kernel), _pair(stride), 0, _pair(dilation), ceil_mode)


def _conv2d(func: Any, input: Tensor, weight: Tensor, bias: Any = None, stride: Any = 1, padding: Any = 0,
            dilation: Any = 1, groups: int = 1) -> Tensor:  # fmt: skip
    shape = func(meta(input), meta(weight), None, stride, padding, dilation, groups).shape
    kernel, steps = weight.shape[2:], _pair(dilation)
    if isinstance(padding, str):
        total = [step * (size - 1) if padding == "same" else 0 for step, size in zip(steps, kernel, strict=True)]
        around = [(size // 2, size - size // 2) for size in total]
    else:
        around = [(size, size) for size in _pair(padding)]
    read = input.unflatten(1, (groups, -1)).amax(2)
    seen = _windows(read, tuple(kernel), stride, (around[0], around[1]), dilation)
    return signal(seen[:, :, None].expand(-1, -1, weight.shape[0] // groups, -1, -1).reshape(shape))


def _linear(func: Any, input: Tensor, weight: Tensor, bias: Any = None) -> Tensor:
    return signal(input.amax(-1, keepdim=True).expand(func(meta(input), meta(weight)).shape))


def _max_pool2d(func: Any, input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
                ceil_mode: bool = False, return_indices: bool = False) -> Any:  # fmt: skip
    if return_indices:
        return _everything(func, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)
    # Its own padding: with `ceil_mode` a window may reach further, and one that starts in the padding is left out.
    return signal(F.max_pool2d(input, kernel_size, stride or kernel_size, padding, dilation, ceil_mode))


def _avg_pool2d(func: Any, input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0,
                ceil_mode: bool = False, *args: Any, **kwargs: Any) -> Tensor:  # fmt: skip
    return signal(F.max_pool2d(input, kernel_size, stride or kernel_size, padding, 1, ceil_mode))


def _adaptive_pool2d(func: Any, input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    if return_indices:
        return _everything(func, input, output_size, return_indices)
    return signal(F.adaptive_max_pool2d(input, output_size))


def _reduce(func: Any, input: Tensor, dim: Any = None, keepdim: bool = False, **kwargs: Any) -> Tensor:
    """Mean, sum: over images it makes no sense, but code may do it; then all images are one."""
    axes = [axis % input.ndim for axis in (flat(dim) if dim is not None else range(input.ndim))]
    if 0 in axes:
        return _everything(func, input, dim, keepdim, **kwargs) if dim is not None else _everything(func, input)
    return signal(input.amax(axes, keepdim=keepdim))


def _over(axes: Callable[..., Any]) -> Callable[..., Tensor]:
    """Operations in which each value depends on all that share its place on the other axes."""

    def mixed(func: Any, input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return signal(input.amax(axes(input, *args, **kwargs), keepdim=True).expand(input.shape))

    return mixed


def _group_norm(func: Any, input: Tensor, num_groups: int, *args: Any, **kwargs: Any) -> Tensor:
    groups = input.unflatten(1, (num_groups, -1))
    axes = tuple(range(2, groups.ndim))
    return signal(groups.amax(axes, keepdim=True).expand(groups.shape).flatten(1, 2))


def _instance_norm(func: Any, input: Tensor, running_mean: Any = None, running_var: Any = None, weight: Any = None,
                   bias: Any = None, use_input_stats: bool = True, *args: Any, **kwargs: Any) -> Tensor:  # fmt: skip
    return _group_norm(func, input, input.shape[1]) if use_input_stats else input


def _binary(func: Any, first: Any, second: Any, *args: Any, **kwargs: Any) -> Tensor:
    """Sums and products see what either sees."""
    if is_signal(first) and is_signal(second):
        return signal(torch.maximum(first, second))
    value, constant = (first, second) if is_signal(first) else (second, first)
    shape = constant.shape if isinstance(constant, Tensor) else ()
    return signal(value.expand(torch.broadcast_shapes(value.shape, shape)))


def _pad(func: Any, input: Tensor, pad: Any, mode: str = "constant", value: Any = None) -> Tensor:
    padded = F.pad(input, pad, value=NOTHING) if mode == "constant" else F.pad(input.contiguous(), pad, mode)
    return signal(padded)


def _move(func: Any, *args: Any, **kwargs: Any) -> Any:
    """Bounds move as values do."""
    first, *rest = _seeing(args)
    result = func(first.contiguous() if func.__name__ in ("view", "view_as") else first, *rest, **kwargs)
    return type(result)(map(signal, result)) if isinstance(result, (list, tuple)) else signal(result)


RULES: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(SAME | {"batch_norm", "prelu"}, lambda func, input, *args, **kwargs: input),
    **dict.fromkeys(MOVES | {"cat", "concat", "concatenate", "roll", "repeat", "channel_shuffle"}, _move),
    **dict.fromkeys(BINARY, _binary),
    **dict.fromkeys(("mean", "sum", "amax", "amin"), _reduce),
    **dict.fromkeys(("softmax", "log_softmax"), _over(lambda input, dim=-1, *args, **kwargs: dim)),
    "layer_norm": _over(lambda input, shape, *args, **kwargs: tuple(range(-len(shape), 0))),
    "local_response_norm": _over(lambda input, *args, **kwargs: 1),
    "group_norm": _group_norm,
    "instance_norm": _instance_norm,
    "conv2d": _conv2d,
    "linear": _linear,
    "max_pool2d": _max_pool2d,
    "avg_pool2d": _avg_pool2d,
    "adaptive_avg_pool2d": _adaptive_pool2d,
    "adaptive_max_pool2d": _adaptive_pool2d,
    "pad": _pad,
}


def rule(name: str) -> Callable[..., Any]:
    """The rule for a torch function."""
    return RULES.get(name, _everything)
