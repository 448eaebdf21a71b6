"""A network run on booleans: what is alive (1) and what is dead (0), forwards and backwards."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from prunescope.core.errors import PrunescopeError
from prunescope.core.mask import Mask

_SAME = """relu relu_ relu6 leaky_relu leaky_relu_ prelu rrelu elu elu_ selu celu gelu silu mish hardswish hardtanh
softplus softsign sigmoid tanh hardsigmoid logsigmoid log_softmax threshold clamp clamp_min clamp_max abs square pow
sqrt local_response_norm dropout dropout1d dropout2d dropout3d alpha_dropout feature_alpha_dropout neg normalize
to float double half bfloat16 type type_as cpu cuda __pow__ __neg__""".split()
_STRUCTURE = """cat concat concatenate stack flatten view view_as reshape permute transpose t squeeze unsqueeze expand
expand_as repeat mean sum avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d
interpolate pad chunk split tensor_split narrow select index_select roll unfold unflatten movedim swapaxes
pixel_shuffle pixel_unshuffle channel_shuffle unbind contiguous clone
__getitem__""".split()
_ASIDE = """__get__ size dim ndimension numel is_floating_point is_complex is_contiguous stride get_device __len__
__hash__ __bool__ __eq__ __ne__ item _assert data_ptr has_names is_nested new_zeros new_ones new_empty new_full
new_tensor zeros_like ones_like full_like empty_like detach""".split()
_CONTRACTION = "matmul bmm __matmul__ __rmatmul__ einsum".split()
_SUM = "add sub __add__ __radd__ __iadd__ __sub__ __rsub__ __isub__ subtract rsub".split()
_PRODUCT = "mul multiply div __mul__ __rmul__ __imul__ __truediv__ __itruediv__".split()


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
        signal = any(_is_signal(value) for value in _flat((args, tuple(kwargs.values()))))
        if name in _ASIDE or not signal:
            with torch.no_grad():  # so that what is computed from parameters alone does not look like a signal
                return func(*args, **kwargs)
        if name in _WEIGHTED:
            return _alive(_WEIGHTED[name](self, func, *args, **kwargs))
        if name in _SAME:
            return args[0] if args else kwargs["input"]
        if name in _SPECIAL:
            return _alive(_SPECIAL[name](*args, **kwargs))
        if name in _STRUCTURE:
            return _alive(func(*_silent(args), **kwargs))
        if name in _CONTRACTION:
            return _alive(func(*self._factors(args), **kwargs))
        raise _refusal(repr(name))

    def leaf(self, weight: Tensor) -> Tensor:
        """The liveness of a parameter or buffer: its mask, or ones."""
        if id(weight) not in self.known:
            raise _refusal("a layer whose weights are computed")
        name = self.names.get(id(weight), "")
        return self.leaves[name] if name in self.leaves else torch.ones(weight.shape, dtype=torch.float64)

    def covered(self, parameter: Tensor | None) -> Tensor | None:
        """The mask of a parameter, None when the mask does not cover it."""
        return None if parameter is None else self.leaves.get(self.names.get(id(parameter), ""))

    def _factors(self, args: Any) -> Any:
        if isinstance(args, (list, tuple)):
            return type(args)(self._factors(item) for item in args)
        return self.leaf(args) if isinstance(args, Tensor) and not _is_signal(args) else args


class _Boolean(torch.autograd.Function):
    """0/1 forwards and backwards. Both are sums of terms that are not negative, so nonzero means "any of"."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return (x != 0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        return (grad != 0).to(grad.dtype)


def _alive(result: Any) -> Any:
    if isinstance(result, (list, tuple)):
        return type(result)(_alive(item) for item in result)
    return _Boolean.apply(result) if _is_signal(result) else result


def _is_signal(value: object) -> bool:
    return isinstance(value, Tensor) and value.requires_grad and not isinstance(value, nn.Parameter)


def _flat(values: Any) -> list[Any]:
    if isinstance(values, (list, tuple)):
        return [item for value in values for item in _flat(value)]
    return [values]


def _silent(args: Any) -> Any:
    """Tensors that are no signal, such as class tokens and embeddings, as zeros."""
    if isinstance(args, (list, tuple)):
        return type(args)(_silent(item) for item in args)
    if isinstance(args, Tensor) and args.is_floating_point() and not _is_signal(args):
        return torch.zeros(args.shape, dtype=torch.float64)
    return args


def _refusal(what: str) -> PrunescopeError:
    return PrunescopeError(
        f"effective density: cannot follow the signal through {what}; leave effective density out for this network"
    )


def _open(gate: Tensor) -> Tensor:
    """Ones, with the gradient of `gate`: what a gate lets through does not hang on the gate, but the gate is used."""
    return 1 + (gate - gate.detach())


def _constant(bias: Tensor) -> Tensor:
    """Zeros, with the gradient of `bias`: it adds no signal, but is used when its unit is."""
    return bias - bias.detach()


def _linear(self: Liveness, func: Any, input: Tensor, weight: Tensor, bias: Tensor | None = None, *args: Any) -> Tensor:
    """Convolutions and linear layers."""
    out = func(input, self.leaf(weight), None, *args)
    own = self.covered(bias)
    if own is None:
        return out
    channel = -1 if func is F.linear else 1
    shape = [1] * out.dim()
    shape[channel] = -1
    return out + _constant(own).view(shape)


def _norm(self: Liveness, weight: Tensor | None, bias: Tensor | None, x: Tensor, channel: int) -> Tensor:
    shape = [1] * x.dim()
    shape[channel] = -1
    scale, shift = self.covered(weight), self.covered(bias)
    if scale is not None:
        x = x * scale.view(shape)
    return x if shift is None else x + _constant(shift).view(shape)


def _batch_norm(self: Liveness, func: Any, input: Tensor, mean: Any, var: Any, weight: Any = None, bias: Any = None,
                *args: Any, **kwargs: Any) -> Tensor:  # fmt: skip
    return _norm(self, weight, bias, input, 1)


def _group_norm(self: Liveness, func: Any, input: Tensor, groups: int, weight: Any = None, bias: Any = None,
                *args: Any, **kwargs: Any) -> Tensor:  # fmt: skip
    return _norm(self, weight, bias, input, 1)


def _layer_norm(self: Liveness, func: Any, input: Tensor, shape: Any, weight: Any = None, bias: Any = None,
                *args: Any, **kwargs: Any) -> Tensor:  # fmt: skip
    return _norm(self, weight, bias, input, -1)


def _add(first: Any, second: Any, **kwargs: Any) -> Tensor:
    """Signals join; a constant changes nothing but the shape."""
    if _is_signal(first) and _is_signal(second):
        return first + second
    signal, other = (first, second) if _is_signal(first) else (second, first)
    return signal + torch.zeros(getattr(other, "shape", ()), dtype=torch.float64)


def _multiply(first: Any, second: Any, **kwargs: Any) -> Tensor:
    """The smaller of two signals gates the larger; of equal ones (gated linear units) either passes."""
    if not (_is_signal(first) and _is_signal(second)) or first.shape == second.shape:
        return _add(first, second)
    large, small = (first, second) if first.numel() >= second.numel() else (second, first)
    return large * _open(small)


def _softmax(input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return _open(input)


def _attention(query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return _open(query @ key.transpose(-2, -1)) @ value


def _multi_head(self: Liveness, func: Any, query: Tensor, key: Tensor, value: Tensor, embedding: int, heads: int,
                weight: Tensor | None, bias: Any, bias_k: Any, bias_v: Any, zero: Any, dropout: Any,
                out_weight: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, None]:  # fmt: skip
    """`nn.MultiheadAttention` on (L, N, E) or (L, E)."""
    if weight is None:
        raise _refusal("attention with separate projections")
    pairs = zip((query, key, value), self.leaf(weight).chunk(3), strict=True)
    split = [_alive(F.linear(x, part)).unflatten(-1, (heads, -1)).movedim(0, -2) for x, part in pairs]
    mixed = _alive(_attention(*split)).movedim(-2, 0).flatten(-2)
    return F.linear(mixed, self.leaf(out_weight)), None


def _max_pool(average: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The average in place of the maximum: alive under the same conditions, but its gradient reaches all inputs."""

    def pool(input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
             ceil_mode: bool = False, return_indices: bool = False) -> Tensor:  # fmt: skip
        if return_indices or any(step != 1 for step in _flat(dilation)):
            raise _refusal("max pooling with dilation or with indices")
        return average(input, kernel_size, stride or kernel_size, padding, ceil_mode)

    return pool


_WEIGHTED: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "linear"), _linear),
    "conv_transpose3d": _linear,
    "batch_norm": _batch_norm,
    "instance_norm": _batch_norm,
    "group_norm": _group_norm,
    "layer_norm": _layer_norm,
    "multi_head_attention_forward": _multi_head,
}
_SPECIAL: dict[str, Callable[..., Tensor]] = {
    **dict.fromkeys(_SUM, _add),
    **dict.fromkeys(_PRODUCT, _multiply),
    "softmax": _softmax,
    "scaled_dot_product_attention": _attention,
    "max_pool1d": _max_pool(F.avg_pool1d),
    "max_pool2d": _max_pool(F.avg_pool2d),
    "max_pool3d": _max_pool(F.avg_pool3d),
    "adaptive_max_pool1d": lambda input, size, *_: F.adaptive_avg_pool1d(input, size),
    "adaptive_max_pool2d": lambda input, size, *_: F.adaptive_avg_pool2d(input, size),
    "adaptive_max_pool3d": lambda input, size, *_: F.adaptive_avg_pool3d(input, size),
}
