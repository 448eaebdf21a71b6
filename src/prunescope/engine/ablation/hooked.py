"""Deciding what a network says without units where torch.fx cannot follow it: full forward passes with hooks."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from prunescope.core.errors import PrunescopeError, PrunescopeWarning
from prunescope.data.split import Split
from prunescope.engine.ablation.answers import Effort
from prunescope.engine.ablation.chunk import Chunk
from prunescope.engine.ablation.deciders import Exact
from prunescope.engine.ablation.nodes import Untraceable
from prunescope.engine.ablation.replacing import Replacing
from prunescope.engine.ablation.slow import HookedNetwork
from prunescope.engine.ablation.worlds import Worlds
from prunescope.engine.memory import peak_memory


class Hooked:
    """As `Exact`, by a full forward pass for every unit and image. Channels that meet in a sum go together.

    Attributes:
        channels: {layer: how many units}, of layers all of whose channels can be taken out.
        redone: how many worlds were decided: all of them by a full pass.
    """

    def __init__(self, model: nn.Module, shape: tuple[int, ...]) -> None:
        self.network, self.shape = HookedNetwork(model, shape), shape
        self.channels: Mapping[str, int] = self.network.whole_layers(self._image(model))
        self.redone = 0
        self.chunk: Chunk | None = None

    def begin(self, gone: Mapping[str, Tensor]) -> None:
        """Start counting anew, without these channels."""
        self.redone = 0
        self.network.close(gone)

    def look_at(self, images: Tensor) -> Chunk:
        """Go on to other images."""
        self.chunk = Chunk(images, {}, self.network.logits(images).float())
        return self.chunk

    def begin_layer(self) -> None:
        """Nothing is shared between worlds."""

    def decide(self, layer: str, channel: Tensor, image: Tensor | None = None) -> Tensor:
        """Logits (n, classes) of every world, as `Exact.decide`."""
        assert self.chunk is not None
        count = len(self.chunk)
        worlds = Worlds.grid(channel, count) if image is None else Worlds.pairs(channel, image, count)
        self.redone += worlds.count
        return self.network.replay(layer, worlds, self.chunk.images).float()

    def bytes_per_image(self) -> int:
        """What is alive at once in a forward pass of one image, weights aside."""
        network, image = self.network.network, self._image(self.network.network)
        weights = {p.untyped_storage()._cdata: p.untyped_storage().nbytes() for p in network.parameters()}
        return 2 * max(1, peak_memory(network, image) - sum(weights.values()))  # inputs are copied before zeros go in

    def _image(self, model: nn.Module) -> Tensor:
        like = next(model.parameters(), torch.empty(0))
        return torch.zeros(1, *self.shape, dtype=like.dtype, device=like.device)


def exact_decider(
    model: nn.Module, split: Split, effort: Effort, *, seed: int, device: torch.device | str
) -> Exact | Hooked:  # fmt: skip
    """What decides exactly: on the captured network, or by hooks where it cannot be captured.

    Raises:
        Untraceable: torch.fx cannot follow the network, and hooks cannot either, or are not asked for.
    """
    try:
        if effort.removal == "zero":
            return Exact(model, split.shape)
        return Replacing(model, split, effort.removal, seed=seed, device=device)
    except Untraceable as reason:
        if not effort.hooks:
            raise
        return _by_hooks(model, split, effort, reason)


def _by_hooks(model: nn.Module, split: Split, effort: Effort, reason: Untraceable) -> Hooked:
    if effort.removal != "zero":
        text = f"{reason}; by hooks a unit can only be made zero, not removed by {effort.removal!r}"
        raise Untraceable(text) from reason
    try:
        found = Hooked(model, split.shape)
    except PrunescopeError as second:
        raise Untraceable(f"{reason}; hooks cannot take units out either: {second}") from second
    warnings.warn(
        f"{reason}. So units are taken out by full forward passes with hooks, {sum(found.channels.values()):,} for "
        "each image if all are asked about; channels that meet in a sum go together; bf16 and screen are not used",
        PrunescopeWarning, stacklevel=4,
    )  # fmt: skip
    return found
