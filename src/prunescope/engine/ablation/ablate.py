"""Predictions of a network without each of its units, for every image as a full forward pass would give them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from prunescope.core.errors import PrunescopeError
from prunescope.core.seeds import torch_generator
from prunescope.data.split import Split
from prunescope.engine.ablation.answers import Ablation, Effort, rows_of
from prunescope.engine.ablation.chunk import TILE, Chunk, bytes_per_image
from prunescope.engine.ablation.deciders import Exact, LowPrecision, named
from prunescope.engine.ablation.hooked import Hooked, exact_decider
from prunescope.engine.ablation.linear_screen import LinearScreen
from prunescope.engine.ablation.replacing import Replacing
from prunescope.engine.ablation.units import units_of
from prunescope.engine.sweep import require_finite
from prunescope.engine.untouched import untouched

#: Logits that are kept at once.
_LOGITS = 4 * 2**20
#: Values of a tile that live at the same time, at most.
_LIVE = 6


def ablate(model: nn.Module, split: Split, *, effort: Effort | None = None, **options: Any) -> Ablation:
    """Predictions for every image of the split without every unit, one at a time: `Ablator` for a single question.

    >>> model = nn.Sequential(nn.Conv2d(1, 3, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    >>> images = torch.randint(0, 255, (5, 1, 4, 4), dtype=torch.uint8)
    >>> split = Split(images, torch.tensor([0, 1, 0, 1, 1]), [str(i) for i in range(5)], ("a", "b"))
    >>> ablate(model, split).predicted.shape
    torch.Size([3, 5])

    Args:
        options: `seed`, `batch_size` and `device` of `Ablator`; `layers`, `gone` and `on_worlds` of `Ablator.run`.
    """
    own = {key: options.pop(key) for key in ("seed", "batch_size", "device") if key in options}
    return Ablator(model, split, effort=effort, **own).run(**options)


class Ablator:
    """A network and images, ready to be asked what happens without units.

    A unit is a channel of a convolution or an output of a linear layer. Taken out, it is zero where it is read: after
    norm, activation and pooling, at the input of every convolution, linear layer or sum behind it, so that neither
    biases nor norms, those over channels included, leak (`Effort.removal` has other kinds). Each prediction is that of
    a full forward pass (with `Effort.screen`: as far as calibrated). A network that torch.fx cannot follow is run in
    full, with hooks, for every unit, and channels that meet in a sum go together (`slow.HookedNetwork`): slow, so there
    is a `PrunescopeWarning`.

    The network is captured once, as a copy: what happens to the model afterwards is not seen.

    Args:
        seed: of the audit, and of whose content a unit gets with removal `resample`.
        batch_size: images at once, at most; fewer where the memory allows no more.

    Raises:
        Untraceable: neither torch.fx nor hooks can follow the network, or hooks are not allowed (`Effort.hooks`).
        PrunescopeError: too little memory (says how much is enough).
    """

    def __init__(
        self, model: nn.Module, split: Split, *, effort: Effort | None = None, seed: int = 0,
        batch_size: int = 64, device: torch.device | str = "cpu",
    ) -> None:  # fmt: skip
        self.split, self.effort, self.seed, self.device = split, effort or Effort(), seed, device
        with untouched(model.to(device)):
            self.exact = exact_decider(model, split, self.effort, seed=seed, device=device)
            wanted = self.effort.precision == "bf16" and isinstance(self.exact, Exact)
            low = LowPrecision.of(self.exact, model, split.shape) if wanted else None  # type: ignore[arg-type]
        if not self.channels:
            raise PrunescopeError(f"{type(model).__name__} has no layer whose channels are read within it: no units")
        self.decider: Exact | Hooked | LowPrecision = low or self.exact
        self.batch_size = self._batch_size(batch_size)
        if isinstance(self.exact, Replacing):
            self.exact.batch_size = self.batch_size

    @property
    def channels(self) -> Mapping[str, int]:
        """{layer: how many units}, of all layers that have readers within the network."""
        return self.exact.channels

    def look_at(self, index: Tensor, images: Tensor) -> Chunk:
        """Go on to these images (n, C, H, W), which lie there in the split (n,)."""
        if isinstance(self.exact, Replacing):
            return self.exact.look_at_images(index, images)
        return self.decider.look_at(images)

    def run(
        self,
        layers: Mapping[str, Sequence[int]] | Sequence[str] | None = None,
        *,
        gone: Mapping[str, Sequence[int]] | None = None,
        on_worlds: Callable[[int, int], None] | None = None,
    ) -> Ablation:
        """Take out every unit, one at a time.

        Args:
            layers: names of layers, or {layer: channels}; None: all.
            gone: {layer: channels} that are out in all of this, dense predictions included.
            on_worlds: called with how many worlds are done, of how many.

        Raises:
            PrunescopeError: an unknown layer or channel, or logits that are not finite, with or without a unit.
        """
        wanted, out = self._chosen(layers), self._chosen(gone or {})
        self.decider.begin(out)
        with torch.inference_mode():
            return _Run(self, wanted).all(on_worlds)

    def _chosen(self, layers: Mapping[str, Sequence[int]] | Sequence[str] | None) -> dict[str, Tensor]:
        found = units_of(self.channels, layers, once=False)
        return {name: torch.tensor(channels, dtype=torch.int64) for name, channels in found.items()}

    def _batch_size(self, most: int) -> int:
        each, work = self._needs()
        room = self.effort.memory - work
        if room < each:
            raise PrunescopeError(
                f"memory of {self.effort.memory:,} bytes is too little for one image without one unit: "
                f"allow at least {int(work + each):,} ({math.ceil((work + each) / 2**20):,} MB)"
            )
        return int(min(room // each, most))

    def _needs(self) -> tuple[float, int]:
        """Bytes per image, and beside them."""
        if isinstance(self.exact, Hooked):
            return self.exact.bytes_per_image(), 0
        stage, low = self.exact.stage, self.effort.precision == "bf16"
        each = bytes_per_image(stage) * ((4 if self.effort.screen else 1) + (0.5 if low else 0))
        work = _LIVE * max(TILE, max(plan.largest for plan in stage.plans.values()) * 4)
        return each * (2 if self.effort.removal == "resample" else 1), work


class _Run:
    """One call of `Ablator.run`."""

    def __init__(self, of: Ablator, layers: dict[str, Tensor]) -> None:
        self.of, self.layers, self.split, self.effort = of, layers, of.split, of.effort
        self.exact, self.decider = of.exact, of.decider
        wanted = self.effort.screen and isinstance(self.exact, Exact)
        self.screen = LinearScreen(self.decider.stage) if wanted else None  # type: ignore[union-attr]
        self.generator = torch_generator(of.seed, "ablation")
        self.left_out: list[tuple[str, Tensor, Tensor]] = []
        self.audited = self.wrong = self.done = 0
        units, images, classes = sum(map(len, layers.values())), len(of.split), len(of.split.classes)
        self.rows = rows_of(layers)
        self.predicted = torch.empty(units, images, dtype=torch.int16)
        self.dense = torch.empty(images, dtype=torch.int16)
        self.drop = torch.zeros(units, classes, dtype=torch.float64)

    def all(self, on_worlds: Callable[[int, int], None] | None) -> Ablation:
        """Images outside, layers inside: the values of the whole network are needed for some images only."""
        for index, x, y in self.split.batches(self.of.batch_size, self.of.device):
            self._images(index, x, y, on_worlds)
        return self._answer()

    def _images(self, index: Tensor, x: Tensor, y: Tensor, on_worlds: Callable[[int, int], None] | None) -> None:
        """All units on a chunk of images."""
        chunk = self.of.look_at(index, x)
        require_finite(chunk.logits, index, self.split)
        self.dense[index] = chunk.logits.argmax(1).to(torch.int16)
        if self.screen is not None:
            self.screen.look_at(chunk, y)
        for layer in self.layers:
            self._take(layer, chunk, index, y)
            if on_worlds is not None:
                on_worlds(self.done, self.predicted.numel())
        if self.screen is not None:
            self.screen.images += len(chunk)
        self._audit(chunk)

    def _take(self, layer: str, chunk: Chunk, index: Tensor, y: Tensor) -> None:
        """The units of one layer, on the images of a chunk."""
        rows = self.rows[layer]
        said, after = self._layer(layer, self.layers[layer], chunk, y)
        if not bool(after.isfinite().all()):
            row, image = (~after.isfinite()).nonzero()[0].tolist()
            raise PrunescopeError(
                f"without channel {int(self.layers[layer][row])} of {layer} the logits are not finite, first for image "
                f"{str(self.split.ids[int(index[image])])!r}"
            )
        self.predicted[rows, index] = said
        fall = _log_probability(chunk.logits, y) - after
        self.drop[rows].index_add_(1, y, fall.double())
        self.done += said.numel()

    def _answer(self) -> Ablation:
        low, screen = self.decider if isinstance(self.decider, LowPrecision) else None, self.screen
        return Ablation(
            self.layers, self.dense, self.predicted, self.drop, self.predicted.numel(), redone=self.exact.redone,
            screened=low.screened if low else 0, passed=screen.passed if screen else 0, audited=self.audited,
            wrong=self.wrong, surprises=(low.surprises if low else 0) + (screen.errors.surprises if screen else 0),
        )  # fmt: skip

    def _layer(self, layer: str, channels: Tensor, chunk: Chunk, y: Tensor) -> tuple[Tensor, Tensor]:
        """(class, log-probability of the true class) of every world of one layer: (channels, images) each."""
        self.decider.begin_layer()
        said = chunk.logits.argmax(1).to(torch.int16).repeat(len(channels), 1)
        after = torch.empty(len(channels), len(chunk))
        at_once = max(1, _LOGITS // (len(chunk) * chunk.logits.shape[1]))
        for part in (slice(start, start + at_once) for start in range(0, len(channels), at_once)):
            if self.screen is not None:
                self._screened(layer, channels[part], chunk, y, said[part], after[part])
            else:
                self._in_full(layer, channels[part], chunk, y, said[part], after[part])
        return said, after

    def _in_full(self, layer: str, channels: Tensor, chunk: Chunk, y: Tensor, said: Tensor, after: Tensor) -> None:
        logits = self.decider.decide(layer, channels)
        said[:] = logits.argmax(1).view_as(said)
        after[:] = _log_probability(logits, y.repeat(len(channels))).view_as(after)

    def _screened(self, layer: str, channels: Tensor, chunk: Chunk, y: Tensor, said: Tensor, after: Tensor) -> None:
        """The first images in full, then what is not sure; for the rest, what the screen guesses."""
        assert self.screen is not None
        guess = self.screen.guess(layer, channels)
        after[:] = self.screen.log_probability(guess, y)
        channel, image = named(channels, None, len(chunk))

        def run(worlds: Tensor) -> None:
            at = worlds.nonzero().squeeze(1)
            if len(at):
                logits = self.decider.decide(layer, channel[at], image[at])
                said.view(-1)[at] = logits.argmax(1).to(torch.int16)
                after.view(-1)[at] = _log_probability(logits, y[image[at]])
                self.screen.learn(layer, channel[at], image[at], guess.some(at), logits)  # type: ignore[union-attr]

        first = image < self.screen.missing
        run(first)
        certain = self.screen.certain(layer, channel, guess) & ~first
        run(~(first | certain))
        self.screen.passed += int(certain.sum())
        self._remember(layer, channel, image, certain)

    def _remember(self, layer: str, channel: Tensor, image: Tensor, certain: Tensor) -> None:
        """A random sample of what was left out, for the audit."""
        share = self.effort.audit / max(1, self.predicted.numel())
        drawn = (certain & (torch.rand(len(certain), generator=self.generator) < share)).nonzero().squeeze(1)
        if len(drawn):
            self.left_out.append((layer, channel[drawn], image[drawn]))

    def _audit(self, chunk: Chunk) -> None:
        for layer, channel, image in self.left_out:
            self.decider.begin_layer()
            said = self.exact.decide(layer, channel, image).argmax(1)
            self.wrong += int((said != chunk.logits.argmax(1)[image]).sum())
            self.audited += len(said)
        self.left_out.clear()


def _log_probability(logits: Tensor, y: Tensor) -> Tensor:
    return logits.log_softmax(1).gather(1, y[:, None]).squeeze(1)
