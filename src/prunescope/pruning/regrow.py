"""Prune and regrow: while a network trains, its weakest weights make room for others."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from prunescope.core.errors import PrunescopeError, choices
from prunescope.core.mask import Mask, keep_top
from prunescope.pruning.pace import Stretch

Merit = Literal["gradient", "random"]
Decay = Literal["cosine", "none"]


@dataclass(frozen=True)
class Regrow:
    """While a network trains, in every layer a share of the kept weights goes, those of the smallest magnitude, and as
    many come; each layer's density stays.

    | paper                          | written                                             |
    | ------------------------------ | --------------------------------------------------- |
    | RigL (Evci et al. 2020)        | `{by: gradient}`                                    |
    | SET (Mocanu et al. 2018)       | `{by: random, decay: none, every: 1ep, until: 100%}` |
    | GraNet (Liu et al. 2021)       | `{share: 0.5, until: 100%}` with schedule `cubic`   |

    Attributes:
        by: what comes: the weights with the largest absolute gradient of the step just taken, or `random` ones.
        share: of the kept weights that go at once, at first, in (0, 1).
        decay: how the share falls until `until`: `cosine` (RigL's eq. 1: to 0), or `none`.
        every: how often; a place in the training as `1ep`, `500it` or `1%`.
        until: when it ends.
    """

    by: Merit = "gradient"
    share: float = 0.3
    decay: Decay = "cosine"
    every: str = "1%"
    until: str = "75%"

    def __post_init__(self) -> None:
        if self.by not in get_args(Merit):
            raise choices("way to regrow", self.by, get_args(Merit))
        if self.decay not in get_args(Decay):
            raise choices("decay", self.decay, get_args(Decay))
        if not 0 < self.share < 1:
            raise PrunescopeError(f"share of the kept weights that go at once must lie in (0, 1), got {self.share}")
        _ = self.stretch  # refuses places that cannot be

    @property
    def stretch(self) -> Stretch:
        """When weights are exchanged."""
        return Stretch("0it", self.until, self.every)

    def share_at(self, done: float) -> float:
        """Share of the kept weights that go when a share `done` of the way to `until` is done; 0 at its end.

        >>> Regrow(share=0.3).share_at(0.5), Regrow(share=0.3, decay="none").share_at(0.5)
        (0.15, 0.3)
        """
        if done >= 1:
            return 0.0
        return self.share / 2 * (1 + math.cos(math.pi * done)) if self.decay == "cosine" else self.share

    def merit(self, parameters: Mapping[str, Tensor], mask: Mask, generator: torch.Generator) -> dict[str, Tensor]:
        """{parameter: what each of its weights would be regrown for}, of the mask's parameters; higher = rather."""
        if self.by == "random":
            return {name: torch.rand(kept.shape, generator=generator) for name, kept in mask.items()}
        slopes = {name: parameters[name].grad for name in mask}
        return {name: torch.zeros_like(mask[name]) if g is None else g.detach().abs() for name, g in slopes.items()}


def exchanged(mask: Mask, weights: Mapping[str, Tensor], merit: Mapping[str, Tensor], share: float) -> Mask:
    """In every tensor, of n kept weights the floor(share x n) smallest have made room for as many others.

    As in RigL's algorithm 1, those that just went are among the candidates.

    >>> mask = Mask({"w": torch.tensor([True, True, False, False])})
    >>> weights, merit = {"w": torch.tensor([0.1, 0.9, 0.0, 0.0])}, {"w": torch.tensor([1.0, 9.0, 2.0, 3.0])}
    >>> exchanged(mask, weights, merit, share=0.5)["w"].tolist()
    [False, True, False, True]

    Args:
        merit: {parameter: value of each weight}; of those that are not kept, the highest come.
    """
    found = {}
    for name, kept in mask.items():
        before, sizes = Mask({name: kept}), {name: weights[name].detach().abs()}
        count = math.floor(share * before.kept)
        stay = keep_top(sizes, before, before.kept - count)[name]
        found[name] = stay | keep_top(merit, Mask({name: ~stay}), count)[name]
    return Mask(found)
