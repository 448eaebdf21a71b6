"""Which weights are kept, and the exact cut that decides it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from prunescope.core.errors import PrunescopeError


class Mask(Mapping[str, Tensor]):
    """For each prunable parameter a boolean tensor of its shape: True = kept. Immutable.

    >>> mask = Mask({"w": torch.tensor([True, False, True, True])})
    >>> mask.density, mask.kept, mask.total
    (0.75, 3, 4)
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        for name, tensor in tensors.items():
            if tensor.dtype != torch.bool:
                raise PrunescopeError(f"mask of {name!r} must be boolean, got {tensor.dtype}")
        self._tensors = {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}

    @classmethod
    def dense(cls, model: nn.Module, names: list[str]) -> Mask:
        """The mask that keeps everything of the named parameters."""
        parameters = dict(model.named_parameters())
        return cls({name: torch.ones(parameters[name].shape, dtype=torch.bool) for name in names})

    @classmethod
    def of_zeros(cls, model: nn.Module, names: list[str]) -> Mask:
        """The mask that a network's own zeros spell: for checkpoints that other people pruned."""
        parameters = dict(model.named_parameters())
        return cls({name: parameters[name].detach() != 0 for name in names})

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mask):
            return NotImplemented
        return list(self) == list(other) and all(torch.equal(self[n], other[n]) for n in self)

    __hash__ = None  # type: ignore[assignment]

    @property
    def kept(self) -> int:
        """Weights kept, over all tensors."""
        return sum(int(tensor.sum()) for tensor in self.values())

    @property
    def total(self) -> int:
        """Prunable weights, kept or not."""
        return sum(tensor.numel() for tensor in self.values())

    @property
    def density(self) -> float:
        """Kept over total, in [0, 1]; 1.0 when there is nothing to prune."""
        return self.kept / self.total if self.total else 1.0

    @property
    def densities(self) -> dict[str, float]:
        """Density of each tensor."""
        return {name: tensor.float().mean().item() for name, tensor in self.items()}

    def __and__(self, other: Mask) -> Mask:
        """What both keep. Both must cover the same parameters."""
        self._require_same_names(other)
        return Mask({name: tensor & other[name] for name, tensor in self.items()})

    def nested_in(self, other: Mask) -> bool:
        """True when everything kept here is kept there too."""
        self._require_same_names(other)
        return all(not bool((tensor & ~other[name]).any()) for name, tensor in self.items())

    def apply_(self, model: nn.Module) -> None:
        """Set the pruned weights of `model` to exactly zero, in place."""
        parameters = dict(model.named_parameters())
        with torch.no_grad():
            for name, tensor in self.items():
                if name not in parameters or parameters[name].shape != tensor.shape:
                    got = tuple(parameters[name].shape) if name in parameters else "no such parameter"
                    raise PrunescopeError(f"mask of {name!r} has shape {tuple(tensor.shape)}, the model has {got}")
                # masked_fill and not a product: -3 * False is -0.0, and NaN * False is NaN.
                parameters[name].masked_fill_(~tensor.to(parameters[name].device), 0.0)

    def to_tensors(self) -> dict[str, Tensor]:
        """The tensors by name (copies), for saving."""
        return {name: tensor.clone() for name, tensor in self.items()}

    def __repr__(self) -> str:
        return f"Mask({self.kept} of {self.total} kept, {self.density:.2%}, {len(self)} tensors)"

    def _require_same_names(self, other: Mask) -> None:
        if set(self) != set(other):
            different = sorted(set(self) ^ set(other))
            raise PrunescopeError(f"masks cover different parameters: only one of them has {different[:3]}")


def keep_top(scores: Mapping[str, Tensor], mask: Mask, count: int) -> Mask:
    """The mask nested in `mask` that keeps exactly the `count` highest scores over all tensors together.

    As if sorted by score, then position (tensors in the mask's order, elements row-major): among equal scores the
    first keep. A threshold alone could not keep the exact count when scores tie. Weights already pruned never come
    back, whatever their score.

    >>> mask = Mask({"w": torch.ones(5, dtype=torch.bool)})
    >>> keep_top({"w": torch.zeros(5)}, mask, 2)["w"].tolist()
    [True, True, False, False, False]

    Raises:
        PrunescopeError: a score is NaN or of another shape, or `count` exceeds what `mask` keeps.
    """
    for name, tensor in mask.items():
        if name not in scores or scores[name].shape != tensor.shape:
            raise PrunescopeError(f"criterion gave no score of shape {tuple(tensor.shape)} for {name!r}")
    if not 0 <= count <= mask.kept:
        raise PrunescopeError(f"cannot keep {count} weights: the mask has {mask.kept} left")
    alive = torch.cat([tensor.flatten() for tensor in mask.values()])
    flat = torch.cat([_comparable(scores[name]) for name in mask])
    left = flat if bool(alive.all()) else flat[alive]
    if bool(left.isnan().any()):
        raise PrunescopeError("criterion gave NaN scores; is the network's loss finite?")
    kept = alive if count == len(left) else torch.zeros_like(alive)
    if 0 < count < len(left):
        last = np.partition(left.numpy(), len(left) - count)[len(left) - count]  # the lowest score that stays
        kept = alive & (flat > float(last))
        equals = (alive & (flat == float(last))).nonzero().squeeze(1)
        kept[equals[: count - int(kept.sum())]] = True
    pieces = kept.split([tensor.numel() for tensor in mask.values()])
    return Mask({name: piece.view_as(mask[name]) for name, piece in zip(mask, pieces, strict=True)})


def _comparable(scores: Tensor) -> Tensor:
    """Flat, on the CPU, in a type that numpy has and that holds every score exactly."""
    found = scores.detach().cpu().flatten()
    return found if found.dtype in (torch.float32, torch.float64) else found.double()
