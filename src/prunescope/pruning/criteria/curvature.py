"""Second order in the loss: what it costs to set a weight to zero near a minimum."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from prunescope.core.errors import PrunescopeError
from prunescope.core.mask import Mask
from prunescope.core.seeds import torch_generator
from prunescope.pruning.gradients import gradients, hessian_times, image_gradients, live_weights, loss_of, some, summed
from prunescope.pruning.scoring import Batches, Criterion, criteria


@criteria.register("fisher")
@dataclass(frozen=True)
class Fisher(Criterion):
    """w^2 F / 2, F the mean of squared gradients of single images: the diagonal of the empirical Fisher matrix stands
    for that of the Hessian (Theis et al. 2018, eq. 7).

    Attributes:
        n_batches: of training images to read; 0 is all.
    """

    n_batches: int = 4
    summary: ClassVar[str] = "weight^2 x diagonal of the empirical Fisher matrix / 2"
    source: ClassVar[str] = "Theis et al. 2018"
    cost: ClassVar[str] = "forward, backward an image"
    needs_data: ClassVar[bool] = True
    needs_labels: ClassVar[bool] = True
    needs_gradients: ClassVar[bool] = True

    def score(self, model: nn.Module, mask: Mask, *, batches: Batches | None, seed: int) -> Mapping[str, Tensor]:
        weights = live_weights(model, mask)
        total, seen = {name: torch.zeros_like(weight) for name, weight in weights.items()}, 0
        for chunk in image_gradients(model, weights, some(batches, self.n_batches)):
            for name, gradient in chunk.items():
                total[name] += gradient.square().sum(0)
            seen += len(next(iter(chunk.values())))
        return {name: w.detach().square() * total[name] / (2 * seen) for name, w in weights.items()}


@criteria.register("obd")
@dataclass(frozen=True)
class OptimalBrainDamage(Criterion):
    """w^2 H / 2, H the diagonal of the mean loss's Hessian: the loss's increase at a minimum when the weight is set to
    zero alone (LeCun et al. 1990, eq. 4).

    The diagonal is estimated: the mean of z (Hz) over random signs z has it as its expectation (Bekas et al. 2007); its
    error falls with the square root of `probes`.

    Attributes:
        n_batches: of training images to read; 0 is all.
        probes: vectors of random signs per batch.
    """

    n_batches: int = 4
    probes: int = 8
    summary: ClassVar[str] = "weight^2 x diagonal of the Hessian / 2"
    source: ClassVar[str] = "LeCun et al. 1990"
    cost: ClassVar[str] = "forward, backward, 2 x `probes` more"
    needs_data: ClassVar[bool] = True
    needs_labels: ClassVar[bool] = True
    needs_gradients: ClassVar[bool] = True
    needs_seed: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.probes < 1:
            raise PrunescopeError(f"probes must be at least 1, got {self.probes}")

    def score(self, model: nn.Module, mask: Mask, *, batches: Batches | None, seed: int) -> Mapping[str, Tensor]:
        weights, generator = live_weights(model, mask), torch_generator(seed, "random signs")

        def diagonal(x: Tensor, y: Tensor) -> dict[str, Tensor]:
            own = gradients(loss_of(model, x, y), weights, graph=True)
            found = {name: torch.zeros_like(weight) for name, weight in weights.items()}
            for _ in range(self.probes):
                signs = {name: _signs(weight, generator) for name, weight in weights.items()}
                for name, product in hessian_times(own, signs, weights, again=True).items():
                    found[name] += signs[name] * product
            return found

        total, seen = summed(weights, some(batches, self.n_batches), diagonal)
        return {n: w.detach().square() * total[n] / (2 * self.probes * seen) for n, w in weights.items()}


def _signs(like: Tensor, generator: torch.Generator) -> Tensor:
    drawn = torch.randint(0, 2, like.shape, generator=generator)
    return (2 * drawn - 1).to(like)


@criteria.register("obs")
@dataclass(frozen=True)
class BlockObs(Criterion):
    """w^2 / (2 [F^-1]_ii), F the empirical Fisher matrix plus `damping`, of blocks of `block` neighbouring weights of a
    layer: the loss's increase when the weight is set to zero and its neighbours make up for it (Hassibi and Stork 1993,
    eq. 5; blocks as in WoodFisher, Singh and Alistarh 2020). Only scores: the neighbours are left to retraining.

    Attributes:
        n_batches: of training images to read; 0 is all.
        block: weights a block, in the order of the flattened tensor.
        damping: added to the diagonal.
    """

    n_batches: int = 4
    block: int = 32
    damping: float = 1e-5
    summary: ClassVar[str] = "weight^2 / (2 x diagonal of the inverse Fisher matrix), in blocks"
    source: ClassVar[str] = "Singh and Alistarh 2020"
    cost: ClassVar[str] = "forward, backward an image"
    needs_data: ClassVar[bool] = True
    needs_labels: ClassVar[bool] = True
    needs_gradients: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.block < 1 or self.damping <= 0:
            raise PrunescopeError(f"block must be at least 1 and damping above 0, got {self.block} and {self.damping}")

    def score(self, model: nn.Module, mask: Mask, *, batches: Batches | None, seed: int) -> Mapping[str, Tensor]:
        weights = live_weights(model, mask)
        fishers, seen = {name: self._zeros(weight) for name, weight in weights.items()}, 0
        for chunk in image_gradients(model, weights, some(batches, self.n_batches)):
            for name, gradient in chunk.items():
                parts = self._blocks(gradient.masked_fill(~mask[name].to(gradient.device), 0.0).flatten(1))
                fishers[name] += torch.einsum("nbi,nbj->bij", parts, parts)
            seen += len(next(iter(chunk.values())))
        return {name: self._scores(weight.detach(), fishers[name] / seen) for name, weight in weights.items()}

    def _zeros(self, weight: Tensor) -> Tensor:
        count = -(-weight.numel() // self.block)
        return torch.zeros(count, self.block, self.block, device=weight.device)  # `block` times the network's memory

    def _blocks(self, flat: Tensor) -> Tensor:
        """(n, weights) -> (n, blocks, block), the last filled with zeros."""
        padding = -flat.shape[1] % self.block
        return nn.functional.pad(flat, (0, padding)).view(len(flat), -1, self.block)

    def _scores(self, weight: Tensor, fisher: Tensor) -> Tensor:
        one = torch.eye(self.block, dtype=torch.float64, device=fisher.device)
        damped = fisher.double() + self.damping * one
        factor, failed = torch.linalg.cholesky_ex(damped)
        if bool(failed.any()):  # sums of large gradients, rounded, need not be positive definite: damp the rounding too
            wrong = failed > 0
            rounding = self.block * torch.finfo(fisher.dtype).eps * fisher[wrong].diagonal(dim1=1, dim2=2).sum(1)
            factor[wrong] = torch.linalg.cholesky(damped[wrong] + rounding.double()[:, None, None] * one)
        inverse = torch.cholesky_inverse(factor).diagonal(dim1=1, dim2=2).flatten()
        return weight.double().square() / (2 * inverse[: weight.numel()].view_as(weight))
