"""Attention taken apart while a network is traced, so that its heads can be got at."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt
from typing import Any

import torch.nn.functional as F
from torch import fx, nn

#: Arguments without which attention can be taken apart.
_ASIDE = {"attn_mask", "key_padding_mask", "is_causal", "mask", "src_mask", "src_key_padding_mask"}


@dataclass(frozen=True)
class Heads:
    """The heads of one attention, side by side on the last axis.

    Attributes:
        name: of the attention module.
        count: how many heads.
        width: numbers of each.
    """

    name: str
    count: int
    width: int


class ApartTracer(fx.Tracer):
    """Like torch.fx's own; attention and torch's transformer encoders become the operations that they consist of.

    What is called with masks, or has hooks, keys of its own or another forward, stays whole.
    """

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        parts = _APART.get(type(m))
        if parts is None or not _is_plain(m):
            return super().call_module(m, forward, args, kwargs)
        given = inspect.signature(type(m).forward).bind(m, *args, **kwargs).arguments
        if any(given[name] is not None and given[name] is not False for name in _ASIDE & given.keys()):
            return super().call_module(m, forward, args, kwargs)
        return parts(self, m, **{name: value for name, value in given.items() if name not in {"self", *_ASIDE}})


def _is_plain(module: nn.Module) -> bool:
    hooked = any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())
    return not hooked and getattr(module, "bias_k", None) is None and not getattr(module, "add_zero_attn", False)


def _attention(
    tracer: ApartTracer, module: nn.MultiheadAttention, query: Any, key: Any, value: Any,
    need_weights: bool = True, average_attn_weights: bool = True,
) -> Any:  # fmt: skip
    """Softmax(q k^T / sqrt(width)) v of every head, then the output projection (Vaswani et al. 2017, 3.2.2)."""
    heads = Heads(tracer.path_of_module(module), module.num_heads, module.head_dim)
    inputs = (query, key, value)
    if not module.batch_first:
        moved = {id(x): x.transpose(0, 1) for x in inputs}
        inputs = tuple(moved[id(x)] for x in inputs)
    q, k, v = (x.unflatten(-1, (heads.count, heads.width)).transpose(1, 2) for x in _projections(module, *inputs))
    mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    mixed.node.meta["heads"] = heads  # type: ignore[attr-defined]
    out = module.out_proj(mixed)
    out = out if module.batch_first else out.transpose(0, 1)
    if not need_weights:
        return out, None
    weights = (q @ k.transpose(-2, -1) / sqrt(heads.width)).softmax(-1)  # dropped from the graph when nothing reads it
    return out, weights.mean(1) if average_attn_weights else weights


def _projections(module: nn.MultiheadAttention, query: Any, key: Any, value: Any) -> tuple[Any, Any, Any]:
    bias = module.in_proj_bias
    if module._qkv_same_embed_dim and query is key and key is value:
        joint = F.linear(query, module.in_proj_weight, bias).chunk(3, -1)
        return joint[0], joint[1], joint[2]
    if module._qkv_same_embed_dim:
        rows = module.in_proj_weight.chunk(3)
        weights = rows[0], rows[1], rows[2]
    else:
        weights = module.q_proj_weight, module.k_proj_weight, module.v_proj_weight
    shifts = (None,) * 3 if bias is None else bias.chunk(3)
    return tuple(F.linear(x, weights[i], shifts[i]) for i, x in enumerate((query, key, value)))  # type: ignore[return-value]


def _encoder_layer(tracer: ApartTracer, module: nn.TransformerEncoderLayer, src: Any) -> Any:
    def attend(x: Any) -> Any:
        return module.self_attn(x, x, x, need_weights=False)[0]

    def feed(x: Any) -> Any:
        return module.linear2(module.activation(module.linear1(x)))

    if module.norm_first:
        x = src + attend(module.norm1(src))
        return x + feed(module.norm2(x))
    x = module.norm1(src + attend(src))
    return module.norm2(x + feed(x))


def _encoder(tracer: ApartTracer, module: nn.TransformerEncoder, src: Any) -> Any:
    for layer in module.layers:
        src = layer(src)
    return src if module.norm is None else module.norm(src)


_APART: dict[type[nn.Module], Callable[..., Any]] = {
    nn.MultiheadAttention: _attention,
    nn.TransformerEncoderLayer: _encoder_layer,
    nn.TransformerEncoder: _encoder,
}
