"""From sums to tables: scores of classes x layers x concepts, tested against random vectors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats

from prunescope.core.types import Array
from prunescope.metrics.paired import holm
from prunescope.metrics.tcav import standing_out
from prunescope.probes.tcav.cavs import LayerVectors
from prunescope.probes.tcav.examples import Dealt
from prunescope.probes.tcav.sensitivity import Sensitivity


@dataclass(frozen=True, eq=False)
class LayerScores:
    """Of one layer; all (C, K), NaN where there is none.

    Attributes:
        share: TCAV score, mean over repeats.  strength: mean cosine, likewise.
        low, high: 95 % t interval of the share over repeats, cut at 0 and 1.
        p: of the tested statistic against random vectors.  p_holm: corrected for all pairs of the layer.
        found: 1 where the statistic is above chance for sure, -1 below, 0 neither.
        chance: mean share of random vectors, and chance_sd its standard deviation.
    """

    share: Array
    strength: Array
    low: Array
    high: Array
    p: Array
    p_holm: Array
    found: Array
    chance: Array
    chance_sd: Array


def layer_scores(
    sums: Sensitivity, vectors: LayerVectors, dealt: Dealt, *, min_auroc: float, alpha: float, statistic: str
) -> LayerScores:
    """Scores of every readable concept; one that cannot be read, a class whose gradient is constant or 0: NaN."""
    fine = ~sums.constant
    shares = sums.shares.where(fine[:, None], torch.nan).numpy()
    strengths = sums.strengths.where(fine[:, None], torch.nan).numpy()
    tables = {name: np.full((sums.classes, len(dealt.sizes)), np.nan) for name in _MEASURED}
    for k in readable(vectors, min_auroc).nonzero()[:, 0].tolist():
        mine, chance = dealt.vectors_of(k).numpy(), dealt.random_of(k).numpy()
        found = _concept(shares[:, mine], shares[:, chance], strengths[:, mine], strengths[:, chance], statistic)
        for name, values in zip(_MEASURED, found, strict=True):
            tables[name][:, k] = values
    above = tables.pop("above")
    corrected = holm(tables["p"].reshape(-1, 1)).reshape(tables["p"].shape)
    sure = np.where(np.isfinite(corrected), np.where(corrected < alpha, np.sign(above), 0.0), np.nan)
    return LayerScores(p_holm=corrected, found=sure, **tables)


_MEASURED = ("share", "strength", "low", "high", "p", "chance", "chance_sd", "above")


def _concept(
    shares: Array, random_shares: Array, strengths: Array, random_strengths: Array, statistic: str
) -> tuple[Array, ...]:
    """What `_MEASURED` names, (C,) each, of scores (C, repeats) and (C, random)."""
    share, repeats = shares.mean(axis=1), shares.shape[1]
    half = stats.t.ppf(0.975, repeats - 1) * shares.std(axis=1, ddof=1) / np.sqrt(repeats)
    low, high = np.maximum(share - half, 0), np.minimum(share + half, 1)
    scores, chance = (shares, random_shares) if statistic == "share" else (strengths, random_strengths)
    above = np.median(scores, axis=1) - np.median(chance, axis=1)
    return (
        share, strengths.mean(axis=1), low, high, standing_out(scores, chance),
        random_shares.mean(axis=1), random_shares.std(axis=1), above,
    )  # fmt: skip


def readable(vectors: LayerVectors, min_auroc: float) -> torch.Tensor:
    """Bool (K,): concepts whose vectors tell held-out images apart well enough."""
    return vectors.auroc >= min_auroc  # NaN is not


def stacked(found: Mapping[str, LayerScores | None], shape: tuple[int, int]) -> dict[str, Array]:
    """{name: (C, L, K)}; a refused layer (None) is NaN."""
    names = ("share", "strength", "low", "high", "p", "p_holm", "found", "chance", "chance_sd")
    blank = np.full(shape, np.nan)
    return {
        name: np.stack([blank if scores is None else getattr(scores, name) for scores in found.values()], axis=1)
        for name in names
    }
