"""Which units matter, and for which class: accuracy reduction of every unit (CAR)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from prunescope.core.bits import pack
from prunescope.core.errors import PrunescopeError
from prunescope.core.types import Array, Record
from prunescope.data.split import NAMES, Split
from prunescope.data.subsets import stratified
from prunescope.engine.ablation.ablate import Ablator
from prunescope.engine.ablation.answers import Ablation, Effort, Precision
from prunescope.engine.ablation.removal import Kind
from prunescope.engine.sweep import Gatherer
from prunescope.metrics.ablation import Ranking, Reductions, order
from prunescope.metrics.paired import holm
from prunescope.models.layers import CONVOLUTIONS, matches, require_matches
from prunescope.probes.base import Probe, Subject, probes
from prunescope.probes.unit_layers import dead_units, layer_arrays

#: {metric: (title, unit, whether more is better; None when neither)}
FACTS: dict[str, tuple[str, str, bool | None]] = {
    "accuracy": ("Accuracy on the images of CAR", "share of images", True),
    "dead": ("Units that are pruned away", "share of all units", None),
    "mattering": ("Units that matter for accuracy", "share of living units", None),
    "harmful": ("Units that do harm", "share of living units", None),
    "largest": ("Largest CAR of a unit", "accuracy", None),
}


@dataclass(frozen=True, eq=False)
class UnitTable:
    """CAR of every unit of some layers, overall and class by class.

    Attributes:
        units: (layer, channel) of every row.
        reductions: the table (`metrics.ablation.Reductions`): CAR, class CAR, their intervals and tests.
        ablation: the predictions that it was made of.
        correct: bool (units, images).
    """

    units: tuple[tuple[str, int], ...]
    reductions: Reductions
    ablation: Ablation
    correct: np.ndarray[Any, np.dtype[np.bool_]]

    @property
    def ranking(self) -> Ranking:
        """Rows from the least important on."""
        return order(self.reductions)


def car(
    model: nn.Module,
    split: Split,
    *,
    layers: Sequence[str] = (),
    effort: Effort | None = None,
    seed: int = 0,
    batch_size: int = 64,
    device: torch.device | str = "cpu",
    on_worlds: Callable[[int, int], None] | None = None,
) -> UnitTable:
    """What accuracy loses when a unit is taken out, for every unit of every convolution (Abbasi-Asl and Yu 2017).

    CAR(i) = accuracy of the network - accuracy without unit i, and the same for the images of each class. To choose
    units by it and report accuracy on the same images flatters: use two splits.

    Args:
        layers: names or patterns, convolutions or linear layers; none: all convolutions that have readers within the
            network. The layer whose outputs are the classes has no units.
        effort: how much is computed, and what takes a unit's place (`Effort`); by default every prediction is that of
            a full forward pass with zeros where the unit is read.
        seed: of the audit, and of whose content a unit gets with removal `resample`.

    Raises:
        PrunescopeError: labels are missing, there is no such layer, or what `Ablator` refuses.
    """
    ablator = Ablator(model, split, effort=effort, seed=seed, batch_size=batch_size, device=device)
    found = ablator.run(_wanted(model, ablator.channels, layers), on_worlds=on_worlds)
    units = tuple((layer, int(channel)) for layer, channels in found.layers.items() for channel in channels)
    return UnitTable(units, found.reductions(split), found, found.predicted.numpy() == split.labels.numpy())


def some_images(split: Split, count: int, seed: int) -> Split:
    """At most so many images, every class in its share; 0 for all."""
    if not 0 < count < len(split):
        return split
    return split.subset(stratified(split.labels, count, seed=seed))


def _wanted(model: nn.Module, known: Mapping[str, int], layers: Sequence[str]) -> list[str]:
    if layers:
        _require_units(model, known, layers)
        require_matches(layers, known, "layers")
        return [name for name in known if any(matches(name, pattern) for pattern in layers)]
    found = [name for name in known if isinstance(model.get_submodule(name), CONVOLUTIONS)]
    if not found:
        raise PrunescopeError(f"the network has no convolution with readers; name layers, such as {list(known)[:3]}")
    return found


def _require_units(model: nn.Module, known: Mapping[str, int], layers: Sequence[str]) -> None:
    """Refuse modules that have no units, with the reason."""
    for pattern in layers:
        named = [(name, module) for name, module in model.named_modules() if name and fnmatchcase(name, pattern)]
        if not named or any(matches(name, pattern) for name in known):
            continue
        (name, module), *_ = named
        kind = type(module).__name__
        why = "units are outputs of convolutions and linear layers, and heads of attention"
        if isinstance(module, (*CONVOLUTIONS, nn.Linear)):
            why = "its outputs are the classes, or nothing within the network reads them, so it has no units"
        raise PrunescopeError(f"layers: {name!r} is {'an' if kind[0] in 'AEIOU' else 'a'} {kind}: {why}")


@probes.register("car")
@dataclass(frozen=True)
class Car(Probe):
    """Accuracy reduction of every unit: index, class by class, interval and test.

    Metrics: `units`; `dead`, the share of them that is pruned away; `accuracy`; of the living units `mattering`, the
    share whose removal changes the accuracy for sure (McNemar, Holm over all units), and `harmful`, the share without
    which accuracy is higher; `largest`, the largest CAR.

    Arrays, a row per unit (`info["layers"]` tells whose): `unit.car`, `unit.low` and `unit.high` (95 % score interval
    over images), `unit.p` and `unit.p_holm`; `unit.dead`; `unit.losses` and `unit.gains` by class, of which class CAR
    is (losses - gains) / `class.count`; `unit.drop` of the true class's log-probability, summed by class;
    `unit.correct`, eight images to a byte. A row per layer, or a column: `unit_layers.layer_arrays`, which drift
    compares.

    Attributes:
        layers: names or patterns; none: all convolutions.
        split: which images.
        images: at most so many, drawn with every class in its share; 0 for all.
        precision: `32` or `bf16`; predictions are the same.
        screen, removal: see `engine.ablation.answers.Effort`.
        memory: MB (2^20 bytes) that values may take; too few are refused with the number of bytes that is enough.
    """

    layers: tuple[str, ...] = ()
    split: str = "test"
    images: int = 0
    precision: Precision = "32"
    screen: bool = False
    removal: Kind = "zero"
    memory: int = Effort.memory // 2**20

    distances: ClassVar[Mapping[str, str]] = {
        "layer.car": "importances", "layer.harm": "importance_shares", "layer.classes": "class_profiles",
        "image.flipped": "image_sets", "layer.place": "unit_orders",
    }  # fmt: skip
    summary: ClassVar[str] = "accuracy reduction of every unit (CAR), class by class"

    def __post_init__(self) -> None:
        if self.memory < 1:
            raise PrunescopeError(f"car: memory must be 1 MB or more, got {self.memory}")
        self._effort()
        if self.split not in NAMES:
            raise PrunescopeError(f"car: split must be one of {', '.join(NAMES)}, got {self.split!r}")
        if self.images < 0:
            raise PrunescopeError(f"car: images must be 0 (all) or more, got {self.images}")

    def check(self, subject: Subject) -> None:
        few = some_images(subject.data[self.split], self.images, 0)
        known = Ablator(subject.model, few, effort=self._effort(), device=subject.device).channels
        _wanted(subject.model, known, self.layers)

    def start(self, subject: Subject) -> Gatherer:
        raise PrunescopeError("the car probe does not stream: call `measure`")

    def measure(self, subject: Subject, *, batch_size: int = 256) -> Record:
        split = some_images(subject.data[self.split], self.images, 0)  # the same for every network
        table = car(
            subject.model, split, layers=self.layers, effort=self._effort(), seed=subject.seed,
            batch_size=min(batch_size, 64), device=subject.device,
        )  # fmt: skip
        return self._record(table, split, dead_units(subject.model, _channels(table)))

    def _effort(self) -> Effort:
        return Effort(self.precision, screen=self.screen, removal=self.removal, memory=self.memory * 2**20)

    def _record(self, table: UnitTable, split: Split, dead: Array) -> Record:
        found, (low, high), p = table.reductions, table.reductions.interval(), table.reductions.p()
        corrected, living, told = holm(p), ~dead, table.ablation
        assert found.drops is not None
        flipped = told.predicted.numpy() != told.dense.numpy()
        arrays = {
            "unit.car": found.car, "unit.low": low, "unit.high": high, "unit.p": p, "unit.p_holm": corrected,
            "unit.dead": dead, "unit.losses": found.losses, "unit.gains": found.gains, "unit.drop": found.drops,
            "unit.correct": pack(table.correct), "class.count": found.counts, "class.right": found.right,
            **layer_arrays(found, _channels(table), dead, flipped),
        }  # fmt: skip
        metrics = {
            "units": len(table.units), "dead": float(dead.mean()),
            "accuracy": float(found.right.sum() / found.images),
            "mattering": _share((corrected < 0.05)[living]), "harmful": _share((found.car < 0)[living]),
            "largest": float(found.car.max()),
        }  # fmt: skip
        info = {
            "layers": {name: len(channels) for name, channels in told.layers.items()}, "split": self.split,
            "images": found.images, "classes": list(found.classes), "classes_without_images": list(found.empty),
            "removal": self.removal,
            "full_passes": told.redone, "again_in_float32": told.screened, "surprises": told.surprises,
            "audited": told.audited, "wrong": told.wrong,  # of what was left out unseen, with `screen`
        }  # fmt: skip
        return Record(self.name, metrics, arrays, split.ids, info)


def _channels(table: UnitTable) -> dict[str, Array]:
    return {name: channels.numpy() for name, channels in table.ablation.layers.items()}


def _share(marked: Array) -> float:
    """NaN of none."""
    return float(marked.mean()) if len(marked) else float("nan")
