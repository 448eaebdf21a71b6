"""Cuts against torch.nn.utils.prune and against their definition; criteria leave the network as it was."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_nets import PRUNABLE, noise, same, state, tiny_net
from torch import Tensor, nn
from torch.nn.utils import prune

from prunescope.core.errors import PrunescopeError
from prunescope.core.mask import Mask
from prunescope.data.training_batches import training_batches
from prunescope.models.layers import prunable
from prunescope.models.zoo import build_model
from prunescope.pruning.criteria.magnitude import Magnitude
from prunescope.pruning.scope import SCOPES, Scope
from prunescope.pruning.scoring import Batches, Criterion, criteria, criterion, cut


def batches() -> Iterator[tuple[Tensor, Tensor]]:
    return training_batches(noise(), batch_size=16, seed=0, epoch=0)


def torch_masks(model: nn.Module) -> Mask:
    buffers = dict(model.named_buffers())
    return Mask({name: buffers[f"{name}_mask"].bool() for name in PRUNABLE})


def targets(model: nn.Module) -> list[tuple[nn.Module, str]]:
    return [(model.get_submodule(name.rpartition(".")[0]), "weight") for name in PRUNABLE]


# Against torch.nn.utils.prune


@pytest.mark.parametrize("seed", range(3))
def test_global_magnitude_is_torchs_global_unstructured_round_after_round(seed: int) -> None:
    ours = tiny_net(seed)
    theirs = copy.deepcopy(ours)
    mask = Mask.dense(ours, PRUNABLE)
    for density in (0.7, 0.31, 0.05, 0.01):
        smaller = cut(ours, mask, Magnitude(), keep=density)
        prune.global_unstructured(  # type: ignore[no-untyped-call]
            targets(theirs), pruning_method=prune.L1Unstructured, amount=mask.kept - smaller.kept
        )
        assert smaller.kept == round(density * mask.total)
        assert smaller == torch_masks(theirs)
        mask = smaller


@pytest.mark.parametrize("density", [0.9, 0.5, 0.123, 0.02])
def test_layer_magnitude_is_torchs_l1_unstructured(density: float) -> None:
    ours = tiny_net()
    theirs = copy.deepcopy(ours)
    mask = cut(ours, Mask.dense(ours, PRUNABLE), Magnitude(), keep=density, scope="layer")
    for module, name in targets(theirs):
        total = getattr(module, name).numel()
        prune.l1_unstructured(module, name, amount=total - round(density * total))  # type: ignore[no-untyped-call]
    assert mask == torch_masks(theirs)


@pytest.mark.parametrize("removed", [0.3, 0.5, 0.77])
def test_torch_counts_the_same_when_it_is_given_a_share(removed: float) -> None:
    model = tiny_net()
    prune.random_unstructured(model.conv1, "weight", amount=removed)  # type: ignore[no-untyped-call]
    ours = cut(tiny_net(), Mask.dense(tiny_net(), ["conv1.weight"]), criterion("random"), keep=1 - removed)
    assert ours.kept == int(model.conv1.weight_mask.sum())  # type: ignore[operator]


def test_a_resnet_is_cut_exactly() -> None:
    model = build_model("resnet8", classes=10, channels=3, seed=0)
    dense = Mask.dense(model, prunable(model))
    mask = cut(model, dense, Magnitude(), keep=0.1)
    magnitudes = torch.cat([dict(model.named_parameters())[n].detach().abs().flatten() for n in dense])
    kept = torch.cat([mask[n].flatten() for n in dense])
    assert mask.kept == round(0.1 * dense.total)
    assert magnitudes[kept].min() >= magnitudes[~kept].max()


# Properties


@dataclass(frozen=True)
class Given(Criterion):
    """Scores from a list of levels: many ties."""

    levels: int = 3
    needs_seed: ClassVar[bool] = True

    def score(self, model: nn.Module, mask: Mask, *, batches: Batches | None, seed: int) -> Mapping[str, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        return {name: torch.randint(self.levels, kept.shape, generator=generator) for name, kept in mask.items()}


def naive(scores: Mapping[str, Tensor], mask: Mask, keep: float, scope: Scope) -> dict[str, list[bool]]:
    """The definition: rank (score, position) pairs of survivors one by one, overall or tensor by tensor."""
    groups = [list(mask)] if scope == "global" else [[name] for name in mask]
    kept = {name: [False] * mask[name].numel() for name in mask}
    for group in groups:
        everyone = [(name, i) for name in group for i in range(mask[name].numel())]
        alive = [(name, i) for name, i in everyone if mask[name].flatten()[i]]
        best = sorted(alive, key=lambda at: -float(scores[at[0]].flatten()[at[1]]))  # stable: ties by position
        for name, i in best[: round(keep * len(everyone))]:
            kept[name][i] = True
    return kept


@given(
    st.integers(0, 10**6),
    st.integers(1, 4),
    st.lists(st.floats(0, 1), min_size=1, max_size=4),
    st.sampled_from(["global", "layer"]),
)
@settings(max_examples=60, deadline=None)
def test_every_round_is_exact_nested_and_by_position_among_equals(
    seed: int, levels: int, keeps: list[float], scope: Scope
) -> None:
    model = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3), nn.Linear(3, 1))
    mask = Mask.dense(model, ["0.weight", "1.weight", "2.weight"])
    by = Given(levels)
    for turn, keep in enumerate(sorted(keeps, reverse=True)):
        smaller = cut(model, mask, by, keep=keep, scope=scope, seed=seed + turn)
        assert smaller.nested_in(mask)
        if scope == "global":
            assert smaller.kept == round(keep * mask.total)
        else:
            assert all(int(kept.sum()) == round(keep * kept.numel()) for kept in smaller.values())
        expected = naive(by.score(model, mask, batches=None, seed=seed + turn), mask, keep, scope)
        assert {name: kept.flatten().tolist() for name, kept in smaller.items()} == expected
        mask = smaller


def test_a_layer_that_has_fewer_already_keeps_what_it_has() -> None:
    model = nn.Sequential(nn.Linear(10, 1), nn.Linear(10, 1))
    before = Mask({"0.weight": torch.arange(10)[None] < 2, "1.weight": torch.ones(1, 10, dtype=torch.bool)})
    mask = cut(model, before, Magnitude(), keep=0.5, scope="layer")
    assert [int(kept.sum()) for kept in mask.values()] == [2, 5]


def test_keeping_everything_and_nothing() -> None:
    model = tiny_net()
    dense = Mask.dense(model, PRUNABLE)
    assert cut(model, dense, Magnitude(), keep=1.0) == dense
    assert cut(model, dense, Magnitude(), keep=0.0).kept == 0


# Criteria leave the network as it was: the contract of every registered one


@pytest.mark.parametrize("name", list(criteria))
def test_registered_criteria_keep_the_contract(name: str) -> None:
    by = criterion(name)
    assert isinstance(by, Criterion)
    assert by.summary
    assert hash(by) == hash(criterion(name))
    model = tiny_net().train()
    before, random_state = state(model), torch.get_rng_state()
    dense = Mask.dense(model, PRUNABLE)
    half = cut(model, dense, by, keep=0.5, batches=batches, seed=1)
    quarter = cut(model, half, by, keep=0.25, scope="layer", batches=batches, seed=1)
    assert half.kept == round(0.5 * dense.total)
    assert quarter.nested_in(half)
    assert cut(model, dense, by, keep=0.5, batches=batches, seed=1) == half
    assert (cut(model, dense, by, keep=0.5, batches=batches, seed=2) == half) is not by.needs_seed
    assert same(before, state(model))
    assert torch.equal(random_state, torch.get_rng_state())


@dataclass(frozen=True)
class Vandal(Criterion):
    """Does everything that a criterion should not, then fails if asked to."""

    fails: bool = False
    needs_data: ClassVar[bool] = True

    def score(self, model: nn.Module, mask: Mask, *, batches: Batches | None, seed: int) -> Mapping[str, Tensor]:
        assert batches is not None
        assert not model.training
        assert not any(parameter.requires_grad for parameter in model.parameters())
        model.train()
        for parameter in model.parameters():
            parameter.requires_grad_(True)
        for x, y in batches():
            nn.functional.cross_entropy(model(x), y).backward()
        model.register_forward_hook(lambda module, inputs, output: output * 0)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(float("nan"))
        torch.rand(3), random.random(), np.random.rand()  # noqa: NPY002
        if self.fails:
            raise RuntimeError("criterion broke")
        return {name: torch.zeros(kept.shape) for name, kept in mask.items()}


@pytest.mark.parametrize("fails", [False, True])
def test_a_criterion_cannot_harm_the_network(fails: bool) -> None:
    model = tiny_net().train()
    model.norm.eval()
    model.conv1.weight.requires_grad_(False)
    before, logits = state(model), model(torch.ones(2, 3, 6, 6))
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index, union-attr]  # noqa: NPY002
    with pytest.raises(RuntimeError, match="criterion broke") if fails else nullcontext():
        cut(model, Mask.dense(model, PRUNABLE), Vandal(fails), keep=0.5, batches=batches)
    assert same(before, state(model))
    assert torch.equal(logits, model(torch.ones(2, 3, 6, 6)))
    assert [model.training, model.norm.training, model.conv2.training] == [True, False, True]
    assert [p.requires_grad for p in model.parameters()].count(False) == 1
    assert all(p.grad is None for p in model.parameters())
    after = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index, union-attr]  # noqa: NPY002
    assert torch.equal(states[0], after[0])
    assert states[1:] == after[1:]


# Refusals


@dataclass(frozen=True)
class Faulty(Criterion):
    """Gives the scores it is told to."""

    fault: str = "nan"

    def score(self, model: nn.Module, mask: Mask, *, batches: Batches | None, seed: int) -> Mapping[str, Tensor]:
        scores = {name: torch.ones(kept.shape) for name, kept in mask.items()}
        if self.fault == "nan":
            scores["head.weight"][0, 0] = float("nan")
        elif self.fault == "missing":
            del scores["head.weight"]
        else:
            scores["head.weight"] = torch.ones(3)
        return scores


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize(("fault", "message"), [("nan", "NaN"), ("missing", "head.weight"), ("shape", "head.weight")])
def test_scores_that_do_not_fit_are_refused(fault: str, message: str, scope: Scope) -> None:
    model = tiny_net()
    with pytest.raises(PrunescopeError, match=message):
        cut(model, Mask.dense(model, PRUNABLE), Faulty(fault), keep=0.8, scope=scope)


def test_impossible_cuts_are_refused() -> None:
    model = tiny_net()
    dense = Mask.dense(model, PRUNABLE)
    for keep in (-0.1, 1.1, float("nan"), 100):
        with pytest.raises(PrunescopeError, match=r"keep .* in \[0, 1\]"):
            cut(model, dense, Magnitude(), keep=keep)
    with pytest.raises(PrunescopeError, match="unknown scope 'layr'; did you mean 'layer'"):
        cut(model, dense, Magnitude(), keep=0.5, scope="layr")  # type: ignore[arg-type]
    with pytest.raises(PrunescopeError, match="needs training data"):
        cut(model, dense, Vandal(), keep=0.5)
    half = cut(model, dense, Magnitude(), keep=0.5)
    with pytest.raises(PrunescopeError, match="cannot keep"):
        cut(model, half, Magnitude(), keep=0.6)


@pytest.mark.parametrize("label", [None, -1])
def test_an_image_without_a_label_is_refused_where_labels_count(label: int | None) -> None:
    def unlabelled() -> Any:
        yield next(iter(batches()))
        for x, y in batches():
            yield x, None if label is None else y.index_fill(0, torch.tensor([0]), label)

    model = tiny_net()
    dense = Mask.dense(model, PRUNABLE)
    with pytest.raises(PrunescopeError, match="criterion 'snip' needs labels, and an image"):
        cut(model, dense, criterion("snip"), keep=0.5, batches=unlabelled)
    assert cut(model, dense, criterion("wanda"), keep=0.5, batches=unlabelled).kept == round(0.5 * dense.total)


def test_unknown_criteria_and_options_name_what_there_is() -> None:
    with pytest.raises(PrunescopeError, match="did you mean 'magnitude'"):
        criterion("magnitud")
    with pytest.raises(PrunescopeError, match="unknown key"):
        criterion("magnitude", power=2)
