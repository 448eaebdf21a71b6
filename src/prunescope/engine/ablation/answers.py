"""What ablation is asked to spend, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, get_args

from torch import Tensor

from prunescope.core.errors import PrunescopeError, choices
from prunescope.data.split import Split
from prunescope.engine.ablation.removal import Kind
from prunescope.metrics.ablation import Reductions, reductions

Precision = Literal["32", "bf16"]


@dataclass(frozen=True)
class Effort:
    """How much is computed, and how.

    Attributes:
        precision: of replays: `32`, or `bf16` with float32 where that is not sure.
        screen: leave out worlds whose class stays for sure by the first derivative. Faster by far on trained networks;
            calibrated on the run itself, not proven.
        audit: how many of the worlds that were left out are run afterwards.
        memory: bytes that values may take; more means larger batches of images.
        removal: what takes a unit's place. `zero`: zeros, at every reader. `mean`: its mean over the images that are
            asked about, and places, at every reader. `resample`: what it holds on another of these images, drawn by the
            seed. `weights`: its weights and bias are zeros, and what a norm adds behind them leaks on. All but `zero`
            need `precision` 32 and no `screen`.
        hooks: where torch.fx cannot follow a network, take units out by full forward passes with hooks, with a warning;
            False: refuse it.
    """

    precision: Precision = "32"
    screen: bool = False
    audit: int = 1000
    memory: int = 512 * 2**20
    removal: Kind = "zero"
    hooks: bool = True

    def __post_init__(self) -> None:
        if self.precision not in get_args(Precision):
            raise choices("precision", self.precision, get_args(Precision))
        if self.removal not in get_args(Kind):
            raise choices("removal", self.removal, get_args(Kind))
        if self.removal != "zero" and (self.screen or self.precision != "32"):
            raise PrunescopeError(
                f"removal {self.removal!r} is computed in full, in precision 32: its screen would need what takes the "
                f"unit's place; got precision {self.precision!r} and screen {self.screen}"
            )
        if self.audit < 0 or self.memory < 1:
            raise PrunescopeError(f"audit and memory are counts, got {self.audit} and {self.memory}")

    @property
    def in_full(self) -> Effort:
        """The same with every world run, in float32."""
        return replace(self, precision="32", screen=False)


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

    def reductions(self, split: Split) -> Reductions:
        """CAR and class CAR of all units, from the first row to the last, on the images that were looked at."""
        labels = split.labels.numpy()
        found = reductions(self.predicted.numpy() == labels, self.dense.numpy() == labels, labels, split.classes)
        return replace(found, drops=self.drop.numpy())

    def rows(self, layer: str) -> slice:
        """The rows of one layer."""
        rows = rows_of(self.layers)
        if layer not in rows:
            raise choices("layer", layer, rows)
        return rows[layer]


def rows_of(layers: Mapping[str, Tensor]) -> dict[str, slice]:
    """{layer: its rows}, one row per channel, in order."""
    found, at = {}, 0
    for name, channels in layers.items():
        found[name] = slice(at, at + len(channels))
        at += len(channels)
    return found
