"""First order in the loss: what its gradient says of a weight."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, nn

from prunescope.core.errors import PrunescopeError
from prunescope.core.mask import Mask
from prunescope.pruning.gradients import gradients, hessian_times, live_weights, loss_of, mean_gradients, some, summed
from prunescope.pruning.scoring import Batches, Criterion, criteria, over_filters


@criteria.register("snip")
@dataclass(frozen=True)
class Snip(Criterion):
    """|w dL/dw|, L the mean loss: how much the loss feels that the weight is there (Lee et al. 2019, eq. 6).

    Attributes:
        n_batches: of training images to read; 0 is all.
        iterations: cuts on the way, scored anew each time; about 100 is iterative SNIP (de Jorge et al. 2021).
    """

    n_batches: int = 10
    iterations: int = 1
    summary: ClassVar[str] = "|weight x gradient| of the mean loss"
    source: ClassVar[str] = "Lee et al. 2019"
    cost: ClassVar[str] = "`iterations` x forward, backward"
    needs_data: ClassVar[bool] = True
    needs_labels: ClassVar[bool] = True
    needs_gradients: ClassVar[bool] = True

    def score(self, model: nn.Module, mask: Mask, *, batches: Batches | None, seed: int) -> Mapping[str, Tensor]:
        weights = live_weights(model, mask)
        mean = mean_gradients(model, weights, some(batches, self.n_batches))
        return {name: (weight.detach() * mean[name]).abs() for name, weight in weights.items()}


@criteria.register("taylor")
@dataclass(frozen=True)
class Taylor(Criterion):
    """Mean over batches of (w dL/dw)^2, L the batch's loss: squared change of the loss when the weight is set to zero,
    to first order (Molchanov et al. 2019, eq. 8).

    Attributes:
        n_batches: of training images to read; 0 is all.
    """

    n_batches: int = 10
    summary: ClassVar[str] = "(weight x gradient)^2, mean over batches"
    source: ClassVar[str] = "Molchanov et al. 2019"
    cost: ClassVar[str] = "forward, backward"
    needs_data: ClassVar[bool] = True
    needs_labels: ClassVar[bool] = True
    needs_gradients: ClassVar[bool] = True

    def score(self, model: nn.Module, mask: Mask, *, batches: Batches | None, seed: int) -> Mapping[str, Tensor]:
        weights = live_weights(model, mask)

        def squares(x: Tensor, y: Tensor) -> dict[str, Tensor]:
            slopes = gradients(loss_of(model, x, y), weights)
            return {name: (slope * weights[name].detach()).square() for name, slope in slopes.items()}

        return summed(weights, some(batches, self.n_batches), squares)[0]  # the number of images is the same for all


@criteria.register("taylor-gate")
@dataclass(frozen=True)
class TaylorGate(Criterion):
    """Mean over batches of (sum over the filter of w dL/dw)^2, L the batch's loss: squared change of the loss, to first
    order, when a gate on the filter's weights closes (Molchanov et al. 2019). Unlike in `taylor`, what the weights of a
    filter do to the loss may cancel.

    Attributes:
        n_batches: of training images to read; 0 is all.
    """

    n_batches: int = 10
    summary: ClassVar[str] = "(sum over the filter of weight x gradient)^2, mean over batches"
    source: ClassVar[str] = "Molchanov et al. 2019"
    cost: ClassVar[str] = "forward, backward"
    per: ClassVar[Literal["weight", "filter"]] = "filter"
    needs_data: ClassVar[bool] = True
    needs_labels: ClassVar[bool] = True
    needs_gradients: ClassVar[bool] = True

    def score(self, model: nn.Module, mask: Mask, *, batches: Batches | None, seed: int) -> Mapping[str, Tensor]:
        weights = live_weights(model, mask)
        filters = {name: weight.detach().flatten(1).sum(1) for name, weight in weights.items()}

        def squares(x: Tensor, y: Tensor) -> dict[str, Tensor]:
            slopes = gradients(loss_of(model, x, y), weights)
            products = {name: (slope * weights[name].detach()).flatten(1) for name, slope in slopes.items()}
            return {name: product.sum(1).square() for name, product in products.items()}

        total, seen = summed(filters, some(batches, self.n_batches), squares)
        return over_filters({name: value / seen for name, value in total.items()}, mask)


@criteria.register("grasp")
@dataclass(frozen=True)
class Grasp(Criterion):
    """w (Hg), g the gradient and H the Hessian of the mean loss: weights stay whose removal would slow training most
    (Wang et al. 2020, eq. 8; its score -w Hg is lowest for them).

    Attributes:
        n_batches: of training images to read, twice; 0 is all.
        temperature: divides the logits (200 in the paper's code), so that no image is learnt already.
    """

    n_batches: int = 10
    temperature: float = 200.0
    summary: ClassVar[str] = "weight x Hessian x gradient: keeps the gradient's flow"
    source: ClassVar[str] = "Wang et al. 2020"
    cost: ClassVar[str] = "2 x forward, 3 x backward"
    needs_data: ClassVar[bool] = True
    needs_labels: ClassVar[bool] = True
    needs_gradients: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise PrunescopeError(f"temperature must be above 0, got {self.temperature}")

    def score(self, model: nn.Module, mask: Mask, *, batches: Batches | None, seed: int) -> Mapping[str, Tensor]:
        weights = live_weights(model, mask)
        mean = mean_gradients(model, weights, some(batches, self.n_batches), temperature=self.temperature)

        def products(x: Tensor, y: Tensor) -> dict[str, Tensor]:
            own = gradients(loss_of(model, x, y, temperature=self.temperature), weights, graph=True)
            return hessian_times(own, mean, weights)

        total, seen = summed(weights, some(batches, self.n_batches), products)
        return {name: weight.detach() * total[name] / seen for name, weight in weights.items()}
