"""What filters answer to the training images."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from prunescope.core.mask import Mask
from prunescope.pruning.answers import mean_answers
from prunescope.pruning.gradients import some
from prunescope.pruning.scoring import Batches, Criterion, criteria, over_filters


@dataclass(frozen=True)
class _Answering(Criterion):
    """Scores filters by a number per image and filter, averaged over images."""

    n_batches: int = 10
    cost: ClassVar[str] = "forward"
    per: ClassVar[Literal["weight", "filter"]] = "filter"
    needs_data: ClassVar[bool] = True

    def score(self, model: nn.Module, mask: Mask, *, batches: Batches | None, seed: int) -> Mapping[str, Tensor]:
        return over_filters(mean_answers(model, mask, some(batches, self.n_batches), self.of), mask)

    @staticmethod
    @abstractmethod
    def of(answer: Tensor) -> Tensor:
        """(B, filters, places) -> (B, filters)."""


@criteria.register("apoz")
@dataclass(frozen=True)
class Apoz(_Answering):
    """1 - APoZ: the share of images and places at which a filter's activation is not zero (Hu et al. 2016, eq. 1).

    Measured behind the ReLU, after norm and residual sum. Functions that are nowhere exactly zero (GELU, sigmoid), and
    layers without any, score 1: such filters go last.

    Attributes:
        n_batches: of training images to read; 0 is all.
    """

    summary: ClassVar[str] = "share of activations that are not zero"
    source: ClassVar[str] = "Hu et al. 2016"

    @staticmethod
    def of(answer: Tensor) -> Tensor:
        return (answer != 0).float().mean(2)


@criteria.register("activation")
@dataclass(frozen=True)
class MeanActivation(_Answering):
    """Mean absolute activation over images and places (Molchanov et al. 2017, section 2.2: "activation").

    Measured behind the activation function, after norm and residual sum; of a ReLU it is the plain mean.

    Attributes:
        n_batches: of training images to read; 0 is all.
    """

    summary: ClassVar[str] = "mean absolute activation"
    source: ClassVar[str] = "Molchanov et al. 2017"

    @staticmethod
    def of(answer: Tensor) -> Tensor:
        return answer.abs().mean(2)


@criteria.register("chip")
@dataclass(frozen=True)
class Chip(_Answering):
    """Channel independence: by how much the nuclear norm of an image's feature maps, as a matrix (filters x places),
    falls when the filter's row is set to zero; mean over images (Sui et al. 2021).

    Measured behind the activation function, after norm and residual sum. One eigendecomposition an image does for all
    filters (`independence`), where the definition takes a singular value decomposition for each.

    Attributes:
        n_batches: of training images to read; 0 is all.
    """

    n_batches: int = 4
    summary: ClassVar[str] = "fall of the feature maps' nuclear norm without the filter's"
    source: ClassVar[str] = "Sui et al. 2021"

    @staticmethod
    def of(answer: Tensor) -> Tensor:
        return independence(answer)


#: Steps of the integral below, in log t, around the largest eigenvalue. The trapezoid rule's error falls with
#: exp(-2 pi^2 / step), as the integrand's poles lie pi off the line; the ends are cut at exp(-20) of the largest.
_STEP = 0.75
_STEPS = torch.arange(-40, 40, _STEP, dtype=torch.float64)


def independence(maps: Tensor) -> Tensor:
    """Nuclear norm of a matrix minus that of the matrix without a row, for every row: (B, C, P) -> (B, C).

    The nuclear norm is tr sqrt(G) of G = A A^T, and sqrt(x) is 1/pi times the integral of x / (x + t) / sqrt(t) over
    all t > 0. Without row i, G loses a row and a column; det(G + t) becomes det(G + t) [(G + t)^-1]_ii. So what row i
    adds is 1/pi times the integral of

        [G (G + t)^-2]_ii / [(G + t)^-1]_ii / sqrt(t),

    whose diagonals follow from the eigenvectors of G. Within 1e-7 of the largest singular value.
    """
    values, squares = _spectrum(maps.double())
    largest = values.amax(1).clamp_min(torch.finfo(torch.float64).tiny)
    values, t = (values / largest[:, None])[..., None], _STEPS.to(maps.device).exp()
    inverse = 1 / (values + t)  # (B, n, steps)
    integrand = (squares @ (values * inverse.square())) / (squares @ inverse) * t.sqrt()  # over log t
    return integrand.sum(2) * _STEP / torch.pi * largest.sqrt()[:, None]


def _spectrum(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues (B, n) of A A^T, at least 0, and squared components (B, C, n) of their unit eigenvectors.

    Of the smaller of A A^T and A^T A; in the second case what is missing to a unit row belongs to the eigenvalue 0.
    """
    rows, columns = maps.shape[1:]
    if rows <= columns:
        values, vectors = torch.linalg.eigh(maps @ maps.mT)
        return values.clamp_min(0), vectors.square()
    values, vectors = torch.linalg.eigh(maps.mT @ maps)
    real = values > torch.finfo(values.dtype).eps * rows * values.amax(1, keepdim=True)
    squares = ((maps @ vectors).square() / values[:, None]).where(real[:, None], 0.0)
    rest = (1 - squares.sum(2, keepdim=True)).clamp_min(0)
    return torch.cat([values.where(real, 0.0), torch.zeros_like(values[:, :1])], 1), torch.cat([squares, rest], 2)
