"""Nodes of a captured network: what they call, and running them."""

from __future__ import annotations

from typing import Any

from torch import Tensor, fx, nn

from prunescope.core.errors import PrunescopeError


class Untraceable(PrunescopeError):  # noqa: N818 (says what the network is)
    """torch.fx cannot follow the network, or something in it depends on how many images there are."""


def parameter(node: fx.Node) -> nn.Module:
    """The module that a node calls."""
    return node.graph.owning_module.get_submodule(str(node.target))  # type: ignore[union-attr]


def is_call_of(node: object, kinds: tuple[type, ...]) -> bool:
    """Whether a node calls a module of one of these classes."""
    return isinstance(node, fx.Node) and node.op == "call_module" and isinstance(parameter(node), kinds)


def is_plain(module: nn.Module, kinds: tuple[type[nn.Module], ...]) -> bool:
    """Whether a module computes what its class does: no forward of its own, no hook, no parametrisation."""
    hooks = module._forward_hooks or module._forward_pre_hooks or hasattr(module, "parametrizations")
    return not hooks and any(isinstance(module, kind) and type(module).forward is kind.forward for kind in kinds)


def is_plain_call_of(node: object, kinds: tuple[type[nn.Module], ...]) -> bool:
    """Whether a node calls a module that computes what one of these classes does."""
    return is_call_of(node, kinds) and is_plain(parameter(node), kinds)  # type: ignore[arg-type]


def evaluate(node: fx.Node, values: dict[fx.Node, Any]) -> Any:
    """Run one node on the values of others."""
    args, kwargs = fx.node.map_arg((node.args, dict(node.kwargs)), lambda other: values[other])
    return node.meta["call"](*args, **kwargs)


def run(traced: fx.GraphModule, images: Tensor) -> dict[fx.Node, Any]:
    """The values of all nodes."""
    values: dict[fx.Node, Any] = {}
    for node in traced.graph.nodes:
        values[node] = images if node.op == "placeholder" and not values else evaluate(node, values)
    return values


def affine(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """(scale, shift) of every channel by a batch norm in eval mode."""
    assert isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d)
    assert norm.running_var is not None and norm.running_mean is not None  # noqa: PT018 (both or none)
    scale = (norm.running_var + norm.eps).rsqrt()
    scale = scale if norm.weight is None else scale * norm.weight
    shift = -norm.running_mean * scale
    return scale, shift if norm.bias is None else norm.bias + shift


def first_line(error: Exception) -> str:
    """What an error says, in short."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__
