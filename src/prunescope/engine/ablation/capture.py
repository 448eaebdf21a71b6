"""A network as a graph of operations, in the form that ablation wants: nothing in place, norms folded, sizes known."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from prunescope.core.errors import PrunescopeError
from prunescope.models.layers import CONVOLUTIONS

#: Numbers of images of the runs from which sizes are learned: two for the line, a third to see that it is one.
_PROBES = (2, 3, 5)
_OUT_OF_PLACE: dict[Any, Any] = {
    operator.iadd: operator.add, operator.isub: operator.sub, operator.imul: operator.mul,
    operator.itruediv: operator.truediv, F.relu_: F.relu, torch.relu_: torch.relu,
}  # fmt: skip
_IDENTITIES = (nn.Identity, nn.modules.dropout._DropoutNd)


class Untraceable(PrunescopeError):  # noqa: N818 (says what the network is)
    """torch.fx cannot follow the network, or something in it depends on how many images there are."""


def capture(model: nn.Module, shape: tuple[int, ...], *, fold: bool = True) -> fx.GraphModule:
    """A copy of the network in eval mode as a graph whose nodes know how to run.

    In every node's `meta`: `call`: a function of its arguments; `images`: whether its value depends on the images;
    `shape`: of one run with `_PROBES[0]` images, None for what is no tensor; `size`: for other values, a function from
    the number of images to the value.

    Args:
        shape: (C, H, W) of one image.
        fold: put norms into the convolutions before them; the outputs then differ by rounding.

    Raises:
        Untraceable: with the reason.
    """
    network = copy.deepcopy(model).eval().requires_grad_(False)
    for module in network.modules():
        if hasattr(module, "inplace"):
            module.inplace = False  # type: ignore[assignment]
    try:
        traced = fx.GraphModule(network, fx.Tracer().trace(network))
    except Exception as error:  # whatever tracing the network's own code raises
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise Untraceable(f"torch.fx cannot follow {type(model).__name__}: {reason}") from error
    for node in list(traced.graph.nodes):
        _tidy(traced, node)
    if fold:
        _fold(traced)
    traced.graph.eliminate_dead_code()
    for node in traced.graph.nodes:
        node.meta["call"] = _call(traced, node)
    _learn_sizes(traced, shape)
    return traced


def parameter(node: fx.Node) -> nn.Module:
    """The module that a node calls."""
    return node.graph.owning_module.get_submodule(str(node.target))  # type: ignore[union-attr]


def is_call_of(node: object, kinds: tuple[type, ...]) -> bool:
    """Whether a node calls a module of one of these classes."""
    return isinstance(node, fx.Node) and node.op == "call_module" and isinstance(parameter(node), kinds)


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


def _tidy(traced: fx.GraphModule, node: fx.Node) -> None:
    if node.op == "call_module" and isinstance(parameter(node), _IDENTITIES):
        node.replace_all_uses_with(node.all_input_nodes[0])
        traced.graph.erase_node(node)
        return
    node.target = _OUT_OF_PLACE.get(node.target, node.target)
    if node.op == "call_method" and node.target.endswith("_") and not node.target.endswith("__"):  # type: ignore[union-attr]
        if not hasattr(Tensor, node.target[:-1]):  # type: ignore[index]
            raise Untraceable(f"{node.target} changes a tensor in place, and nothing does the same on a copy")
        node.target = node.target[:-1]  # type: ignore[index]
    if node.kwargs.get("inplace"):
        node.kwargs = {**node.kwargs, "inplace": False}


def _fold(traced: fx.GraphModule) -> None:
    calls = [str(node.target) for node in traced.graph.nodes if node.op == "call_module"]
    for node in list(traced.graph.nodes):
        if not is_call_of(node, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)):
            continue
        before, norm = node.args[0], parameter(node)
        once = is_call_of(before, CONVOLUTIONS) and len(before.users) == 1 and calls.count(str(before.target)) == 1
        if not once or not norm.track_running_stats or parameter(before).transposed:
            continue
        parent, _, last = str(before.target).rpartition(".")
        setattr(traced.get_submodule(parent), last, fuse_conv_bn_eval(parameter(before), norm))  # type: ignore[type-var, arg-type]
        node.replace_all_uses_with(before)
        traced.graph.erase_node(node)


def _call(traced: fx.GraphModule, node: fx.Node) -> Callable[..., Any]:
    if node.op == "call_module":
        return parameter(node)
    if node.op == "call_function":
        return node.target  # type: ignore[return-value]
    if node.op == "call_method":
        return getattr(Tensor, str(node.target)) if hasattr(Tensor, str(node.target)) else _method(str(node.target))
    if node.op == "get_attr":
        value = operator.attrgetter(str(node.target))(traced)
        return lambda: value
    if node.op == "output":
        return lambda value: value
    default = node.args[0] if node.args else None  # further arguments of the network keep their defaults
    return lambda *_: default


def _method(name: str) -> Callable[..., Any]:
    return lambda value, *args, **kwargs: getattr(value, name)(*args, **kwargs)


@torch.no_grad()
def _learn_sizes(traced: fx.GraphModule, shape: tuple[int, ...]) -> None:
    first = next(traced.parameters(), torch.empty(0))
    try:
        runs = [run(traced, first.new_zeros(n, *shape)) for n in _PROBES]
    except Exception as error:
        raise Untraceable(
            f"the network does not run on {_PROBES} images of shape {shape}: {str(error).splitlines()[0]}"
        ) from error
    for node in traced.graph.nodes:
        given = [run_[node] for run_ in runs]
        node.meta["images"] = node.op == "placeholder" or any(other.meta["images"] for other in node.all_input_nodes)
        node.meta["shape"] = tuple(given[0].shape) if isinstance(given[0], Tensor) else None
        node.meta["leads"] = isinstance(given[0], Tensor) and all(
            value.dim() > 0 and value.shape[0] == n and value.shape[1:] == given[0].shape[1:]
            for value, n in zip(given, _PROBES, strict=True)
        )  # fmt: skip
        if not any(isinstance(value, Tensor) for value in _flat(given)):
            node.meta["size"] = _line(node, given)


def _line(node: fx.Node, given: list[Any]) -> Callable[[int], Any]:
    """Values that grow with the number of images do so on a line."""

    def at(count: int, first: Any, second: Any) -> Any:
        if isinstance(first, (list, tuple)):
            return type(first)(at(count, a, b) for a, b in zip(first, second, strict=True))
        if isinstance(first, bool) or not isinstance(first, int):
            return first
        return first + (second - first) * (count - _PROBES[0])

    if at(_PROBES[2], given[0], given[1]) != given[2]:
        raise Untraceable(f"{node.name} depends on the number of images: {given} for {_PROBES}")
    return lambda count: at(count, given[0], given[1])


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _flat(item)
    else:
        yield value
