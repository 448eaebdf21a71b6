"""Criteria: what makes a weight worth keeping, and the cut that follows from it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from prunescope.core.configure import configure
from prunescope.core.errors import PrunescopeError
from prunescope.core.mask import Mask
from prunescope.core.registry import Registry
from prunescope.data.split import Split
from prunescope.data.training_batches import training_batches
from prunescope.engine.training import Training
from prunescope.engine.untouched import untouched
from prunescope.pruning.granularity import Granularity, Weights
from prunescope.pruning.scope import Scope, read_scope
from prunescope.pruning.target import Target, reach, share_of

#: Yields (normalised images, labels) of the training split, as often as it is called, the same batches each time.
Batches = Callable[[], Iterator[tuple[Tensor, Tensor]]]

_WEIGHTS = Weights()

#: Criteria by name. Register a frozen dataclass that subclasses `Criterion`.
criteria: Registry[type[Criterion]] = Registry(
    "criterion", group="prunescope.criteria", package="prunescope.pruning.criteria"
)


class Criterion(ABC):
    """One way to score weights. Subclass as a frozen dataclass, register, implement `score`.

    Class attributes, which `prunescope list criteria` shows:
        summary: one line.
        source: author and year of the paper.
        cost: of one scoring, in passes over the data read: "forward", "forward, backward" ...
        per: what has a score of its own. Where it is the `filter`, all its weights have the filter's score, and only
            granularities of whole filters make sense.
        needs_data: whether `batches` is used.
        needs_labels: whether its labels are.
        needs_gradients: whether it differentiates.
        needs_history: whether it goes by how weights move in training; such a criterion trains a while by itself.
        needs_seed: whether `seed` is used; then every round and seed gets its own.

    `iterations`: geometric steps of a cut, with new scores after each; a field, in criteria that offer it.
    """

    name: ClassVar[str] = "unregistered"
    summary: ClassVar[str] = ""
    source: ClassVar[str] = ""
    cost: ClassVar[str] = "none"
    per: ClassVar[Literal["weight", "filter"]] = "weight"
    needs_data: ClassVar[bool] = False
    needs_labels: ClassVar[bool] = False
    needs_gradients: ClassVar[bool] = False
    needs_history: ClassVar[bool] = False
    needs_seed: ClassVar[bool] = False
    iterations = 1

    @abstractmethod
    def score(self, model: nn.Module, mask: Mask, *, batches: Batches | None, seed: int) -> Mapping[str, Tensor]:
        """{parameter name: scores of its shape} for every parameter in `mask`; higher = keep.

        The model is in eval mode with frozen weights and is restored afterwards, whatever happens here. Scores of
        weights already pruned are ignored.
        """


def over_filters(values: Mapping[str, Tensor], mask: Mask) -> dict[str, Tensor]:
    """Every weight's score: its filter's value, {parameter: one number per index along axis 0}."""
    return {name: values[name].view(-1, *[1] * (kept.ndim - 1)).expand(kept.shape) for name, kept in mask.items()}


def criterion(name: str, **options: Any) -> Criterion:
    """A registered criterion with its options: `criterion("magnitude")`."""
    return configure(criteria[name], options, f"criterion {name!r}")


def criterion_batches(split: Split, training: Training, seed: int, device: torch.device | str = "cpu") -> Batches:
    """What criteria score on: training images in a seeded order, not augmented."""

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        return training_batches(split, batch_size=training.batch_size, seed=seed, epoch=0, device=device)

    return batches


def cut(
    model: nn.Module,
    mask: Mask,
    by: Criterion,
    *,
    keep: float,
    scope: Scope = "global",
    granularity: Granularity = _WEIGHTS,
    target: Target = "units",
    shape: tuple[int, ...] = (),
    batches: Batches | None = None,
    seed: int = 0,
) -> Mask:
    """The mask nested in `mask` that keeps a share `keep` of all prunable weights: those that `by` scores highest.

    The count is exact: round(keep x weights), halves to the even number, over all tensors together (`global`) or in
    each (`layer`; the sum of the rounded counts may then differ from the global one by half a weight per tensor, and a
    layer that already has fewer keeps what it has). Shares are of all prunable weights, not of the survivors, so
    rounding does not add up over rounds. Nothing keeps a layer from losing all its weights.

    Args:
        keep: density to reach, in [0, 1].
        granularity: what is cut at once; the share is then of filters, kernels ..., by their weights' scores.
        target: what `keep` is a share of, where not of units: `parameters`, `flops` or `latency` (`pruning.target`).
        shape: (C, H, W) of one image, for `flops` and `latency`.
        batches: training data, for criteria that need it.
        seed: for criteria that draw; use another one each round.

    >>> import torch
    >>> model = nn.Linear(3, 1)
    >>> _ = model.weight.data.copy_(torch.tensor([[-3.0, 1.0, 2.0]]))
    >>> cut(model, Mask.dense(model, ["weight"]), criterion("magnitude"), keep=2 / 3)["weight"].tolist()
    [[True, False, True]]

    Raises:
        PrunescopeError: more is to be kept than is left, the criterion's scores do not fit, or it needs labels and
            an image has none (None, or -1).
    """
    scope = read_scope(scope, "")
    if not 0 <= keep <= 1:
        raise PrunescopeError(f"keep is the share of all prunable weights that stays, in [0, 1], got {keep}")
    if by.needs_data and batches is None:
        raise PrunescopeError(f"criterion {by.name!r} needs training data: pass `batches`")
    if by.needs_labels and batches is not None:
        batches = _labelled(batches, by.name)
    share = (lambda m: granularity.density(model, m)) if target == "units" else share_of(target, model, shape)
    for density in [keep] if by.iterations == 1 else _path(share(mask), keep, by.iterations):
        with untouched(model):
            mask.apply_(model)
            scores = by.score(model, granularity.scored(mask), batches=batches, seed=seed)
        at = partial(granularity.keep, model, scores, mask, scope=scope)
        whole = granularity.density(model, mask)
        mask = at(density) if target == "units" else reach(target, density, at, share, whole=whole, units=mask.total)
    return mask


def _labelled(batches: Batches, name: str) -> Batches:
    """The same batches, as long as every image has a label."""

    def checked() -> Iterator[tuple[Tensor, Tensor]]:
        for x, y in batches():
            if y is None or bool((y < 0).any()):
                raise PrunescopeError(
                    f"criterion {name!r} needs labels, and an image of the training data has none (None, or -1); "
                    "label it, leave it out, or take a criterion without labels (`prunescope list criteria`)"
                )
            yield x, y

    return checked


def _path(start: float, end: float, steps: int) -> list[float]:
    """Densities of so many geometric steps, the last one exactly `end`."""
    return [*(start * (end / start) ** (step / steps) for step in range(1, steps)), end]
