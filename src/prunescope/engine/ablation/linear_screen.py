"""Which images cannot change their class, by the first derivative: the rest must be run.

For all units of all layers at once, a handful of backward passes give how the logits would change if the network were
linear: minus gradient times content, summed over the channel's places at its gates. How far that is from the truth is
measured, for every unit, on worlds that are run; an image whose class stays the largest by a multiple of the largest
error seen is not run. That is a calibrated screen and no proof: `Ablation` says how many worlds it let pass, and how
many of a random sample of them, run afterwards, it had wrong.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, fx

from prunescope.engine.ablation.chunk import Chunk
from prunescope.engine.ablation.replay import Stage

#: Classes whose logits are followed: the largest of the whole network, among them always the true class.
FOLLOWED = 10
#: A gap is trusted when it is larger than so many times the unit's largest error and the layer's root mean square.
SAFETY = 3.0
#: Images that are run in full before anything is screened.
CALIBRATION = 48


class LinearScreen:
    """First-order changes of logits, and how far they were off.

    Attributes:
        worst: {layer: (channels,) largest error of a gap seen}.
        passed: how many worlds were not run.
        surprises: worlds that were run and were off by more than the tolerance that would have held for them.
    """

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.worst = {layer: torch.zeros(count) for layer, count in stage.channels.items()}
        self.squares = dict.fromkeys(stage.channels, 0.0)
        self.seen = dict.fromkeys(stage.channels, 0)
        self.images = self.passed = self.surprises = 0

    @property
    def ready(self) -> bool:
        """Whether enough images were run in full."""
        return self.images >= CALIBRATION

    @torch.inference_mode(False)
    @torch.enable_grad()
    def look_at(self, chunk: Chunk, labels: Tensor) -> None:
        """Differentiate; `chunk` is of the stage's own precision, float32."""
        images = chunk.images.clone().requires_grad_()
        values = self.stage.run(images)
        gates = {reading.gate for found in self.stage.readings.values() for reading in found}
        nodes = [node for node in values if node in gates and values[node].requires_grad]
        logits = self.stage.logits(values)
        self.classes = _followed(logits.detach(), labels)
        self.before = logits.detach().gather(1, self.classes)
        unfollowed = logits.detach().scatter(1, self.classes, -torch.inf)
        self.rest, self.others = unfollowed.amax(1), unfollowed.logsumexp(1)
        totals: dict[fx.Node, list[Tensor]] = {node: [] for node in nodes}
        for k in range(self.classes.shape[1]):
            wanted = logits.gather(1, self.classes[:, k : k + 1]).sum()
            slopes = torch.autograd.grad(wanted, [values[n] for n in nodes], retain_graph=True, materialize_grads=True)
            for node, slope in zip(nodes, slopes, strict=True):
                totals[node].append(_per_channel(slope * values[node].detach(), node.meta["axis"]))
        self.changes: Mapping[fx.Node, Tensor] = {node: -torch.stack(found, -1) for node, found in totals.items()}

    def logits(self, layer: str, channels: Tensor) -> Tensor:
        """First-order logits (channels, images, followed classes)."""
        out = self.before.expand(len(channels), *self.before.shape).clone()
        for reading in self.stage.readings[layer]:
            if reading.gate in self.changes:
                out += self.changes[reading.gate][:, channels + reading.offset].transpose(0, 1)
        return out

    def gaps(self, predicted: Tensor) -> Tensor:
        """How far the largest class of the whole network is above each other followed one, and above all others."""
        first = predicted[..., :1]
        beside = [first - predicted[..., 1:]]
        if bool(self.rest.isfinite().all()):
            beside.append(first - self.rest[:, None])
        return torch.cat(beside, -1)

    def log_probability(self, predicted: Tensor, y: Tensor) -> Tensor:
        """First-order log-probability of the true classes; classes that are not followed keep their logits."""
        true = predicted.masked_fill(self.classes != y[:, None], 0).sum(-1)
        return true - torch.logaddexp(predicted.logsumexp(-1), self.others)

    def certain(self, layer: str, channels: Tensor, predicted: Tensor) -> Tensor:
        """Worlds (channels, images) in which the class of the whole network stays for sure."""
        return self.gaps(predicted).amin(-1) > self._tolerance(layer, channels)[:, None]

    def learn(self, layer: str, channel: Tensor, image: Tensor, predicted: Tensor, logits: Tensor) -> None:
        """Take note of worlds that were run: first-order logits (n, followed) beside the true ones (n, classes)."""
        true = logits.gather(1, self.classes[image])
        error = (true[:, :1] - true[:, 1:]) - (predicted[:, :1] - predicted[:, 1:])
        rest = logits.scatter(1, self.classes[image], -torch.inf).amax(1)
        if bool(rest.isfinite().all()):
            beyond = (true[:, 0] - rest) - (predicted[:, 0] - self.rest[image])
            error = torch.cat([error, beyond[:, None]], 1)
        error = error.abs().amax(1)
        if self.ready and self.seen[layer]:
            self.surprises += int((error > self._tolerance(layer, channel)).sum())
        self.worst[layer].scatter_reduce_(0, channel, error, "amax")
        self.squares[layer] += float(error.square().sum())
        self.seen[layer] += len(error)

    def _tolerance(self, layer: str, channels: Tensor) -> Tensor:
        typical = (self.squares[layer] / max(self.seen[layer], 1)) ** 0.5
        return SAFETY * (self.worst[layer][channels] + typical)


def _followed(logits: Tensor, labels: Tensor) -> Tensor:
    """(images, up to `FOLLOWED`) classes, the largest first; the last is the true class where it is not among them."""
    classes = logits.topk(min(FOLLOWED, logits.shape[1]), dim=1).indices
    missing = (classes != labels[:, None]).all(1) & (labels >= 0)
    classes[:, -1] = torch.where(missing, labels, classes[:, -1])
    return classes


def _per_channel(product: Tensor, axis: int) -> Tensor:
    """Sums over all places: (images, channels)."""
    if product.dim() == 2:
        return product
    return product.flatten(2).sum(2) if axis == 1 else product.flatten(1, -2).sum(1)
