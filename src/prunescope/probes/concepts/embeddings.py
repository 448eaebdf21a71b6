"""Feature vectors of all splits, gathered in the same pass over the data as everything else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from prunescope.core.errors import PrunescopeError
from prunescope.data.split import Split
from prunescope.engine.sweep import Needs, Pass, find_module
from prunescope.engine.vectors import vectors
from prunescope.models.layers import penultimate


@dataclass(frozen=True, eq=False)
class Embedded:
    """One split as a network sees it.

    Attributes:
        x: embeddings float32 (N, D), CPU.  predicted: the network's own classes (N,).
        labels: (N,).  concepts: int8 (N, K) in {1, 0, -1 unknown}, or None.
    """

    x: Tensor
    predicted: Tensor
    labels: Tensor
    concepts: Tensor | None

    def at(self, index: Tensor) -> Embedded:
        """The images at `index`."""
        concepts = None if self.concepts is None else self.concepts[index]
        return Embedded(self.x[index], self.predicted[index], self.labels[index], concepts)


def embedding_layer(model: nn.Module, layer: str = "") -> str:
    """The place in the network that `layer` means; "" is the input of the last linear layer.

    >>> embedding_layer(nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(16, 2)))
    '2:input'
    """
    if not layer:
        return f"{penultimate(model)}:input"
    find_module(model, layer.partition(":")[0])
    return layer


@dataclass(eq=False)
class Embeddings:
    """Gathers the embeddings of `splits`.

    Attributes:
        rows: {split: sorted positions to keep}; splits that are not in it are kept whole.
    """

    layer: str
    splits: Mapping[str, Split]
    rows: Mapping[str, Tensor] = field(default_factory=dict)
    _kept: dict[str, list[tuple[Tensor, Tensor]]] = field(default_factory=dict)

    @property
    def needs(self) -> Needs:
        return Needs(layers=(self.layer,), splits=tuple(self.splits))

    def update(self, batch: Pass) -> None:
        """Take the batch's vectors and predictions."""
        x, predicted = vectors(batch.activations[self.layer], self.layer), batch.logits.argmax(1)
        if batch.split in self.rows:
            here = torch.isin(batch.index, self.rows[batch.split]).to(x.device)
            x, predicted = x[here], predicted[here]
        self._kept.setdefault(batch.split, []).append((x.detach().float().cpu(), predicted.cpu()))

    def collected(self) -> dict[str, Embedded]:
        """{split: its embeddings}, after the sweep."""
        return {name: self._split(name, split) for name, split in self.splits.items()}

    def _split(self, name: str, split: Split) -> Embedded:
        x, predicted = (torch.cat(parts) for parts in zip(*self._kept[name], strict=True))
        if not x.isfinite().all():
            raise PrunescopeError(f"concepts: layer {self.layer!r} gives values that are not finite on split {name!r}")
        whole = Embedded(x, predicted, split.labels, split.concepts)
        if name not in self.rows:
            return whole
        concepts = None if split.concepts is None else split.concepts[self.rows[name]]
        return Embedded(x, predicted, split.labels[self.rows[name]], concepts)
