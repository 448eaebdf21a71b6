"""Patterns that hardware likes: blocks, and n of every m."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from prunescope.core.errors import PrunescopeError
from prunescope.core.mask import Mask
from prunescope.pruning.granularity import Granularity, Units, granularities
from prunescope.pruning.scope import Scope


@granularities.register("block")
@dataclass(frozen=True)
class Blocks(Units):
    """Neighbouring weights of the tensor as a matrix (outputs x everything else); the last blocks may be smaller.

    Attributes:
        rows, columns: size of a block.
    """

    rows: int = 1
    columns: int = 4
    summary: ClassVar[str] = "blocks of rows x columns in the weight matrix"
    plural: ClassVar[str] = "blocks"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rows < 1 or self.columns < 1:
            raise PrunescopeError(f"rows and columns of a block must be at least 1, got {self.rows} x {self.columns}")

    def units(self, shape: torch.Size, groups: int) -> Tensor:
        width = shape.numel() // shape[0]
        across = -(-width // self.columns)
        rows, columns = torch.arange(shape[0]) // self.rows, torch.arange(width) // self.columns
        return (rows[:, None] * across + columns[None]).view(shape)


@granularities.register("n:m")
@dataclass(frozen=True)
class NofM(Granularity):
    """The best `n` of every `m` weights that follow each other along the input channels: what sparse tensor cores run
    as 2:4 (Mishra et al. 2021). The density is n / m, in one round; layers whose inputs `m` does not divide must be
    ignored.
    """

    n: int = 2
    m: int = 4
    summary: ClassVar[str] = "n of every m weights along the inputs"

    def __post_init__(self) -> None:
        if not 0 < self.n < self.m:
            raise PrunescopeError(f"n:m keeps n of m weights, 0 < n < m, got {self.n}:{self.m}")

    def check(self, densities: Sequence[float]) -> None:
        if len(densities) != 1 or abs(densities[0] - self.n / self.m) > 1e-9:
            raise PrunescopeError(
                f"{self.n}:{self.m} keeps {self.n / self.m:g} of the weights in one cut: write "
                f"schedule: {{density: {self.n / self.m:g}, kind: one-shot}}"
            )

    def keep(self, model: nn.Module, scores: Mapping[str, Tensor], mask: Mask, density: float, scope: Scope) -> Mask:
        wrong = [name for name, kept in mask.items() if kept.ndim < 2 or kept.shape[1] % self.m]
        if wrong:
            raise PrunescopeError(
                f"{self.n}:{self.m}: {self.m} does not divide the inputs of {', '.join(wrong)}; add them to `ignore`"
            )
        return Mask({name: self._best(scores[name], kept) for name, kept in mask.items()})

    def redraw(self, model: nn.Module, mask: Mask, generator: torch.Generator) -> Mask:
        drawn = {name: torch.rand(kept.shape, generator=generator) for name, kept in mask.items()}
        return Mask({name: self._best(drawn[name], torch.ones_like(kept)) for name, kept in mask.items()})

    def _best(self, score: Tensor, kept: Tensor) -> Tensor:
        values = score.detach().cpu().double().masked_fill(~kept, -torch.inf)
        rows = values.movedim(1, -1).unflatten(-1, (-1, self.m))
        order = torch.sort(rows, dim=-1, descending=True, stable=True).indices[..., : self.n]
        best = torch.zeros_like(rows, dtype=torch.bool).scatter_(-1, order, True)
        return best.flatten(-2).movedim(-1, 1) & kept
