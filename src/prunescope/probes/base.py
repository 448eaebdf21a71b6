"""The probe protocol, and the one function that runs probes on a network."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import nn

from prunescope.core.configure import configure
from prunescope.core.errors import PrunescopeError
from prunescope.core.registry import Registry
from prunescope.core.types import Record
from prunescope.data.split import NAMES, Dataset, Split
from prunescope.engine.sweep import Gatherer, sweep
from prunescope.engine.untouched import untouched

#: Probes by name. Register a frozen dataclass that subclasses `Probe`.
probes: Registry[type[Probe]] = Registry("probe", group="prunescope.probes", package="prunescope.probes")


@dataclass(frozen=True, eq=False)
class Subject:
    """What a probe is asked about.

    Attributes:
        model: in eval mode, frozen; must not be changed.
        data: all splits. Records describe `test`; `train` and `val` are there to fit and choose.
        reference: the `performance` record of the dense network that this one is compared with; None for a network
            that is its own reference.
        seed: for the probe's own randomness (pass it to `core.seeds`).
        device: where the model is.
        dense: what this probe itself recorded of the study's first dense network, for probes that ask for it; None for
            that network, and outside of studies.
    """

    model: nn.Module
    data: Dataset
    reference: Record | None = None
    seed: int = 0
    device: torch.device | str = "cpu"
    dense: Record | None = None


class Probe(ABC):
    """Options of one way to measure. Subclass as a frozen dataclass, register, implement `start`.

    Class attributes:
        distances: {array name in the record: family of distances in `prunescope.metrics`}, applied by drift.
        needs_concepts: only offered on data with concept labels.
        needs_reference: the record depends on the dense network's predictions (`Subject.reference`).
        needs_dense: the record depends on what this probe recorded of the study's first dense network
            (`Subject.dense`), such as a scale that is fitted there and then frozen.
        summary: one line for `prunescope list probes`.
    """

    name: ClassVar[str]
    distances: ClassVar[Mapping[str, str]] = {}
    needs_concepts: ClassVar[bool] = False
    needs_reference: ClassVar[bool] = False
    needs_dense: ClassVar[bool] = False
    summary: ClassVar[str] = ""

    def check(self, subject: Subject) -> None:
        """Refuse, before anything is trained, what cannot be measured of this data and of a network of this structure.

        Here that is what `start` refuses. A probe that overrides `measure`, or whose `start` takes long, overrides it.
        """
        if self.streams:
            self.start(subject)

    @abstractmethod
    def start(self, subject: Subject) -> Gatherer:
        """A gatherer for one sweep. Refuse here, with a clear error, what cannot be measured."""

    def measure(self, subject: Subject, *, batch_size: int = 256) -> Record:
        """The record of this probe alone. A probe that cannot stream overrides this and `streams`."""
        return measure(
            subject.model, {self.name: self}, subject.data,
            reference=subject.reference, dense={} if subject.dense is None else {self.name: subject.dense},
            seed=subject.seed, batch_size=batch_size, device=subject.device,
        )[self.name]  # fmt: skip

    @property
    def streams(self) -> bool:
        """Whether one pass over the data is enough; False when `measure` is overridden."""
        return type(self).measure is Probe.measure


def facts(item: Probe) -> Mapping[str, tuple[str, str, bool | None]]:
    """{metric: (title, unit, whether more is better; None when neither)}: `FACTS` of the probe's module; {} of none."""
    return getattr(sys.modules[type(item).__module__], "FACTS", {})


def probe(name: str, **options: Any) -> Probe:
    """A registered probe with its options: `probe("gradcam", layer="layer3")`."""
    return configure(probes[name], options, f"probe {name!r}")


def measure(
    model: nn.Module,
    wanted: Mapping[str, Probe],
    data: Dataset,
    *,
    reference: Record | None = None,
    dense: Mapping[str, Record] | None = None,
    seed: int = 0,
    batch_size: int = 256,
    device: torch.device | str = "cpu",
    on_batch: Callable[[int], None] | None = None,
) -> dict[str, Record]:
    """Run several probes on one network in one pass over the data.

    Args:
        wanted: {key: probe}; the records come back under the same keys.
        reference: the dense network's `performance` record, for probes that ask about its predictions.
        dense: {key: what the probe recorded of the dense network}, for probes whose scale is fitted there.

    Returns:
        {key: Record}. The model's weights, buffers, mode, hooks and the global RNG are as before.
    """
    model.to(device)
    subject = Subject(model, data, reference, seed=seed, device=device)
    subjects = {key: replace(subject, dense=(dense or {}).get(key)) for key in wanted}
    _require_concepts(wanted, data)
    with untouched(model):
        alone = {
            key: item.measure(subjects[key], batch_size=batch_size) for key, item in wanted.items() if not item.streams
        }
        gatherers = {key: item.start(subjects[key]) for key, item in wanted.items() if item.streams}
        found = sweep(
            model, _splits(data), list(gatherers.values()), batch_size=batch_size, device=device, on_batch=on_batch
        )  # fmt: skip
    together = dict(zip(gatherers, found, strict=True))
    return {key: alone[key] if key in alone else together[key] for key in wanted}


def check(model: nn.Module, wanted: Mapping[str, Probe], data: Dataset, *, device: torch.device | str = "cpu") -> None:
    """Refuse what probes could not measure of such a network on this data: a study asks before it trains.

    Args:
        model: of the structure of those that will be measured, with any weights; left as it was.
        wanted: {key: probe}.

    Raises:
        PrunescopeError: naming the probe, what it lacks, and what is allowed.
    """
    _require_concepts(wanted, data)
    model.to(device)
    with untouched(model):
        for key, item in wanted.items():
            try:
                item.check(Subject(model, data, device=device))
            except PrunescopeError as error:
                raise PrunescopeError(f"probe {key!r}: {error}") from error


def _require_concepts(wanted: Mapping[str, Probe], data: Dataset) -> None:
    for key, item in wanted.items():
        if item.needs_concepts and data.concept_bank is None and data.train.concepts is None:
            raise PrunescopeError(
                f"probe {key!r} needs concept labels, and data {data.name!r} has none; "
                "give a class x concept table, folders of examples, or leave the probe out"
            )


def _splits(data: Dataset) -> dict[str, Split]:
    splits = {name: data[name] for name in NAMES}
    if data.concept_bank is not None:
        splits["concepts"] = data.concept_bank
    return splits
