"""Which images cannot change their class, by first derivatives: the others must be run.

For all units of all layers at once, a handful of backward passes give how the logits would change if the network were
linear: minus gradient times content, summed over the channel's places at its gates. How far that is from the truth is
measured, for every unit, on worlds that are run, as a multiple of the same sum of absolute values; a world whose class
stays above every other by a multiple of the largest error seen is not run. That is a calibrated screen and no proof:
`Ablation` says how many worlds it let pass, and how many of a random sample of them, run afterwards, it had wrong.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, fx

from prunescope.engine.ablation.chunk import Chunk
from prunescope.engine.ablation.gap_errors import GapErrors
from prunescope.engine.ablation.replay import Stage

#: Classes whose logits are followed: the largest of the whole network, among them always the true class.
FOLLOWED = 10
#: Images that are run in full before anything is screened.
CALIBRATION = 32


@dataclass(frozen=True, eq=False)
class Guess:
    """First-order answers in n worlds.

    Attributes:
        first: (n,) logit of the class that is the largest in the whole network.
        gaps: (n, followed) by how much it is above each other followed class, and above all that are not followed.
        sizes: (n, followed) of each gap: the sum over places of absolute contributions, and the unit's mean of it.
    """

    first: Tensor
    gaps: Tensor
    sizes: Tensor

    def some(self, kept: Tensor) -> Guess:
        """Those at these indices."""
        return Guess(self.first[kept], self.gaps[kept], self.sizes[kept])


class LinearScreen:
    """First-order changes of logits.

    Attributes:
        images: how many were looked at before this chunk.
        passed: how many worlds were not run.
    """

    def __init__(self, stage: Stage) -> None:
        self.stage, self.errors = stage, GapErrors(stage.channels)
        self.images = self.passed = 0

    @property
    def missing(self) -> int:
        """How many more images are to be run in full."""
        return max(0, CALIBRATION - self.images)

    @torch.inference_mode(False)
    @torch.enable_grad()
    def look_at(self, chunk: Chunk, labels: Tensor) -> None:
        """Differentiate in the stage's precision; what the guesses start from are the chunk's logits in float32."""
        exact = chunk.logits.clone()  # of inference mode
        self.classes = _followed(exact, labels)
        rest = exact.scatter(1, self.classes, -torch.inf)
        self.before, self.rest, self.others = exact.gather(1, self.classes), rest.amax(1), rest.logsumexp(1)
        precision = next(self.stage.traced.parameters()).dtype
        values = self.stage.run(chunk.images.to(precision, copy=True).requires_grad_())
        followed = self.stage.logits(values).float().gather(1, self.classes)
        gates = {reading.gate for found in self.stage.readings.values() for reading in found}
        nodes = [node for node in values if node in gates and values[node].requires_grad]
        wanted = [followed[:, 0], *(followed[:, 0] - followed[:, k] for k in range(1, followed.shape[1]))]
        found: dict[fx.Node, list[tuple[Tensor, Tensor]]] = {node: [] for node in nodes}
        for number in wanted:
            given = [values[node] for node in nodes]
            slopes = torch.autograd.grad(number.sum(), given, retain_graph=True, materialize_grads=True)
            for node, slope in zip(nodes, slopes, strict=True):
                product = slope * values[node].detach()
                axis = node.meta["axis"]
                found[node].append((-_per_channel(product, axis), _per_channel(product.abs_(), axis)))
        #: {gate: changes of the first logit and the gaps, (images, channels, followed)}, and their sizes.
        self.changes, self.sizes = (
            {node: torch.stack([part[which] for part in parts], -1) for node, parts in found.items()}
            for which in (0, 1)
        )  # fmt: skip

    def guess(self, layer: str, channels: Tensor) -> Guess:
        """Of every image without every one of the channels, channel by channel."""
        change = self.before.new_zeros(len(channels), *self.before.shape)
        size = torch.zeros_like(change)
        for reading in self.stage.readings[layer]:
            if reading.gate in self.changes:
                here = reading.index(channels)  # (channels, numbers of each)
                change += self.changes[reading.gate][:, here].sum(2).transpose(0, 1)
                size += self.sizes[reading.gate][:, here].sum(2).transpose(0, 1)
        first = self.before[:, 0] + change[..., 0]
        gaps = self.before[:, :1] - self.before[:, 1:] + change[..., 1:]
        gaps = torch.cat([gaps, (first - self.rest)[..., None]], -1)
        size += size.mean(1, keepdim=True) + 1e-6
        return Guess(first.flatten(), gaps.flatten(0, 1), size.roll(-1, 2).flatten(0, 1))

    def certain(self, layer: str, channel: Tensor, guess: Guess) -> Tensor:
        """Worlds (n,) in which the class of the whole network stays for sure."""
        return (guess.gaps > self.errors.tolerance(layer, channel)[:, None] * guess.sizes).all(1)

    def learn(self, layer: str, channel: Tensor, image: Tensor, guess: Guess, logits: Tensor) -> None:
        """Take note of worlds that were run: guesses beside the true logits (n, classes)."""
        classes = self.classes[image]
        rest = logits.scatter(1, classes, -torch.inf).amax(1)
        true = logits.gather(1, classes)
        gaps = torch.cat([true[:, :1] - true[:, 1:], (true[:, 0] - rest)[:, None]], 1)
        error = torch.where(gaps.isfinite(), gaps - guess.gaps, 0).abs()
        self.errors.learn(layer, channel, error, guess.sizes)

    def log_probability(self, guess: Guess, y: Tensor) -> Tensor:
        """First-order log-probability of the true classes, channel by channel; what is not followed keeps its logit."""
        images = len(self.before)
        first = guess.first.view(-1, images, 1)
        logits = torch.cat([first, first - guess.gaps[:, :-1].view(len(first), images, -1)], -1)
        true = logits.masked_fill(self.classes != y[:, None], 0).sum(-1)
        return true - torch.logaddexp(logits.logsumexp(-1), self.others)


def _followed(logits: Tensor, labels: Tensor) -> Tensor:
    """(images, up to `FOLLOWED`) classes, the largest first; the last is the true class where it is not among them."""
    classes = logits.topk(min(FOLLOWED, logits.shape[1]), dim=1).indices
    missing = (classes != labels[:, None]).all(1)
    classes[:, -1] = torch.where(missing, labels, classes[:, -1])
    return classes


def _per_channel(product: Tensor, axis: int) -> Tensor:
    """Sums over all places: (images, channels)."""
    if product.dim() == 2:
        return product.float()
    axes = tuple(range(2, product.dim())) if axis == 1 else tuple(range(1, product.dim() - 1))
    return product.sum(axes, dtype=torch.float32)
