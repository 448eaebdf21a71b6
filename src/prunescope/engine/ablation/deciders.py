"""Who decides what a network says in a world: exactly, or in low precision where that is precise enough."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from prunescope.core.errors import PrunescopeError, PrunescopeWarning
from prunescope.core.seeds import torch_generator
from prunescope.engine.ablation.capture import capture
from prunescope.engine.ablation.chunk import Chunk
from prunescope.engine.ablation.nodes import first_line
from prunescope.engine.ablation.replay import Stage
from prunescope.engine.ablation.scene import Unfollowed
from prunescope.engine.ablation.silent import audible
from prunescope.engine.ablation.tail import widen_tail

#: Differences between logits that may be rounding, as a share of the largest logit of the whole network.
ROUNDING = 1e-4
#: Worlds a layer on which the error of low precision is measured, and by how much its largest is exceeded.
SAMPLE, SAFETY = 256, 1.5
#: Logits next to the largest: their errors are measured apart; those of all are larger where classes are many.
CONTENDERS = 5


def gap(logits: Tensor) -> Tensor:
    """Distance (n,) between the two largest logits."""
    best = logits.topk(2, dim=1).values
    return best[:, 0] - best[:, 1]


def near_a_tie(logits: Tensor, whole: Tensor) -> Tensor:
    """Rows (n,) of logits whose largest may be another one but for rounding; `whole`: logits of the whole network."""
    return (gap(logits) <= ROUNDING * whole.abs().amax()).nonzero().squeeze(1)


def errors_of_gaps(exact: Tensor, other: Tensor) -> Tensor:
    """How wrong, at most, the gap is between the largest of the other logits and (its contenders, any logit)."""
    best = other.topk(min(CONTENDERS + 1, other.shape[1]), dim=1).indices
    difference = exact - other
    wrong = (difference - difference.gather(1, best[:, :1])).abs()
    return torch.stack([wrong.gather(1, best).amax(), wrong.amax()])


def doubtful(logits: Tensor, tolerance: Tensor) -> Tensor:
    """Worlds (n,) in which errors up to the tolerance (of contenders, of any logit) could change the largest logit."""
    best = logits.topk(min(CONTENDERS + 2, logits.shape[1]), dim=1).values
    near = best[:, 0] - best[:, 1] <= tolerance[0]
    if best.shape[1] < CONTENDERS + 2:  # all are contenders
        return near
    return near | (best[:, 0] - best[:, -1] <= tolerance[1])


class Exact:
    """Float32 replays; what is within rounding of a tie is decided by a full forward pass of the unfolded network, what
    the whole network says included.

    A layer that cannot be replayed for many worlds at once is taken out by full forward passes, with a warning.

    Attributes:
        redone: how many worlds, and images in the whole network, were decided by a full pass.
        slow: layers that cannot be replayed.
    """

    def __init__(self, model: nn.Module, shape: tuple[int, ...]) -> None:
        traced = capture(model, shape)
        folded = any("constant" in node.meta for node in traced.graph.nodes)
        self.stage = Stage(traced)
        self.plain = Stage(capture(model, shape, fold=False)) if folded else self.stage
        self.redone = 0
        self.slow: set[str] = set()
        self.chunk: Chunk | None = None

    @property
    def channels(self) -> Mapping[str, int]:
        """{layer: how many units}."""
        return self.stage.channels

    def begin(self, gone: Mapping[str, Tensor]) -> None:
        """Start counting anew, without these channels."""
        self.redone = 0
        for stage in (self.stage, self.plain):
            stage.close(gone)

    def look_at(self, images: Tensor) -> Chunk:
        """Go on to other images."""
        self.chunk = None  # before the next one: two would take twice the memory
        self.chunk = chunk = Chunk.of(self.stage, images)
        self.settle(chunk.logits, chunk.images)
        return chunk

    def settle(self, logits: Tensor, images: Tensor) -> None:
        """Put full passes' logits where those of the whole network (n, classes) are within rounding of a tie."""
        near = near_a_tie(logits, logits)
        self.redone += len(near)
        if len(near):
            logits[near] = self.plain.logits(self.plain.run(images[near])).to(logits.dtype)

    def begin_layer(self) -> None:
        """Forget what worlds of another layer shared."""
        assert self.chunk is not None
        self.chunk.rests.clear()

    def decide(self, layer: str, channel: Tensor, image: Tensor | None = None) -> Tensor:
        """Logits (n, classes) of every world; their largest is that of a full forward pass.

        Args:
            channel: (n,) of every world, sorted; with `image` None: channels, each without every image.
        """
        assert self.chunk is not None
        run = self.audible(layer, channel, image)
        if run is None:
            return self._run(layer, channel, image)
        channel, image = named(channel, image, len(self.chunk))
        logits = self.chunk.logits[image]
        if len(run):
            logits[run] = self._run(layer, channel[run], image[run])
        return logits

    def audible(self, layer: str, channel: Tensor, image: Tensor | None) -> Tensor | None:
        """Which worlds are to be run, as indices: where the channel is not zero anyway; None: all."""
        assert self.chunk is not None
        return audible(self.stage, self.chunk, layer, channel, image)

    def _run(self, layer: str, channel: Tensor, image: Tensor | None) -> Tensor:
        assert self.chunk is not None
        try:
            logits = replayed(self.stage, self.chunk, layer, channel, image)
        except Unfollowed as reason:
            return self._slowly(layer, *named(channel, image, len(self.chunk)), reason)
        channel, image = named(channel, image, len(self.chunk))
        near = near_a_tie(logits, self.chunk.logits)
        self.redone += len(near)
        for at in near.split(64) if len(near) else ():
            logits[at] = self.plain.full(layer, channel[at], self.chunk.images[image[at]])
        return logits

    def _slowly(self, layer: str, channel: Tensor, image: Tensor, reason: Unfollowed) -> Tensor:
        assert self.chunk is not None
        if layer not in self.slow:
            self.slow.add(layer)
            text = f"layer {layer!r} is taken out by full forward passes, which is slow: {reason}"
            warnings.warn(text, PrunescopeWarning, stacklevel=2)
        self.redone += len(channel)
        parts = zip(channel.split(64), image.split(64), strict=True)
        try:
            return torch.cat([self.plain.full(layer, c, self.chunk.images[i]).float() for c, i in parts])
        except Unfollowed:
            raise PrunescopeError(f"what layer {layer!r} gives cannot be told apart by image: {reason}") from None


def replayed(stage: Stage, chunk: Chunk, layer: str, channel: Tensor, image: Tensor | None) -> Tensor:
    """Logits (n, classes), float32, of a stage's replays."""
    tiles = chunk.tiles(stage, layer, channel, image)
    found = [stage.replay(layer, worlds, chunk.base, chunk.rests)[:count].float() for count, worlds in tiles]
    return torch.cat(found) if found else chunk.logits[:0]


def named(channel: Tensor, image: Tensor | None, images: int) -> tuple[Tensor, Tensor]:
    """Channel and image of every world."""
    if image is not None:
        return channel, image
    return channel.repeat_interleave(images), torch.arange(images, device=channel.device).repeat(len(channel))


class LowPrecision:
    """bfloat16 replays; float32 ones where the two largest logits are nearer than the error that was measured.

    Of a logit only its change is taken in low precision, which is more exact: the whole network's own errors drop out.
    The error of a gap is measured on worlds of the first images, for each layer: of gaps to the next largest logits,
    and of gaps to any. `SAFETY` times the largest is the tolerance. Every world that is decided again is a further
    measurement, and may raise it.

    Attributes:
        screened: how many worlds were decided again.
        tolerance: {layer: (2,) gaps to contenders, and to any other logit, that are trusted}.
        surprises: how many of those decided again were wrong by more than the tolerance.
    """

    def __init__(self, exact: Exact, model: nn.Module, shape: tuple[int, ...]) -> None:
        traced = capture(model, shape).to(torch.bfloat16)
        widen_tail(traced)
        self.exact, self.stage = exact, Stage(traced)
        self.screened = self.surprises = 0
        self.tolerance: dict[str, Tensor] = {}

    @classmethod
    def of(cls, exact: Exact, model: nn.Module, shape: tuple[int, ...]) -> LowPrecision | None:
        """None, with a warning, where something in the network does not run in bfloat16 on its device."""
        found = cls(exact, model, shape)
        like = next(found.stage.traced.parameters())
        try:
            found.stage.run(torch.zeros(1, *shape, dtype=like.dtype, device=like.device))
        except RuntimeError as reason:  # NotImplementedError is one
            text = f"the network does not run in bfloat16, so float32 decides everything: {first_line(reason)}"
            warnings.warn(text, PrunescopeWarning, stacklevel=3)
            return None
        return found

    def begin(self, gone: Mapping[str, Tensor]) -> None:
        """Start counting and measuring anew, without these channels."""
        self.screened = self.surprises = 0
        self.tolerance = {}
        self.stage.close(gone)
        self.exact.begin(gone)

    def look_at(self, images: Tensor) -> Chunk:
        """Go on to other images; the values are those of float32."""
        self.chunk = Chunk.of(self.stage, images)
        return self.exact.look_at(images)

    def begin_layer(self) -> None:
        """Forget what worlds of another layer shared."""
        self.chunk.rests.clear()
        self.exact.begin_layer()

    def decide(self, layer: str, channel: Tensor, image: Tensor | None = None) -> Tensor:
        """Logits (n, classes) of every world, as `Exact.decide`."""
        if layer in self.exact.slow:
            return self.exact.decide(layer, channel, image)
        run = self.exact.audible(layer, channel, image)
        if run is None:
            return self._run(layer, channel, image)
        assert self.exact.chunk is not None
        channel, image = named(channel, image, len(self.chunk))
        logits = self.exact.chunk.logits[image]
        if len(run):
            logits[run] = self._run(layer, channel[run], image[run])
        return logits

    def _run(self, layer: str, channel: Tensor, image: Tensor | None) -> Tensor:
        if layer not in self.tolerance:
            try:
                self._measure(layer)
            except Unfollowed:
                return self.exact.decide(layer, channel, image)
        logits = self._low(layer, channel, image)
        near = doubtful(logits, self.tolerance[layer]).nonzero().squeeze(1)
        if len(near):
            self.screened += len(near)
            channel, image = named(channel, image, len(self.chunk))
            again = self.exact.decide(layer, channel[near], image[near])
            error = errors_of_gaps(again, logits[near])
            self.surprises += int((error > self.tolerance[layer]).any())
            self.tolerance[layer] = torch.maximum(self.tolerance[layer], SAFETY * error)
            logits[near] = again
        return logits

    def _low(self, layer: str, channel: Tensor, image: Tensor | None) -> Tensor:
        assert self.exact.chunk is not None
        change = replayed(self.stage, self.chunk, layer, channel, image)
        _, image = named(channel, image, len(self.chunk))
        return change.sub_(self.chunk.logits[image]).add_(self.exact.chunk.logits[image])

    def _measure(self, layer: str) -> None:
        assert self.exact.chunk is not None
        channels, images = torch.arange(self.stage.channels[layer]), len(self.chunk)
        run = self.exact.audible(layer, channels, None)  # what is silent has no error, and is not run
        run = torch.arange(len(channels) * images) if run is None else run
        order = torch.randperm(len(run), generator=torch_generator(0, "low precision", layer))
        chosen = run[order[:SAMPLE]].sort().values
        channel, image = chosen // images, chosen % images
        exact = replayed(self.exact.stage, self.exact.chunk, layer, channel, image)
        self.tolerance[layer] = SAFETY * errors_of_gaps(exact, self._low(layer, channel, image))
