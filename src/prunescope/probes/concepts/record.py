"""The arrays of the record: concepts that the gate keeps out have weight 0 and are told by `concept.good`."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from prunescope.core.types import Array
from prunescope.probes.concepts.bottleneck import Bottleneck
from prunescope.probes.concepts.cav import Cavs
from prunescope.probes.concepts.head import top, top_frequency


def concept_arrays(cavs: Cavs, good: Tensor, test_auroc: Tensor, shuffled: Tensor) -> dict[str, Array]:
    """Quality of the vectors, one number per concept."""
    return {
        "concept.auroc": cavs.auroc.numpy(),
        "concept.test_auroc": test_auroc.numpy(),
        "concept.shuffled_auroc": shuffled.numpy(),
        "concept.good": good.numpy(),
        "concept.positives": cavs.positives.numpy(),
        "concept.negatives": cavs.negatives.numpy(),
    }


def class_arrays(bottleneck: Bottleneck | None, good: Tensor, classes: int, *, count: int) -> dict[str, Array]:
    """What speaks for the classes, and the path on which the head was chosen.

    Args:
        bottleneck: on the good concepts; None when there is none.
        good: bool (K,).
        count: concepts listed per class.
    """
    contributions, weights = torch.zeros(2, classes, len(good), dtype=torch.float64)
    path: tuple[Tensor, ...] = (torch.zeros(0), torch.zeros(0, dtype=torch.int64), torch.zeros(0))
    if bottleneck is not None:
        head = bottleneck.head
        contributions[:, good], weights[:, good] = head.weights, head.weights / bottleneck.std
        path = (head.penalties, head.nonzeros, head.accuracy)
    return {
        "class.contributions": contributions.float().numpy(),
        "class.weights": weights.float().numpy(),
        "class.top": top(contributions, count).to(torch.int32).numpy(),
        "path.penalties": path[0].numpy(),
        "path.nonzeros": path[1].numpy(),
        "path.accuracy": path[2].numpy(),
    }


def stability(bottleneck: Bottleneck | None, good: Tensor, chosen: Array, *, replicates: int, seed: int) -> Array:
    """`class.top_frequency`: how often each listed concept (C, count) is listed again when images are redrawn."""
    if bottleneck is None or not replicates:
        return np.full(chosen.shape, np.nan, dtype=np.float32)
    drawn = torch.zeros(replicates, len(chosen), len(good), dtype=torch.float64)
    drawn[:, :, good] = bottleneck.resampled(replicates, seed)
    found = top_frequency(torch.from_numpy(chosen).long(), top(drawn, chosen.shape[1]))
    return found.float().numpy()
