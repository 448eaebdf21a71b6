"""Criteria: what makes a weight worth keeping, and the cut that follows from it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from prunescope.core.configure import configure
from prunescope.core.errors import PrunescopeError
from prunescope.core.mask import Mask, keep_top
from prunescope.core.registry import Registry
from prunescope.engine.untouched import untouched

#: Yields (normalised images, labels) of the training split, as often as it is called, the same batches each time.
Batches = Callable[[], Iterator[tuple[Tensor, Tensor]]]

#: Criteria by name. Register a frozen dataclass that subclasses `Criterion`.
criteria: Registry[type[Criterion]] = Registry(
    "criterion", group="prunescope.criteria", package="prunescope.pruning.criteria"
)


class Criterion(ABC):
    """One way to score weights. Subclass as a frozen dataclass, register, implement `score`.

    Class attributes:
        summary: one line for `prunescope list criteria`.
        needs_data: whether `batches` is used.
        needs_seed: whether `seed` is used; then every round and seed gets its own.
    """

    name: ClassVar[str]
    summary: ClassVar[str] = ""
    needs_data: ClassVar[bool] = False
    needs_seed: ClassVar[bool] = False

    @abstractmethod
    def score(self, model: nn.Module, mask: Mask, *, batches: Batches | None, seed: int) -> Mapping[str, Tensor]:
        """{parameter name: scores of its shape} for every parameter in `mask`; higher = keep.

        The model is in eval mode with frozen weights and is restored afterwards, whatever happens here. Scores of
        weights already pruned are ignored.
        """


def criterion(name: str, **options: Any) -> Criterion:
    """A registered criterion with its options: `criterion("magnitude")`."""
    return configure(criteria[name], options, f"criterion {name!r}")


def cut(
    model: nn.Module,
    mask: Mask,
    by: Criterion,
    *,
    keep: float,
    scope: Literal["global", "layer"] = "global",
    batches: Batches | None = None,
    seed: int = 0,
) -> Mask:
    """The mask nested in `mask` that keeps a share `keep` of all prunable weights: those that `by` scores highest.

    The count is exact: round(keep x weights), over all tensors together (`global`) or in each (`layer`). Shares are of
    all prunable weights, not of the survivors, so rounding does not add up over rounds.

    Raises:
        PrunescopeError: more is to be kept than is left, or the criterion's scores do not fit.
    """
    if by.needs_data and batches is None:
        raise PrunescopeError(f"criterion {by.name!r} needs training data: pass `batches`")
    with untouched(model):
        scores = by.score(model, mask, batches=batches, seed=seed)
    if scope == "global":
        return keep_top(scores, mask, round(keep * mask.total))
    if scope != "layer":
        raise PrunescopeError(f"scope must be 'global' or 'layer', got {scope!r}")
    parts: dict[str, Tensor] = {}
    for name, kept in mask.items():
        parts |= keep_top(scores, Mask({name: kept}), min(round(keep * kept.numel()), int(kept.sum())))
    return Mask(parts)
