"""Operations that treat every channel by itself, and norms: no unit is read there, its channel passes through."""

from __future__ import annotations

import operator

import torch
import torch.nn.functional as F
from torch import fx, nn

from prunescope.engine.ablation.nodes import is_plain_call_of

#: Of each number by itself.
_ELEMENTWISE = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish, nn.Hardsigmoid,
    nn.Hardtanh, nn.Sigmoid, nn.Tanh, nn.Softplus,
)  # fmt: skip
_FUNCTIONS = {
    F.relu, torch.relu, F.relu6, F.leaky_relu, F.elu, F.celu, F.selu, F.gelu, F.silu, F.mish, F.hardswish,
    F.hardsigmoid, F.hardtanh, torch.sigmoid, F.sigmoid, torch.tanh, F.tanh, F.softplus, F.dropout, torch.clamp,
}  # fmt: skip
_METHODS = {"relu", "sigmoid", "tanh", "contiguous", "clamp", "float"}
_SCALAR = {operator.add, operator.sub, operator.mul, operator.truediv, torch.add, torch.mul}
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
#: They mix channels or places, but what comes out at a place is that channel, normed.
_RENORMING = (
    nn.LocalResponseNorm, nn.GroupNorm, nn.LayerNorm, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d, nn.PReLU,
    *([nn.RMSNorm] if hasattr(nn, "RMSNorm") else []),
)  # fmt: skip
_RENORMING_FUNCTIONS = {
    F.local_response_norm, F.group_norm, F.layer_norm, F.instance_norm, F.prelu, torch.group_norm, torch.layer_norm,
    torch.instance_norm, torch.prelu, getattr(F, "rms_norm", F.layer_norm),
}  # fmt: skip
#: Over the places of maps with so many axes.
_OVER_PLACES: dict[int, tuple[type[nn.Module], ...]] = {
    3: (nn.MaxPool1d, nn.AvgPool1d, nn.AdaptiveAvgPool1d, nn.AdaptiveMaxPool1d, nn.LPPool1d),
    4: (
        nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.LPPool2d, nn.ZeroPad2d,
        nn.ReflectionPad2d, nn.Upsample,
    ),
    5: (nn.MaxPool3d, nn.AvgPool3d, nn.AdaptiveAvgPool3d, nn.AdaptiveMaxPool3d),
}  # fmt: skip
_FUNCTIONS_OVER_PLACES = {
    F.max_pool2d, F.avg_pool2d, F.adaptive_avg_pool2d, F.adaptive_max_pool2d, F.interpolate, torch.mean, "mean",
}  # fmt: skip


def channelwise(node: fx.Node) -> bool:
    """Whether a node treats every channel of its only tensor by itself, channels being on axis 1."""
    return elementwise(node) or is_norm(node) or (_has_one_value(node) and _pools(node))


def along_last(node: fx.Node) -> bool:
    """Whether a channelwise node is so too for channels on the last axis."""
    return elementwise(node) or len(node.all_input_nodes[0].meta["shape"]) == 2


def elementwise(node: fx.Node) -> bool:
    """Whether a node is a function of each number of its only tensor."""
    shape = node.meta["shape"]
    if shape is None or len(node.all_input_nodes) != 1 or node.all_input_nodes[0].meta["shape"] != shape:
        return False
    if node.op == "call_module":
        return is_plain_call_of(node, _ELEMENTWISE)
    if node.target in _SCALAR:
        return len(node.args) == 2 and isinstance(node.args[0], fx.Node)
    return node.target in (_METHODS if node.op == "call_method" else _FUNCTIONS)


def is_norm(node: fx.Node) -> bool:
    """Whether a node is a batch norm: a scale and a shift of every channel."""
    return _has_one_value(node) and is_plain_call_of(node, NORMS)


def renorms(node: fx.Node) -> bool:
    """Whether a node is a norm, or a PReLU, of its first argument: a unit is gone when it is zero behind it.

    Zero before it, the norm's shift would be left in its place, and its neighbours would be normed otherwise.
    """
    if not node.args or not isinstance(node.args[0], fx.Node) or node.args[0].meta["shape"] != node.meta["shape"]:
        return False
    return is_plain_call_of(node, _RENORMING) if node.op == "call_module" else node.target in _RENORMING_FUNCTIONS


def puts_channels_last(node: fx.Node) -> bool:
    """Whether a node only moves axis 1 to the end."""
    if node.target not in (torch.permute, "permute") or not node.meta["shape"]:
        return False
    given = node.args[1:] or (node.kwargs.get("dims", ()),)
    dims = given[0] if len(given) == 1 and isinstance(given[0], (list, tuple)) else given
    axes = len(node.meta["shape"])
    return [int(dim) % axes for dim in dims] == [0, *range(2, axes), 1]  # type: ignore[arg-type]


def is_relu(node: fx.Node) -> bool:
    """Whether a node is a ReLU."""
    return node.target in (F.relu, torch.relu, "relu") or is_plain_call_of(node, (nn.ReLU,))


def _has_one_value(node: fx.Node) -> bool:
    return len(node.all_input_nodes) == 1 and bool(node.all_input_nodes[0].meta["leads"] and node.meta["leads"])


def _pools(node: fx.Node) -> bool:
    axes = len(node.all_input_nodes[0].meta["shape"])
    if node.op == "call_module":
        return is_plain_call_of(node, _OVER_PLACES.get(axes, ()))
    if node.target not in _FUNCTIONS_OVER_PLACES or axes != 4:
        return False
    if node.target not in (torch.mean, "mean"):
        return True
    dims = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
    return isinstance(dims, (list, tuple)) and sorted(int(dim) % 4 for dim in dims) == [2, 3]
