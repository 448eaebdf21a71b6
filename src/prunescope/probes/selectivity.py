"""How selective units are for classes: of all units of all convolutions, in one pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from prunescope.core.errors import PrunescopeError
from prunescope.core.types import Array, Record
from prunescope.data.split import Split
from prunescope.engine.sweep import Needs, Pass, sweep
from prunescope.engine.units import behind_norms
from prunescope.metrics.selectivity import class_selectivity, class_selectivity_of_means
from prunescope.metrics.unit_scores import by_layer, known_mean
from prunescope.probes.base import Probe, Subject, probes
from prunescope.probes.unit_layers import dead_units

#: {metric: (title, unit, whether more is better; None when neither)}
FACTS: dict[str, tuple[str, str, bool | None]] = {
    "mean": ("Class selectivity of units, from class means", "mean over living units", None),
    "best_mean": ("Class selectivity of units, from their best images", "mean over living units", None),
    "silent": ("Living units that no image excites", "share of living units", None),
    "dead": ("Units that are pruned away", "share of all units", None),
}


@probes.register("selectivity")
@dataclass(frozen=True)
class Selectivity(Probe):
    """Class selectivity of every unit, by both definitions (`metrics.selectivity`).

    A unit's activation is what a ReLU lets through of the convolution, behind its batch norm where one follows at once.
    From means: the largest class mean of it, averaged over positions, against the mean of the others (Morcos et al.
    2018). From the best images: how few classes hold the share `cover` of the answer to the `best` images with the
    highest peaks (Rafegas et al. 2020).

    Arrays: `unit.means` (U, C), NaN for classes without images; `unit.selectivity` and `unit.best_selectivity` (U,),
    NaN for units that are pruned away or that no image excites; `unit.dead`; the same as tables `layer.selectivity` and
    `layer.best_selectivity` (L, widest), which drift compares. `info["layers"]` tells whose the units are.

    Attributes:
        layers: names or patterns of convolutions; none: all that run.
        best: images per unit; fewer where the split has fewer.
        cover: share of the answer, above 0 and up to 1.
    """

    layers: tuple[str, ...] = ()
    best: int = 100
    cover: float = 0.5

    distances: ClassVar[Mapping[str, str]] = {
        "layer.selectivity": "selectivities", "layer.best_selectivity": "selectivities",
    }  # fmt: skip
    summary: ClassVar[str] = "class selectivity of every unit, from class means and from best images"

    def __post_init__(self) -> None:
        if self.best < 2:
            raise PrunescopeError(f"selectivity: best must be at least 2 images, got {self.best}")
        if not 0 < self.cover <= 1:
            raise PrunescopeError(f"selectivity: cover is a share above 0 and up to 1, got {self.cover}")

    def start(self, subject: Subject) -> _Gatherer:
        return _Gatherer(
            self, subject.model, subject.data.test, behind_norms(subject.model, self.layers, what="selectivity")
        )


@dataclass(frozen=True, eq=False)
class ClassSelectivity:
    """Class selectivity of every unit of some convolutions.

    Attributes:
        layers: {layer: how many units}, in the order of the rows.
        from_means: (U,), 0 to 1, by class means (Morcos et al. 2018).
        from_best: (U,), 0 to 1, by the best images (Rafegas et al. 2020).
        means: (U, C), mean activation on the images of each class; NaN for classes without images.
        dead: bool (U,), units that are pruned away.

    Both selectivities are NaN for dead units and for those that no image excites.
    """

    layers: Mapping[str, int]
    from_means: Array
    from_best: Array
    means: Array
    dead: Array


def selectivity(
    model: nn.Module,
    split: Split,
    *,
    layers: Sequence[str] = (),
    best: int = 100,
    cover: float = 0.5,
    batch_size: int = 256,
    device: torch.device | str = "cpu",
    on_batch: Callable[[int], None] | None = None,
) -> ClassSelectivity:
    """How selective every unit is for classes, by both definitions, in one pass over labelled images.

    Args:
        layers, best, cover: as in the probe.

    Raises:
        PrunescopeError: no images, no such layer, a network without convolutions, activations that are not finite.
    """
    if not len(split):
        raise PrunescopeError("selectivity: the split has no images")
    gatherer = _Gatherer(
        Selectivity(tuple(layers), best, cover), model, split, behind_norms(model, layers, what="selectivity")
    )
    (record,) = sweep(
        model, {"test": split}, [gatherer], batch_size=batch_size, device=device, on_batch=on_batch
    )  # fmt: skip
    found = (record.arrays[f"unit.{name}"] for name in ("selectivity", "best_selectivity", "means", "dead"))
    return ClassSelectivity(record.info["layers"], *found)


@dataclass(eq=False)
class _Gatherer:
    probe: Selectivity
    model: nn.Module
    split: Split
    places: Mapping[str, str]
    sums: dict[str, Tensor] = field(default_factory=dict)
    peaks: dict[str, Tensor] = field(default_factory=dict)
    labels: dict[str, Tensor] = field(default_factory=dict)

    @property
    def needs(self) -> Needs:
        return Needs(layers=tuple(dict.fromkeys(self.places.values())))

    def update(self, batch: Pass) -> None:
        classes = nn.functional.one_hot(batch.y, len(self.split.classes)).double()
        for name, place in self.places.items():
            answer = batch.activations[place].detach().float().clamp(min=0).flatten(2)
            mean = answer.mean(2).double().T @ classes
            self.sums[name] = self.sums[name] + mean if name in self.sums else mean
            self._keep_best(name, answer.amax(2).T, batch.y.expand(answer.shape[1], -1))

    def _keep_best(self, name: str, peaks: Tensor, labels: Tensor) -> None:
        """Of equal peaks the first image stays, whatever the batches."""
        if name in self.peaks:
            peaks = torch.cat([self.peaks[name], peaks], 1)
            labels = torch.cat([self.labels[name], labels], 1)
        order = peaks.argsort(dim=1, descending=True, stable=True)[:, : self.probe.best]
        self.peaks[name], self.labels[name] = peaks.gather(1, order), labels.gather(1, order)

    def finish(self) -> Record:
        counts = np.bincount(self.split.labels.numpy(), minlength=len(self.split.classes))
        found = counts > 0
        widths = {name: len(sums) for name, sums in self.sums.items()}
        means = torch.cat([self.sums[name] for name in widths]).cpu().numpy() / np.where(found, counts, np.nan)
        if not np.isfinite(means[:, found]).all():
            raise PrunescopeError("selectivity: activations are not finite; are the weights?")
        peaks, labels = (torch.cat([kept[name] for name in widths]).cpu().numpy() for kept in (self.peaks, self.labels))
        dead = dead_units(self.model, {name: np.arange(width) for name, width in widths.items()})
        by_means = np.where(dead, np.nan, class_selectivity_of_means(means[:, found]))
        by_best = np.where(dead, np.nan, class_selectivity(peaks, labels, self.probe.cover))
        arrays = {
            "unit.means": means, "unit.selectivity": by_means, "unit.best_selectivity": by_best, "unit.dead": dead,
            "layer.selectivity": by_layer(by_means, widths), "layer.best_selectivity": by_layer(by_best, widths),
        }  # fmt: skip
        silent = ~dead & (peaks[:, 0] <= 0)
        metrics = {
            "mean": known_mean(by_means), "best_mean": known_mean(by_best), "dead": float(dead.mean()),
            "silent": float(silent.sum() / (~dead).sum()) if not dead.all() else float("nan"),
        }  # fmt: skip
        return Record(self.probe.name, metrics, arrays, self.split.ids, {"layers": widths})
