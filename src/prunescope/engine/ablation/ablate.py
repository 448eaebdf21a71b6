"""Predictions of a network without each of its units, for every image as a full forward pass would give them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from prunescope.core.errors import PrunescopeError, choices
from prunescope.core.seeds import torch_generator
from prunescope.data.split import Split
from prunescope.engine.ablation.chunk import TILE, Chunk, bytes_per_image
from prunescope.engine.ablation.deciders import Exact, LowPrecision, named
from prunescope.engine.ablation.linear_screen import LinearScreen
from prunescope.engine.ablation.replay import Stage
from prunescope.engine.untouched import untouched

Precision = Literal["32", "bf16"]

#: Logits that are kept at once.
_LOGITS = 4 * 2**20
#: Values of a tile that live at the same time, at most.
_LIVE = 6


@dataclass(frozen=True)
class Effort:
    """How much is computed, and how.

    Attributes:
        precision: of replays: `32`, or `bf16` with float32 where that is not sure.
        screen: leave out worlds whose class stays for sure by the first derivative. Faster by far on trained networks;
            calibrated on the run itself, not proven.
        audit: how many of the worlds that were left out are run afterwards.
        memory: bytes that values may take; more means larger batches of images.
    """

    precision: Precision = "32"
    screen: bool = False
    audit: int = 1000
    memory: int = 256 * 2**20

    def __post_init__(self) -> None:
        if self.precision not in get_args(Precision):
            raise choices("precision", self.precision, get_args(Precision))
        if self.audit < 0 or self.memory < 1:
            raise PrunescopeError(f"audit and memory are counts, got {self.audit} and {self.memory}")


@dataclass(frozen=True, eq=False)
class Ablation:
    """What a network says without each of its units.

    Attributes:
        layers: {layer: (channels,) that were taken out, one by one}, in the order of the rows of what follows.
        dense: int16 (images,) predictions with all units.
        predicted: int16 (units, images).
        drop: float64 (units, classes): by how much the logarithm of the true class's probability falls, summed over the
            images of each class. As exact as the effort: first order where a world was left out.
        worlds: how many there are, units x images.
        redone: how many predictions were within rounding of a tie and come from a full forward pass.
        screened: how many were not sure in low precision and were made again in float32.
        passed: how many worlds were left out by the first derivative.
        audited, wrong: how many of these were run afterwards, and in how many the class does change.
        surprises: measurements in which an error was larger than its tolerance.
    """

    layers: Mapping[str, Tensor]
    dense: Tensor
    predicted: Tensor
    drop: Tensor
    worlds: int
    redone: int = 0
    screened: int = 0
    passed: int = 0
    audited: int = 0
    wrong: int = 0
    surprises: int = 0

    def rows(self, layer: str) -> slice:
        """The rows of one layer."""
        start = 0
        for name, channels in self.layers.items():
            if name == layer:
                return slice(start, start + len(channels))
            start += len(channels)
        raise choices("layer", layer, self.layers)


def ablate(
    model: nn.Module,
    split: Split,
    *,
    layers: Mapping[str, Sequence[int]] | Sequence[str] | None = None,
    gone: Mapping[str, Sequence[int]] | None = None,
    effort: Effort | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
    on_worlds: Callable[[int], None] | None = None,
) -> Ablation:
    """Predictions for every image of the split without every unit, one at a time.

    A unit is a channel of a convolution or an output of a linear layer. Taken out, it is zero where it is read: after
    norm, activation and pooling, at the input of every convolution, linear layer or sum behind it, so that neither
    biases nor norms leak. Each prediction is that of a full forward pass (with `Effort.screen`: as far as calibrated).

    Args:
        layers: names of layers, or {layer: channels}; None: all that have readers within the network.
        gone: {layer: channels} that are out in all of this, dense predictions included.
        on_worlds: called with the number of worlds that are done since the last call.

    Raises:
        Untraceable: torch.fx cannot follow the network.
        PrunescopeError: an unknown layer, channel or label; values that are not finite; too little memory.
    """
    effort = effort or Effort()
    with untouched(model.to(device)):
        run = _Run(model, split, effort, gone or {}, seed)
        with torch.inference_mode():
            return run.all(run.chosen(layers), device, on_worlds)


class _Run:
    """One call of `ablate`."""

    def __init__(self, model: nn.Module, split: Split, effort: Effort, gone: Mapping[str, Sequence[int]], seed: int):
        def close(stage: Stage) -> None:
            stage.close(gone)

        self.split, self.effort, self.generator = split, effort, torch_generator(seed, "ablation")
        self.exact = Exact(model, split.shape, close)
        low = effort.precision == "bf16"
        self.decider = LowPrecision(self.exact, model, split.shape, close) if low else self.exact
        self.screen = LinearScreen(self.exact.stage) if effort.screen else None
        self.left_out: list[tuple[str, Tensor, Tensor]] = []
        self.audited = self.wrong = 0

    def chosen(self, layers: Mapping[str, Sequence[int]] | Sequence[str] | None) -> dict[str, Tensor]:
        known = self.exact.stage.channels
        wanted = known if layers is None else layers
        found = {}
        for name in wanted:
            if name not in known:
                raise choices("layer with units", name, known)
            given = layers[name] if isinstance(layers, Mapping) else range(known[name])
            channels = torch.as_tensor(list(given), dtype=torch.int64)
            if len(channels) and not 0 <= int(channels.min()) <= int(channels.max()) < known[name]:
                raise PrunescopeError(f"{name} has channels 0 to {known[name] - 1}, got {channels.tolist()}")
            found[name] = channels.sort().values
        return found

    def all(
        self, layers: dict[str, Tensor], device: torch.device | str, on_worlds: Callable[[int], None] | None
    ) -> Ablation:  # fmt: skip
        units, images, classes = sum(map(len, layers.values())), len(self.split), len(self.split.classes)
        predicted = torch.empty(units, images, dtype=torch.int16)
        dense, drop = torch.empty(images, dtype=torch.int16), torch.zeros(units, classes, dtype=torch.float64)
        for index, x, y in self.split.batches(self._batch(), device):
            chunk = self.decider.look_at(x)
            self._require_finite(chunk, index)
            dense[index] = chunk.logits.argmax(1).to(torch.int16)
            if self.screen is not None:
                self.screen.look_at(chunk, y)
            before = _log_probability(chunk.logits, y)
            at = 0
            for layer, channels in layers.items():
                said, after = self._layer(layer, channels, chunk, y)
                rows = slice(at, at + len(channels))
                predicted[rows, index] = said
                drop[rows].index_add_(1, y.clamp(min=0), (before - after).double())
                at += len(channels)
                if on_worlds is not None:
                    on_worlds(said.numel())
            self._audit(chunk)
        return Ablation(
            layers, dense, predicted, drop, units * images, self.decider.redone, getattr(self.decider, "screened", 0),
            self.screen.passed if self.screen else 0, self.audited, self.wrong,
            getattr(self.decider, "surprises", 0) + (self.screen.surprises if self.screen else 0),
        )  # fmt: skip

    def _layer(self, layer: str, channels: Tensor, chunk: Chunk, y: Tensor) -> tuple[Tensor, Tensor]:
        """(class, log-probability of the true class) of every world of one layer: (channels, images) each."""
        self.decider.begin_layer()
        said = chunk.logits.argmax(1).to(torch.int16).repeat(len(channels), 1)
        after = torch.empty(len(channels), len(chunk))
        at_once = max(1, _LOGITS // (len(chunk) * chunk.logits.shape[1]))
        for part in (slice(start, start + at_once) for start in range(0, len(channels), at_once)):
            if self.screen is not None and self.screen.ready:
                self._screened(layer, channels[part], chunk, y, said[part], after[part])
            else:
                self._in_full(layer, channels[part], chunk, y, said[part], after[part])
        return said, after

    def _in_full(self, layer: str, channels: Tensor, chunk: Chunk, y: Tensor, said: Tensor, after: Tensor) -> None:
        logits = self.decider.decide(layer, channels)
        said[:] = logits.argmax(1).view_as(said)
        after[:] = _log_probability(logits, y.repeat(len(channels))).view_as(after)
        if self.screen is not None:
            guess = self.screen.logits(layer, channels).flatten(0, 1)
            self.screen.learn(layer, *named(channels, None, len(chunk)), guess, logits)

    def _screened(self, layer: str, channels: Tensor, chunk: Chunk, y: Tensor, said: Tensor, after: Tensor) -> None:
        assert self.screen is not None
        guess = self.screen.logits(layer, channels)
        certain = self.screen.certain(layer, channels, guess)
        self.screen.passed += int(certain.sum())
        self._remember(layer, channels, certain)
        after[:] = self.screen.log_probability(guess, y)
        unit, image = (~certain).nonzero(as_tuple=True)
        if len(unit):
            logits = self.decider.decide(layer, channels[unit], image)
            said[unit, image] = logits.argmax(1).to(torch.int16)
            after[unit, image] = _log_probability(logits, y[image])
            self.screen.learn(layer, channels[unit], image, guess[unit, image], logits)

    def _remember(self, layer: str, channels: Tensor, certain: Tensor) -> None:
        """A random sample of what was left out, for the audit."""
        share = self.effort.audit / (sum(self.exact.stage.channels.values()) * len(self.split))
        drawn = certain & (torch.rand(certain.shape, generator=self.generator) < share)
        unit, image = drawn.nonzero(as_tuple=True)
        if len(unit):
            self.left_out.append((layer, channels[unit], image))

    def _audit(self, chunk: Chunk) -> None:
        for layer, channel, image in self.left_out:
            self.decider.begin_layer()
            said = self.exact.decide(layer, channel, image).argmax(1)
            self.wrong += int((said != chunk.logits.argmax(1)[image]).sum())
            self.audited += len(said)
        self.left_out.clear()

    def _batch(self) -> int:
        stage, low = self.exact.stage, self.effort.precision == "bf16"
        each = bytes_per_image(stage) * (1.5 if low else 1) * (3 if self.effort.screen else 1)
        work = _LIVE * max(TILE, max(plan.largest for plan in stage.plans.values()) * 4)
        room = self.effort.memory - work
        if room < each:
            raise PrunescopeError(
                f"memory of {self.effort.memory:,} bytes is too little for one image without one unit: "
                f"allow at least {int(work + each):,}"
            )
        return int(min(room // each, 64))

    def _require_finite(self, chunk: Chunk, index: Tensor) -> None:
        broken = ~chunk.logits.isfinite().all(1)
        if bool(broken.any()):
            name = str(self.split.ids[index[broken.cpu()].numpy()][0])
            raise PrunescopeError(f"the network's logits are not finite, first for image {name!r}; are its weights?")


def _log_probability(logits: Tensor, y: Tensor) -> Tensor:
    return logits.log_softmax(1).gather(1, y.clamp(min=0)[:, None]).squeeze(1)
