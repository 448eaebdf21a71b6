"""Orders of removal beside each other: what accuracy and diversity are left along each, also fine-tuned."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from prunescope.core.errors import PrunescopeError, choices
from prunescope.core.types import Array
from prunescope.data.split import Split
from prunescope.engine.ablation.ablate import Ablator
from prunescope.engine.ablation.answers import Effort
from prunescope.engine.correlations import channel_correlations
from prunescope.engine.train import fit
from prunescope.engine.training import Training
from prunescope.engine.without import Units, predictions
from prunescope.metrics.redundancy import ALIKE, clusters, diversity_kept
from prunescope.pruning.greedy import FineTune, require_apart
from prunescope.pruning.kept_out import removal_mask
from prunescope.pruning.orders import METHODS, Ground
from prunescope.pruning.race import Race
from prunescope.pruning.trails import Comparison, Trail

#: Shares of a layer's channels after whose removal the network is fine-tuned.
SHARES = (0.25, 0.5, 0.75)


def compare_removals(
    model: nn.Module,
    choose: Split,
    report: Split,
    layers: Sequence[str],
    *,
    methods: Sequence[str] = tuple(METHODS),
    every: int = 1,
    fine_tune: FineTune | None = None,
    at: Sequence[float] = SHARES,
    maps: Mapping[str, str] | None = None,
    walks: int = 5,
    effort: Effort | None = None,
    race: Race | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
    on_trail: Callable[[Trail], None] | None = None,
) -> Comparison:
    """Take each layer apart by each method while the other layers are whole, as Abbasi-Asl and Yu 2017 do, and measure
    accuracy on images by which nothing was chosen.

    A channel that is gone is zero where it is read. Diversity counts clusters of channels whose maps over the images
    that choose correlate by 0.8 (`pruning.diversity`).

    Args:
        choose: images by which methods choose that need any.
        report: images on which accuracy is measured; none of them may be in `choose`.
        layers: names.
        methods: of `pruning.orders.METHODS`.
        every: accuracy is measured after every so many removals, at the last one, and at the shares `at`.
        fine_tune: trains a copy of the network in place in which channels are out, such as `fine_tuning(...)`; done
            anew from the given weights at each share in `at`.
        at: shares of a layer's channels, 0 to 1, rounded down to whole channels.
        maps: {layer: module whose output stands for its channels}, such as the ReLU behind it; default: the layer.
        walks: orders drawn for Shapley values.
        effort, race: of CAR. With `Effort(screen=True)` its predictions are as far as calibrated.
        seed: of whatever is drawn.
        on_trail: called with each trail as it is done.

    Raises:
        Untraceable: torch.fx cannot follow the network.
        PrunescopeError: an unknown layer or method, an image that both chooses and reports, shares out of range.
    """
    _check(methods, every, at)
    require_apart(choose, report)
    ground = Ground(model, choose, effort or Effort(), race or Race(), walks, seed, device)
    if unknown := [name for name in layers if name not in ground.ablator.channels]:
        raise choices("layer with units", unknown[0], ground.ablator.channels)
    run = _Run(ground, report, every, fine_tune, tuple(at))
    trails = []
    for layer in layers:
        kinds = _kinds(ground, layer, (maps or {}).get(layer, layer))
        for method in methods:
            trails.append(run.trail(layer, method, kinds))
            if on_trail is not None:
                on_trail(trails[-1])
    return Comparison(tuple(trails))


def fine_tuning(split: Split, training: Training, *, seed: int = 0, device: torch.device | str = "cpu") -> FineTune:
    """Trains a network on a split while what is out of it stays zero: the same images in the same order for all."""

    def tune(model: nn.Module, gone: Units) -> None:
        fit(model, split, training, seed=seed, mask=removal_mask(model, gone, split.shape), device=device)

    return tune


@dataclass(frozen=True, eq=False)
class _Run:
    """How trails are made."""

    ground: Ground
    report: Split
    every: int
    fine_tune: FineTune | None
    at: tuple[float, ...]

    def trail(self, layer: str, method: str, kinds: Array) -> Trail:
        """A layer, taken apart by a method."""
        units = self.ground.ablator.channels[layer]
        order = np.array([channel for _, channel in METHODS[method](self.ground, layer)], dtype=np.int64)
        shares = sorted({min(math.floor(share * units), len(order)) for share in self.at})
        removed = np.unique([*range(0, len(order), self.every), *shares, len(order)])
        said = predictions(self.ground.ablator, self.report, [{layer: order[:n].tolist()} for n in removed])
        tuned = {} if self.fine_tune is None else {n: self.tuned({layer: order[:n].tolist()}) for n in shares if n}
        left = diversity_kept(kinds, order)[removed] if (kinds >= 0).any() else np.full(len(removed), np.nan)
        return Trail(layer, method, self.ground.seed, units, order, removed, self.right(said), tuned, left)

    def tuned(self, gone: Units) -> Array:
        """Right without these channels, once a copy was fine-tuned? (images,)."""
        assert self.fine_tune is not None
        model = copy.deepcopy(self.ground.model)
        self.fine_tune(model, gone)
        ablator = Ablator(model, self.report, effort=self.ground.effort.in_full, device=self.ground.device)
        return self.right(predictions(ablator, self.report, [gone]))[0]

    def right(self, said: Tensor) -> Array:
        found: Array = (said == self.report.labels).numpy()
        return found


def _kinds(ground: Ground, layer: str, place: str) -> Array:
    table = channel_correlations(ground.model, ground.split, [place], device=ground.device)[place]
    units = ground.ablator.channels[layer]
    if len(table) != units:
        raise PrunescopeError(f"maps: {place} has {len(table)} channels, and {layer} has {units}")
    return clusters(table, ALIKE)


def _check(methods: Sequence[str], every: int, at: Sequence[float]) -> None:
    for method in methods:
        if method not in METHODS:
            raise choices("method", method, METHODS)
    if every < 1 or not all(0 < share < 1 for share in at):
        raise PrunescopeError(f"measure after every 1 removal or more, and at shares in (0, 1); got {every}, {[*at]}")
