"""Every registered probe and criterion passes the contract suite; and the suite notices those that should not."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from prunescope.core.errors import PrunescopeError
from prunescope.core.mask import Mask
from prunescope.core.types import Record
from prunescope.engine.sweep import Gatherer
from prunescope.probes.base import Probe, Subject, probe, probes
from prunescope.probes.performance import Performance
from prunescope.pruning.criteria.curvature import Fisher
from prunescope.pruning.criteria.flow import SynFlow
from prunescope.pruning.criteria.loss import Taylor
from prunescope.pruning.criteria.magnitude import Magnitude
from prunescope.pruning.criteria.redundancy import Fpgm
from prunescope.pruning.scoring import Batches, Criterion, criteria, criterion
from prunescope.testing import CriterionContract, ProbeContract, Snapshot, tiny_network
from prunescope.testing.samples import BreakdownError
from prunescope.testing.snapshot import prepare


def clauses(contract: type) -> list[str]:
    return [name for name in dir(contract) if name.startswith("test_")]


def hold(contract: type[ProbeContract | CriterionContract], part: Probe | Criterion, clause: str) -> None:
    """Run one clause on one part, as pytest does for a subclass."""
    suite = type("TestIt", (contract,), {"probe": part, "criterion": part})()
    getattr(suite, clause)()


@pytest.mark.parametrize("clause", clauses(ProbeContract))
@pytest.mark.parametrize("name", sorted(probes))
def test_registered_probes(name: str, clause: str) -> None:
    hold(ProbeContract, probe(name), clause)


@pytest.mark.parametrize("clause", clauses(CriterionContract))
@pytest.mark.parametrize("name", sorted(criteria))
def test_registered_criteria(name: str, clause: str) -> None:
    hold(CriterionContract, criterion(name), clause)


# -- probes that break one clause each


@dataclass(frozen=True)
class Changed(Performance):
    """Performance, with something done to the record."""

    def measure(self, subject: Subject, *, batch_size: int = 256) -> Record:
        return self.change(Performance().measure(subject, batch_size=batch_size), subject, batch_size)

    def change(self, record: Record, subject: Subject, batch_size: int) -> Record:
        return record


class Unregistered(Changed):
    name: ClassVar[str] = "unregistered"


@dataclass(unsafe_hash=True)
class Thawed(Probe):
    """Not frozen: its options can change after it was made."""

    name: ClassVar[str] = "performance"

    def start(self, subject: Subject) -> Gatherer:
        raise NotImplementedError


class WrongOrder(Changed):
    def change(self, record: Record, subject: Subject, batch_size: int) -> Record:
        assert record.ids is not None
        return replace(record, ids=record.ids[::-1])


class UnknownFamily(Changed):
    distances: ClassVar[Mapping[str, str]] = {"image.predicted": "nearness"}


class AbsentArray(Changed):
    distances: ClassVar[Mapping[str, str]] = {"image.maps": "maps"}


class NudgesWeights(Changed):
    def change(self, record: Record, subject: Subject, batch_size: int) -> Record:
        with torch.no_grad():
            next(subject.model.parameters()).add_(1e-3)
        return record


class DrawsGlobally(Changed):
    def change(self, record: Record, subject: Subject, batch_size: int) -> Record:
        noise = torch.rand(len(subject.data.test)).numpy()
        return replace(record, arrays={**record.arrays, "image.noise": noise})


class StaysInEvalAfterAnError(Changed):
    def measure(self, subject: Subject, *, batch_size: int = 256) -> Record:
        subject.model.eval()
        return super().measure(subject, batch_size=batch_size)


class SwallowsErrors(Changed):
    def measure(self, subject: Subject, *, batch_size: int = 256) -> Record:
        try:
            return super().measure(subject, batch_size=batch_size)
        except Exception:
            return Record(self.name)


class DependsOnBatchSize(Changed):
    def change(self, record: Record, subject: Subject, batch_size: int) -> Record:
        return replace(record, metrics={**record.metrics, "batches": len(subject.data.test) / batch_size})


class CapturesCarelessly(Changed):
    """Keeps what a convolution gave without a copy, and an in-place ReLU overwrites it."""

    def change(self, record: Record, subject: Subject, batch_size: int) -> Record:
        kept: list[Tensor] = []
        model = subject.model.eval()
        handle = model.conv2.register_forward_hook(lambda _m, _i, output: kept.append(output))  # type: ignore[union-attr, operator]
        with torch.no_grad():
            for _, x, _ in subject.data.test.batches(batch_size):
                model(x)
        handle.remove()
        means = torch.cat(kept).mean((1, 2, 3)).numpy()
        return replace(record, arrays={**record.arrays, "image.mean": means})


class TrustsTheOrderOfTheReference(Changed):
    needs_reference: ClassVar[bool] = True

    def change(self, record: Record, subject: Subject, batch_size: int) -> Record:
        assert subject.reference is not None
        same = subject.reference.arrays["image.predicted"] == record.arrays["image.predicted"]
        return replace(record, arrays={**record.arrays, "image.same": np.asarray(same)})


NOT_REGISTERED = ("test_it_is_registered", "test_its_fields_are_its_configuration")
BROKEN_PROBES = {
    Unregistered: "test_it_is_registered",
    Thawed: "test_its_fields_are_its_configuration",
    WrongOrder: "test_its_record_is_well_formed",
    UnknownFamily: "test_its_distances_can_be_computed",
    AbsentArray: "test_its_distances_can_be_computed",
    NudgesWeights: "test_the_network_is_left_as_it_was",
    StaysInEvalAfterAnError: "test_the_network_is_left_as_it_was_after_an_error",
    SwallowsErrors: "test_the_network_is_left_as_it_was_after_an_error",
    DrawsGlobally: "test_it_gives_the_same_twice",
    DependsOnBatchSize: "test_batch_size_does_not_matter",
    CapturesCarelessly: "test_in_place_relus_do_not_matter",
    TrustsTheOrderOfTheReference: "test_the_reference_is_matched_by_image_id",
}


@pytest.mark.parametrize(("kind", "clause"), BROKEN_PROBES.items(), ids=[kind.__name__ for kind in BROKEN_PROBES])
def test_broken_probes_are_noticed(kind: type[Probe], clause: str) -> None:
    with pytest.raises((AssertionError, PrunescopeError)):
        hold(ProbeContract, kind(), clause)


@pytest.mark.parametrize("clause", sorted({*BROKEN_PROBES.values()} - {*NOT_REGISTERED}))
def test_an_unbroken_probe_is_not(clause: str) -> None:
    """So that it is the flaw that is noticed above, not the way the flawed probes are built."""
    hold(ProbeContract, Changed(), clause)


# -- criteria that break one clause each


class UnregisteredCriterion(Magnitude):
    name: ClassVar[str] = "unregistered"


class Flattened(Magnitude):
    def score(self, model: nn.Module, mask: Mask, *, batches: Batches | None, seed: int) -> Mapping[str, Tensor]:
        return {name: s.flatten() for name, s in super().score(model, mask, batches=batches, seed=seed).items()}


class Infinite(Magnitude):
    """Divides by the weight, as scores do that forget about those already pruned."""

    def score(self, model: nn.Module, mask: Mask, *, batches: Batches | None, seed: int) -> Mapping[str, Tensor]:
        return {name: 1 / s for name, s in super().score(model, mask, batches=batches, seed=seed).items()}


class GloballyRandom(Magnitude):
    def score(self, model: nn.Module, mask: Mask, *, batches: Batches | None, seed: int) -> Mapping[str, Tensor]:
        return {name: torch.rand(kept.shape) for name, kept in mask.items()}


class Forgetful(Magnitude):
    """Says that it needs a seed and ignores it."""

    needs_seed: ClassVar[bool] = True


class ReadsDataUnasked(Magnitude):
    def score(self, model: nn.Module, mask: Mask, *, batches: Batches | None, seed: int) -> Mapping[str, Tensor]:
        next(batches())  # type: ignore[misc]
        return super().score(model, mask, batches=batches, seed=seed)


class Swallows(Magnitude):
    needs_data: ClassVar[bool] = True

    def score(self, model: nn.Module, mask: Mask, *, batches: Batches | None, seed: int) -> Mapping[str, Tensor]:
        with suppress(BreakdownError):
            list(batches())  # type: ignore[misc]
        return super().score(model, mask, batches=batches, seed=seed)


class ReadsLabelsUnasked(Taylor):
    needs_labels: ClassVar[bool] = False


class IgnoresLabels(SynFlow):
    """Says that it needs labels and looks at none."""

    needs_labels: ClassVar[bool] = True


class DifferentiatesUnasked(Taylor):
    needs_gradients: ClassVar[bool] = False


class DifferentiatesVectorised(Fisher):
    needs_gradients: ClassVar[bool] = False


class NeverDifferentiates(Magnitude):
    needs_gradients: ClassVar[bool] = True


class PerWeightAfterAll(Magnitude):
    per: ClassVar[Literal["weight", "filter"]] = "filter"


class PerFilterAfterAll(Fpgm):
    per: ClassVar[Literal["weight", "filter"]] = "weight"


BROKEN_CRITERIA = {
    UnregisteredCriterion: "test_it_is_registered",
    Flattened: "test_every_weight_has_a_finite_score",
    Infinite: "test_every_weight_has_a_finite_score",
    GloballyRandom: "test_it_gives_the_same_twice",
    Forgetful: "test_the_seed_matters_if_it_says_so",
    ReadsDataUnasked: "test_it_needs_no_data_unless_it_says_so",
    Swallows: "test_the_network_is_left_as_it_was_after_an_error",
    ReadsLabelsUnasked: "test_labels_matter_if_it_says_so",
    IgnoresLabels: "test_labels_matter_if_it_says_so",
    DifferentiatesUnasked: "test_gradients_are_taken_if_it_says_so",
    DifferentiatesVectorised: "test_gradients_are_taken_if_it_says_so",
    NeverDifferentiates: "test_gradients_are_taken_if_it_says_so",
    PerWeightAfterAll: "test_a_filter_s_weights_share_its_score_if_it_says_so",
    PerFilterAfterAll: "test_a_filter_s_weights_share_its_score_if_it_says_so",
}


@pytest.mark.parametrize(("kind", "clause"), BROKEN_CRITERIA.items(), ids=[kind.__name__ for kind in BROKEN_CRITERIA])
def test_broken_criteria_are_noticed(kind: type[Criterion], clause: str) -> None:
    with pytest.raises((AssertionError, PrunescopeError, TypeError)):
        hold(CriterionContract, kind(), clause)


# -- the snapshot


def test_a_snapshot_sees_what_careless_code_changes() -> None:
    def changed(change: object) -> list[str]:
        network = prepare(tiny_network())
        before = Snapshot(network)
        assert not before.differences()
        change(network)  # type: ignore[operator]
        return before.differences()

    assert changed(lambda n: n.eval()) == [
        "mode of the network", "mode of conv1", "mode of relu1", "mode of relu2", "mode of head",
    ]  # fmt: skip
    assert changed(lambda n: n.norm.running_mean.add_(1)) == ["values of norm.running_mean"]
    assert changed(lambda n: n.requires_grad_(True)) == [
        "requires_grad of norm.weight", "requires_grad of conv2.weight", "requires_grad of head.weight",
    ]  # fmt: skip
    assert changed(lambda n: n.zero_grad()) == ["gradient of conv1.weight"]
    assert changed(lambda n: n.conv2.register_forward_pre_hook(lambda *_: None)) == ["hooks of conv2"]
    with torch.random.fork_rng():
        assert changed(lambda _: torch.rand(1)) == ["random state of torch"]
    state = np.random.get_state()  # noqa: NPY002
    assert changed(lambda _: np.random.random()) == ["random state of numpy"]  # noqa: NPY002
    np.random.set_state(state)  # noqa: NPY002
