"""Ablations of networks that torch.fx cannot follow: full forward passes with hooks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from prunescope.core.errors import PrunescopeError, choices
from prunescope.engine.ablation.capture import copy_of
from prunescope.engine.ablation.worlds import Worlds
from prunescope.engine.sweep import logits_of
from prunescope.engine.untouched import fixed_rng
from prunescope.models.graph import FIXED, channel_graph
from prunescope.models.layers import CONVOLUTIONS


class HookedNetwork:
    """A copy of a network in which units are zero at the input of every layer that reads them.

    A unit is what `models.graph` knows as one: channels that meet in a sum, or pass through a grouped convolution, go
    together, wherever they come from. So in a residual network this takes out more than `Stage` does, which only takes
    the share of one layer out of the sum; where no channels are coupled, both are the same up to rounding. Channels
    that the graph holds for fixed are none of the units here, and neither are attention heads.

    Attributes:
        units: {layer: (channels,) the unit of each of its outputs, `FIXED` where it cannot be taken out}.
    """

    def __init__(self, model: nn.Module, shape: tuple[int, ...]) -> None:
        """
        Args:
            shape: (C, H, W) of one image.

        Raises:
            PrunescopeError: the network cannot be copied, or does not run on images of this shape.
        """
        self.network = copy_of(model)
        graph = channel_graph(self.network, shape)
        layers = [
            (name, module) for name, module in self.network.named_modules()
            if isinstance(module, (*CONVOLUTIONS, nn.Linear))
        ]  # fmt: skip
        names = {id(parameter): name for name, parameter in self.network.named_parameters()}
        axes = {name: graph.axes.get(names.get(id(module.weight), ""), {}) for name, module in layers}
        self.units: Mapping[str, Tensor] = {
            name: found[0] for name, found in axes.items() if 0 in found and bool((found[0] != FIXED).any())
        }
        self._reads = {name: found[1] for name, found in axes.items() if 1 in found}
        self._closed: dict[str, Tensor] = {}

    @property
    def channels(self) -> dict[str, int]:
        """{layer: how many outputs}, of all layers with a unit."""
        return {name: len(units) for name, units in self.units.items()}

    def whole_layers(self, images: Tensor) -> dict[str, int]:
        """{layer: how many outputs}, of the layers all of whose outputs can be taken out: they are units, and every
        layer that reads one is called on the way from images (n, C, H, W) to the logits."""
        with self._zeroed(dict.fromkeys(self._reads, torch.empty(0, dtype=torch.int64))) as fired:
            self._run(images)
        missed = [units for name, units in self._reads.items() if name not in fired]
        heard = torch.cat([torch.empty(0, dtype=torch.int64), *(self._reads[name] for name in sorted(fired))])
        unheard = torch.cat([torch.tensor([FIXED]), *missed])
        whole = {
            name: torch.isin(units, heard) & ~torch.isin(units, unheard.to(units.device))
            for name, units in self.units.items()
        }
        return {name: len(units) for name, units in self.units.items() if bool(whole[name].all())}

    def close(self, gone: Mapping[str, Tensor]) -> None:
        """From now on the units of these channels are gone in every world, and in the whole network."""
        units = [self.units[layer][channels] for layer, channels in gone.items()]
        closed = torch.cat([torch.empty(0, dtype=torch.int64), *units])
        self._closed = self._at(closed)

    def logits(self, images: Tensor) -> Tensor:
        """Logits (n, classes) of the whole network (without what is closed) for images (n, C, H, W)."""
        with self._zeroed(self._closed):
            return self._run(images)

    def _run(self, images: Tensor) -> Tensor:
        with torch.no_grad(), fixed_rng():
            return logits_of(self.network(images))

    def _at(self, units: Tensor) -> dict[str, Tensor]:
        """{layer: which of its inputs are one of these units}."""
        at = {name: torch.isin(read, units.to(read.device)).nonzero().squeeze(1) for name, read in self._reads.items()}
        return {name: index for name, index in at.items() if len(index)}

    def replay(self, layer: str, worlds: Worlds, images: Tensor) -> Tensor:
        """Logits (n, classes) of every world: an image without the unit of one channel of the layer.

        Args:
            images: (images, C, H, W) of the chunk.

        Raises:
            PrunescopeError: an unknown layer; a channel that is no unit; one that is read by other means than layers.
        """
        if layer not in self.units:
            raise choices("layer with units", layer, self.units)
        found = [self._without(layer, channel, images[worlds.image[a:b]]) for channel, a, b in worlds.runs]
        return torch.cat(found) if found else self.logits(images)[:0]

    def _without(self, layer: str, channel: int, images: Tensor) -> Tensor:
        unit = self.units[layer][channel]
        if int(unit) == FIXED:
            raise PrunescopeError(
                f"channel {channel} of {layer} is no unit: something reads it that cannot be followed"
            )
        at = self._at(unit[None])
        if not at:
            raise PrunescopeError(f"no layer reads channel {channel} of {layer}, so it cannot be taken out")
        parts = (at, self._closed)
        both = {name: torch.cat([part[name] for part in parts if name in part]) for name in at | self._closed}
        with self._zeroed(both) as fired:
            said = self._run(images)
        if missing := sorted(at.keys() - fired):
            raise PrunescopeError(f"{missing[0]} reads channel {channel} of {layer}, but its module is not called")
        return said

    @contextmanager
    def _zeroed(self, at: Mapping[str, Tensor]) -> Iterator[set[str]]:
        """Zeros at these inputs of these layers; yields the layers that were called."""
        fired: set[str] = set()

        def hook(name: str) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...]]:
            def zeroed(module: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
                fired.add(name)
                axis = -1 if isinstance(module, nn.Linear) else 1
                return (given[0].index_fill(axis, at[name].to(given[0].device), 0), *given[1:])

            return zeroed

        handles = [self.network.get_submodule(name).register_forward_pre_hook(hook(name)) for name in at]
        try:
            yield fired
        finally:
            for handle in handles:
                handle.remove()
