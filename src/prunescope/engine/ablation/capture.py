"""A network as a graph of operations, in the form that ablation wants: nothing in place, norms folded, sizes known."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from prunescope.core.seeds import torch_generator
from prunescope.engine.ablation.apart import ApartTracer
from prunescope.engine.ablation.nodes import Untraceable, affine, first_line, is_call_of, is_plain_call_of, parameter
from prunescope.engine.ablation.sizes import PROBES, learn_sizes
from prunescope.engine.sweep import logits_of
from prunescope.engine.untouched import fixed_rng
from prunescope.models.layers import CONVOLUTIONS

_OUT_OF_PLACE: dict[Any, Any] = {
    operator.iadd: operator.add, operator.isub: operator.sub, operator.imul: operator.mul,
    operator.itruediv: operator.truediv,
}  # fmt: skip
_IDENTITIES = (nn.Identity, nn.modules.dropout._DropoutNd)


@torch.inference_mode(False)  # derivatives of the copy may be asked for
def capture(model: nn.Module, shape: tuple[int, ...], *, fold: bool = True) -> fx.GraphModule:
    """A copy of the network in eval mode as a graph whose nodes know how to run. The model is left as it was.

    In every node's `meta`: `call`: a function of its arguments; `images`: whether its value depends on the images;
    `shape`: of one run with `PROBES[0]` images, None for what is no tensor; `where`: the axis of images, None where
    there is none; `leads`: whether it is the first; `size`: of what is no tensor, a function from the number of images.
    Where attention makes its heads: `heads` (`Heads`). Where a norm was folded into a convolution: `constant`, what
    the channels are when the convolution gives zero.

    That the graph computes what the network does, and each image by itself, is checked on random images.

    Args:
        shape: (C, H, W) of one image.
        fold: put norms into the convolutions before them; the outputs then differ by rounding.

    Raises:
        Untraceable: with the reason.
    """
    with fixed_rng(), torch.no_grad():
        network = copy_of(model)
        images = _probes(network, shape)
        expected = _logits(network, images[: PROBES[0]], shape)
        for module in network.modules():
            if hasattr(module, "inplace"):
                module.inplace = False  # type: ignore[assignment]
        try:
            traced = fx.GraphModule(network, ApartTracer().trace(network))
        except Exception as error:  # whatever tracing the network's own code raises
            raise Untraceable(f"torch.fx cannot follow {type(model).__name__}: {first_line(error)}") from error
        for node in list(traced.graph.nodes):
            _tidy(traced, node)
        if fold:
            _fold(traced)
        traced.graph.eliminate_dead_code()
        for node in traced.graph.nodes:
            node.meta["call"] = _call(traced, node)
        learn_sizes(traced, images, expected)
        _channels_last(traced)
    return traced


def _channels_last(network: nn.Module) -> None:
    """Lay out the weights of images so, which is faster; those of volumes stay as they are."""
    for weight in network.parameters():
        if weight.dim() == 4:
            weight.data = weight.data.contiguous(memory_format=torch.channels_last)


def copy_of(model: nn.Module) -> nn.Module:
    """A copy in eval mode that records no gradients.

    Raises:
        Untraceable: the network cannot be copied.
    """
    computed = {  # weights that torch.nn.utils.prune and kin keep beside the parameters they come from
        id(value): value.detach().clone()
        for module in model.modules() for value in vars(module).values()
        if isinstance(value, Tensor) and not value.is_leaf
    }  # fmt: skip
    try:
        return copy.deepcopy(model, computed).eval().requires_grad_(False)
    except Exception as error:  # whatever the network's own code raises
        raise Untraceable(f"{type(model).__name__} cannot be copied: {first_line(error)}") from error


def _probes(network: nn.Module, shape: tuple[int, ...]) -> Tensor:
    images = torch.randn(max(PROBES), *shape, generator=torch_generator(0, "capture"))
    return images.to(next(network.parameters(), torch.empty(0)))


def _logits(network: nn.Module, images: Tensor, shape: tuple[int, ...]) -> Tensor:
    try:
        return logits_of(network(images.clone()))
    except Exception as error:  # whatever the network's own code raises
        raise Untraceable(f"the network does not run on images of shape {shape}: {first_line(error)}") from error


def _tidy(traced: fx.GraphModule, node: fx.Node) -> None:
    if is_call_of(node, _IDENTITIES) and not parameter(node)._forward_hooks and not parameter(node)._forward_pre_hooks:
        node.replace_all_uses_with(node.all_input_nodes[0])
        traced.graph.erase_node(node)
        return
    node.target = _OUT_OF_PLACE.get(node.target, node.target)
    if node.op == "call_method" and node.target == "view" and not isinstance(node.args[-1], torch.dtype):
        node.target = "reshape"  # maps may be laid out otherwise here than in the network
    name = node.target if node.op == "call_method" else getattr(node.target, "__name__", "")
    if node.op in ("call_method", "call_function") and _writes(str(name)):
        node.target = _on_a_copy(node.op, str(name))
    if node.kwargs.get("inplace"):
        node.kwargs = {**node.kwargs, "inplace": False}


def _writes(name: str) -> bool:
    """By its name, as torch has it."""
    return name.endswith("_") and not name.endswith("__")


def _on_a_copy(op: str, name: str) -> Any:
    """What does the same without writing in place."""
    if op == "call_method" and hasattr(Tensor, name[:-1]):
        return name[:-1]
    for library in (F, torch) if op == "call_function" else ():
        if hasattr(library, name[:-1]):
            return getattr(library, name[:-1])
    raise Untraceable(f"{name} changes a tensor in place, and nothing does the same on a copy")


def _fold(traced: fx.GraphModule) -> None:
    calls = [str(node.target) for node in traced.graph.nodes if node.op == "call_module"]
    read = {str(node.target).rpartition(".")[0] for node in traced.graph.nodes if node.op == "get_attr"}
    for node in list(traced.graph.nodes):
        if not is_plain_call_of(node, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)):
            continue
        before, norm = node.args[0], cast(nn.BatchNorm2d, parameter(node))
        once = is_plain_call_of(before, CONVOLUTIONS) and len(before.users) == 1 and calls.count(before.target) == 1
        if not once or before.target in read or norm.running_mean is None or norm.running_var is None:
            continue
        parent, _, last = str(before.target).rpartition(".")
        setattr(traced.get_submodule(parent), last, fuse_conv_bn_eval(parameter(before), norm))  # type: ignore[type-var]
        before.meta["constant"] = affine(norm)[1]
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
