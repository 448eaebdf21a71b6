"""Deciding what a network says where something else than zeros takes a unit's place."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from prunescope.core.errors import PrunescopeError, PrunescopeWarning
from prunescope.data.split import Split
from prunescope.engine.ablation.chunk import Chunk
from prunescope.engine.ablation.deciders import Exact, named, near_a_tie
from prunescope.engine.ablation.means import channel_means
from prunescope.engine.ablation.removal import Borrowed, Kind, Removal, Resample, Weights
from prunescope.engine.ablation.replay import Stage
from prunescope.engine.ablation.scene import Unfollowed
from prunescope.engine.ablation.worlds import Worlds


class Replacing(Exact):
    """As `Exact`, with a unit's mean, what it holds on another image, or zero weights in its place.

    Means are over all images of the split and all places, in the network without what is gone. Every image borrows from
    one other image of the split, the same for all units, by a random cycle (`Resample.seeded`): how images are batched
    changes nothing. What is gone in all worlds is zero whatever the removal.

    Raises:
        PrunescopeError: resampling with fewer than two images.
    """

    def __init__(self, model: nn.Module, split: Split, removal: Kind, *, seed: int, device: torch.device | str) -> None:
        super().__init__(model, split.shape)
        self.split, self.kind, self.device = split, removal, device
        self.partner = Resample.seeded(len(split), seed).partner if removal == "resample" else None
        self.batch_size = 64
        self.removals: dict[Stage, Removal] = {}
        self.others = torch.empty(0)

    def begin(self, gone: Mapping[str, Tensor]) -> None:
        """Start counting anew, without these channels; takes the means."""
        super().begin(gone)
        self.chunk = None  # of another run; the means need the room
        for stage in (self.stage, self.plain):
            if self.kind == "mean":
                self.removals[stage] = channel_means(stage, self._batches())
            elif self.kind == "weights":
                self.removals[stage] = Weights()

    def _batches(self) -> Iterator[Tensor]:
        return (x for _, x, _ in self.split.batches(self.batch_size, self.device))

    def look_at_images(self, index: Tensor, images: Tensor) -> Chunk:
        """Go on to these images of the split (n,)."""
        if self.partner is not None:
            ((_, self.others, _),) = self.split.subset(self.partner[index.cpu()]).batches(len(index), self.device)
            self.removals[self.stage] = _borrowed(self.stage, self.others)
        return self.look_at(images)

    def decide(self, layer: str, channel: Tensor, image: Tensor | None = None) -> Tensor:
        """Logits (n, classes) of every world, as `Exact.decide`."""
        assert self.chunk is not None
        every, images = named(channel, image, len(self.chunk))
        logits = self._replayed(layer, channel, image)
        if logits is None:
            logits = self.chunk.logits[images]
            near = torch.arange(len(every), device=every.device)
        else:
            near = near_a_tie(logits, self.chunk.logits)
        self.redone += len(near)
        for at in near.split(64) if len(near) else ():
            logits[at] = self._full(layer, every[at], images[at]).float()
        return logits

    def _replayed(self, layer: str, channel: Tensor, image: Tensor | None) -> Tensor | None:
        """Of the replays; None where the layer cannot be replayed."""
        assert self.chunk is not None
        removal, chunk = self.removals[self.stage], self.chunk
        try:
            found = [
                self.stage.replay(layer, worlds, chunk.base, chunk.rests, removal)[:count].float()
                for count, worlds in (chunk.tiles(self.stage, layer, channel, image) if layer not in self.slow else ())
            ]
        except Unfollowed as reason:
            self.slow.add(layer)
            text = f"layer {layer!r} is taken out by full forward passes, which is slow: {reason}"
            warnings.warn(text, PrunescopeWarning, stacklevel=2)
        if layer in self.slow:
            return None
        return torch.cat(found) if found else chunk.logits[:0]

    def _full(self, layer: str, channel: Tensor, image: Tensor) -> Tensor:
        """Full forward passes of the unfolded network, each image (n,) without its own channel (n,)."""
        assert self.chunk is not None
        stage, images = self.plain, self.chunk.images[image]
        removal = _borrowed(stage, self.others[image]) if self.partner is not None else self.removals[stage]
        worlds = Worlds.pairs(channel, torch.arange(len(images), device=images.device), len(images))
        try:
            return stage.logits(stage.run(images, stage.without(layer, worlds, removal)))
        except Unfollowed as reason:
            raise PrunescopeError(f"what layer {layer!r} gives cannot be told apart by image: {reason}") from None


def _borrowed(stage: Stage, images: Tensor) -> Borrowed:
    """What all gates let through of other images."""
    values = stage.run(images)
    gates = {reading.gate for found in stage.readings.values() for reading in found}
    return Borrowed({node.name: values[node].movedim(node.meta["where"] or 0, 0) for node in gates})
