"""How the channels of each layer rise and fall together, over all images and places, from one pass over the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from prunescope.core.errors import PrunescopeError
from prunescope.core.types import Array, Record
from prunescope.data.split import Split
from prunescope.engine.sweep import Needs, Pass, sweep
from prunescope.metrics.redundancy import correlations

#: Numbers in one piece of a batch: bounds the copy that is made of it at 16 MB.
_PIECE = 1 << 22


def channel_correlations(
    model: nn.Module, split: Split, layers: Sequence[str], *, batch_size: int = 256, device: torch.device | str = "cpu"
) -> dict[str, Array]:
    """{layer: Pearson correlations (C, C), float64} between the channels of each layer over `split`.

    Args:
        layers: modules as in `model.named_modules()`; `NAME:input` for what goes in. Channels are the second axis of
            maps (B, C, h, w) and vectors (B, C), and the last of tokens (B, T, C).

    A channel that never varies has none: NaN. Memory: a (C, C) matrix per layer, however many images there are.
    """
    gatherer = Correlations(tuple(layers), "only")
    (record,) = sweep(model, {"only": split}, [gatherer], batch_size=batch_size, device=device)
    return {layer: record.arrays[f"correlation.{layer}"] for layer in layers}


@dataclass(eq=False)
class Correlations:
    """Gathers the moments of every channel of `layers` over one split."""

    layers: tuple[str, ...]
    split: str = "test"
    _moments: dict[str, _Moments] = field(default_factory=dict)

    @property
    def needs(self) -> Needs:
        return Needs(layers=self.layers, splits=(self.split,))

    def update(self, batch: Pass) -> None:
        """Add the batch to the moments."""
        for layer in self.layers:
            values = _channels_second(batch.activations[layer].detach(), layer)
            if layer not in self._moments:
                self._moments[layer] = _Moments(values)
            self._moments[layer].add(values, layer)

    def finish(self) -> Record:
        """A record with an array `correlation.LAYER` (C, C) for every layer."""
        arrays = {f"correlation.{layer}": self._moments[layer].correlations() for layer in self.layers}
        return Record("correlations", arrays=arrays)


class _Moments:
    """Sums and products of the channels of one layer, less a shift near their means: no digits cancel in the end.

    Pieces are multiplied in float32, a few million numbers at a time, and added up in float64.
    """

    def __init__(self, first: Tensor) -> None:
        channels = first.shape[1]
        self.n = 0
        self.shift = first.float().mean((0, 2))[:, None]
        self.sums, self.products = np.zeros(channels), np.zeros((channels, channels))
        self.low, self.high = np.full(channels, np.inf), np.full(channels, -np.inf)

    def add(self, values: Tensor, layer: str) -> None:
        """Values (B, C, places)."""
        for piece in values.split(max(1, _PIECE // values[0].numel())):
            rows = piece.float().transpose(0, 1).flatten(1)
            self._widen(rows, layer)
            rows = rows - self.shift
            self.n += rows.shape[1]
            self.sums += _double(rows.sum(1))
            self.products += _double(rows @ rows.T)

    def _widen(self, rows: Tensor, layer: str) -> None:
        low, high = map(_double, torch.aminmax(rows, dim=1))
        if not (np.isfinite(low) & np.isfinite(high)).all():
            raise PrunescopeError(f"correlations: layer {layer!r} gives values that are not finite")
        self.low, self.high = np.minimum(self.low, low), np.maximum(self.high, high)

    def correlations(self) -> Array:
        return correlations(self.n, self.sums, self.products, self.low == self.high)


def _double(value: Tensor) -> Array:
    found: Array = value.cpu().double().numpy()
    return found


def _channels_second(value: Tensor, layer: str) -> Tensor:
    """(B, C, places)."""
    if value.ndim == 4:
        return value.flatten(2)
    if value.ndim == 3:
        return value.transpose(1, 2)
    if value.ndim == 2:
        return value[..., None]
    raise PrunescopeError(f"correlations: layer {layer!r} gives {tuple(value.shape)}, not a vector or map per image")
