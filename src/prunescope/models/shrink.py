"""Physical removal: a masked network becomes a smaller dense one with the same outputs."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from prunescope.core.errors import PrunescopeError
from prunescope.models.few_heads import FewHeads
from prunescope.models.graph import FIXED, ChannelGraph, channel_graph
from prunescope.models.layers import CONVOLUTIONS, evaluating, replace_module
from prunescope.models.zoo import seeded

#: Largest difference of outputs, relative to the largest output, that rounding may cause.
TOLERANCE = 1e-4
_NORMS = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)


@dataclass(frozen=True, eq=False)
class Shrunk:
    """A smaller network and what became of the old one.

    Attributes:
        network: a copy without the units that nothing reads; the old network is as it was.
        sizes: {module: {attribute: value}} of the modules that are smaller, enough for `resize` to rebuild it.
        units, removed: how many channels, neurons and heads there were, and how many are gone.
        difference: largest difference of the outputs on a test image, relative to the largest output.
    """

    network: nn.Module
    sizes: Mapping[str, Mapping[str, int]]
    units: int
    removed: int
    difference: float


def shrink(model: nn.Module, shape: tuple[int, ...], images: Tensor | None = None) -> Shrunk:
    """A copy of the network without the channels, neurons and heads that nothing reads any more.

    What is read is seen from the weights: zero columns do not read. A unit goes with everything that made it; what only
    it had read goes as well, and so on, so also an unstructured mask shrinks a network once whole channels are idle. A
    filter whose weights are zero but whose norm or bias makes it a constant is still read, and stays: the granularity
    `channel` cuts the readers too. Each layer keeps at least one unit.

    Args:
        shape: (C, H, W) of one image.
        images: normalised images to compare the outputs on, (B, C, H, W); noise otherwise.

    Raises:
        PrunescopeError: the network's own code counts channels and does not run without them, or its outputs differ.
    """
    graph = channel_graph(model, shape)
    alive = needed(model, graph)
    small = copy.deepcopy(model)
    sizes = _remove(small, graph, alive)
    if images is None:
        images = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    return Shrunk(small, sizes, graph.units, int((~alive).sum()), _difference(model, small, images))


def needed(model: nn.Module, graph: ChannelGraph) -> Tensor:
    """Bool per unit: whether a weight that is not zero reads it, on a way to the output."""
    readers = [
        (axes.get(0), axes[1], (weight.detach() != 0).cpu().reshape(*weight.shape[:2], -1).any(2))
        for name, weight in model.named_parameters()
        if 1 in (axes := graph.axes.get(name, {}))
    ]
    alive = torch.ones(graph.units, dtype=torch.bool)
    while True:
        read, padded = torch.zeros(graph.units + 1, dtype=torch.bool), torch.cat([alive, alive.new_ones(1)])
        for rows, columns, nonzero in readers:
            live = nonzero if rows is None else nonzero & padded[rows][:, None]
            read[columns[live.any(0)]] = True  # FIXED marks the last, which is no unit
        left = alive & read[:-1]
        if torch.equal(left, alive):
            return _one_each(graph, alive)
        alive = left


def _one_each(graph: ChannelGraph, alive: Tensor) -> Tensor:
    """The first unit of every layer that would be left without outputs stays: zero channels are no layer."""
    alive = alive.clone()
    for name in graph.makers:
        units = graph.axes[name][0]
        if not bool(((units == FIXED) | alive[units]).any()):
            alive[units[0]] = True
    return alive


def _remove(model: nn.Module, graph: ChannelGraph, alive: Tensor) -> dict[str, dict[str, int]]:
    """Cut every module in place; {module: its new sizes}."""
    padded = torch.cat([alive, alive.new_ones(1)])
    gone: dict[str, dict[str, dict[int, Tensor]]] = {}
    for name, axes in graph.axes.items():
        module, _, part = name.rpartition(".")
        found = {axis: (~padded[units]).nonzero().flatten() for axis, units in axes.items()}
        if any(len(idle) for idle in found.values()):
            gone.setdefault(module, {})[part] = found
    # The output projection of attention is a module of its own; it is cut with the attention.
    inside = {f"{name}.out_proj" for name, module in model.named_modules() if isinstance(module, nn.MultiheadAttention)}
    return {name: _cut_module(model, name, parts) for name, parts in gone.items() if name not in inside}


def _cut_module(model: nn.Module, name: str, parts: Mapping[str, Mapping[int, Tensor]]) -> dict[str, int]:
    import torch_pruning as tp

    module = model.get_submodule(name)
    outputs, inputs = (parts.get("weight", {}).get(axis, torch.zeros(0)).tolist() for axis in (0, 1))
    if isinstance(module, nn.MultiheadAttention):
        size = module.head_dim
        idle = (parts["in_proj_weight"][0][::size] // size).unique()
        idle = idle[idle < module.num_heads]
        kept = [head for head in range(module.num_heads) if head not in idle.tolist()]
        few = FewHeads.of(module, kept)
        replace_module(model, name, few)
        return {"num_heads": few.num_heads}
    if isinstance(module, CONVOLUTIONS) and module.groups > 1:
        _cut_groups(module, outputs)
        return {key: int(getattr(module, key)) for key in ("in_channels", "out_channels", "groups")}
    if isinstance(module, CONVOLUTIONS):
        if outputs:
            tp.prune_conv_out_channels(module, outputs)
        if inputs:
            tp.prune_conv_in_channels(module, inputs)
        return {"in_channels": module.in_channels, "out_channels": module.out_channels}
    if isinstance(module, nn.Linear):
        if outputs:
            tp.prune_linear_out_channels(module, outputs)
        if inputs:
            tp.prune_linear_in_channels(module, inputs)
        return {"in_features": module.in_features, "out_features": module.out_features}
    if isinstance(module, _NORMS):
        idle_channels = next(iter(parts.values()))[0].tolist()
        tp.prune_batchnorm_out_channels(module, idle_channels)
        return {"num_features": int(module.num_features)}
    if isinstance(module, nn.PReLU):
        tp.prune_prelu_out_channels(module, outputs)
        return {"num_parameters": module.num_parameters}
    raise PrunescopeError(f"{name or type(model).__name__}: {type(module).__name__} cannot be made smaller")


def _cut_groups(conv: Any, outputs: list[int]) -> None:
    """Whole groups leave a grouped or depthwise convolution, with their inputs."""
    keep = torch.tensor([o for o in range(conv.out_channels) if o not in set(outputs)], dtype=torch.int64)
    per_group, width = conv.out_channels // conv.groups, conv.in_channels // conv.groups
    conv.weight = nn.Parameter(conv.weight.detach()[keep].clone(), requires_grad=conv.weight.requires_grad)
    if conv.bias is not None:
        conv.bias = nn.Parameter(conv.bias.detach()[keep].clone(), requires_grad=conv.bias.requires_grad)
    conv.groups = len(keep) // per_group
    conv.in_channels, conv.out_channels = conv.groups * width, len(keep)


def resize(model: nn.Module, sizes: Mapping[str, Mapping[str, int]]) -> nn.Module:
    """Give the modules of a newly built network the sizes of a shrunk one, in place; its weights are to be loaded then.

    Raises:
        PrunescopeError: the network has not these modules, or sizes do not suit them.
    """
    modules = dict(model.named_modules())
    for name, wanted in sizes.items():
        module = modules.get(name)
        if module is None:
            raise PrunescopeError(f"the network has no module {name!r}: it is not the one that was shrunk")
        for key, value in wanted.items():
            most = getattr(module, key, None)
            if not isinstance(value, int) or not isinstance(most, int) or not 0 < value <= most:
                raise PrunescopeError(f"{name}.{key}: expected a number from 1 to {most}, got {value!r}")
        if isinstance(module, nn.MultiheadAttention):
            replace_module(model, name, FewHeads.of(module, range(wanted.get("num_heads", module.num_heads))))
            continue
        for key, value in wanted.items():
            setattr(module, key, value)
        for part, tensor in _sized(module):
            _replace(module, part, tensor)
    return model


def _sized(module: Any) -> list[tuple[str, Tensor]]:
    """Empty tensors in the shapes that a module's attributes ask for."""
    if isinstance(module, CONVOLUTIONS):
        weight = (module.out_channels, module.in_channels // module.groups, *module.kernel_size)
        shapes = {"weight": weight, "bias": weight[:1]}
    elif isinstance(module, nn.Linear):
        shapes = {"weight": (module.out_features, module.in_features), "bias": (module.out_features,)}
    else:
        size = (module.num_parameters if isinstance(module, nn.PReLU) else module.num_features,)
        shapes = dict.fromkeys(("weight", "bias", "running_mean", "running_var"), size)
    return [(part, torch.zeros(shape)) for part, shape in shapes.items() if getattr(module, part, None) is not None]


def _replace(module: nn.Module, part: str, tensor: Tensor) -> None:
    old = getattr(module, part)
    if isinstance(old, nn.Parameter):
        setattr(module, part, nn.Parameter(tensor.to(old), requires_grad=old.requires_grad))
    else:
        module.register_buffer(part, tensor.to(old))


@torch.no_grad()
def _difference(model: nn.Module, small: nn.Module, images: Tensor) -> float:
    device = next(model.parameters()).device
    with evaluating(model), evaluating(small), seeded(0):
        expected = model(images.to(device))
        try:
            found = small(images.to(device))
        except Exception as error:  # the network's own code, which counts on sizes that are gone
            raise PrunescopeError(
                f"{type(model).__name__} does not run without the channels that went: {type(error).__name__}: "
                f"{str(error).splitlines()[0]}"
            ) from error
    if not isinstance(expected, Tensor):
        expected, found = expected[0], found[0]
    worst = float((expected - found).abs().max() / expected.abs().max().clamp_min(1e-12))
    if not worst <= TOLERANCE:
        raise PrunescopeError(
            f"{type(model).__name__} gives other outputs without the channels that went: they differ by {worst:.1e} of "
            "the largest; this is a mistake in how its channels were followed: please report it"
        )
    return worst
