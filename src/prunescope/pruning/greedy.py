"""Greedy pruning by CAR: take out the unit that costs least, look at all others anew, and so on.

After Abbasi-Asl and Yu 2017, who prune one layer at a time and leave the others whole. What the papers leave open is
settled thus: a unit that is out is zero where it is read; ties go to the smaller drop in the true class's
log-probability, then to the earlier layer and the lower channel; the images that choose are not those reported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import torch
from torch import nn

from prunescope.core.errors import PrunescopeError
from prunescope.core.seeds import derive
from prunescope.data.split import Split
from prunescope.engine.ablation.ablate import Ablator
from prunescope.engine.ablation.answers import Effort
from prunescope.engine.ablation.units import Units, units_of
from prunescope.engine.without import Order, predictions
from prunescope.pruning.race import Choice, Race, choose

#: Trains a network in place, in which these channels are out.
FineTune: TypeAlias = Callable[[nn.Module, Units], None]


@dataclass(frozen=True)
class Until:
    """When to stop; whatever comes first. In any case every layer keeps one channel.

    Attributes:
        steps: removals, of each layer where each goes by itself.
        ratio: compression: channels before / after, of the layer where each goes by itself, else of all.
        accuracy: a removal is not made after which accuracy on the images that choose would be lower.
    """

    steps: int | None = None
    ratio: float | None = None
    accuracy: float | None = None

    def __post_init__(self) -> None:
        if (self.steps is not None and self.steps < 0) or (self.ratio is not None and self.ratio < 1):
            raise PrunescopeError(f"stop after 0 steps or more, at a ratio of 1 or more; got {self}")

    def reached(self, removed: int, channels: int) -> bool:
        """Whether so many removals are enough."""
        enough = self.steps is not None and removed >= self.steps
        return enough or (self.ratio is not None and channels >= self.ratio * (channels - removed))


@dataclass(frozen=True)
class Step:
    """One removal.

    Attributes:
        choice: what went, and why.
        accuracy: on the images that choose, after it (and after fine-tuning, if `tuned`), 0 to 1.
        report: the same on the other images; None: there are none.
        tuned: whether the network was fine-tuned after it.
    """

    choice: Choice
    accuracy: float
    report: float | None
    tuned: bool = False

    @property
    def unit(self) -> tuple[str, int]:
        """(layer, channel)."""
        return self.choice.layer, self.choice.channel


@dataclass(frozen=True)
class Greedy:
    """A greedy run.

    Attributes:
        channels: {layer: how many it had}, of all that could lose some.
        accuracy, report: of the network before the first removal, as in `Step`.
        steps: removals in their order; where each layer goes by itself, layer after layer.
    """

    channels: Mapping[str, int]
    accuracy: float
    report: float | None
    steps: tuple[Step, ...]

    @property
    def order(self) -> Order:
        return tuple(step.unit for step in self.steps)

    def of(self, layer: str) -> tuple[Step, ...]:
        """The removals in one layer."""
        return tuple(step for step in self.steps if step.choice.layer == layer)


def greedy(
    model: nn.Module,
    split: Split,
    *,
    layers: Sequence[str] | Units | None = None,
    report: Split | None = None,
    per_layer: bool = True,
    until: Until | None = None,
    fine_tune: FineTune | None = None,
    every: int = 1,
    race: Race | None = None,
    effort: Effort | None = None,
    seed: int = 0,
    done: Greedy | None = None,
    on_step: Callable[[Greedy], None] | None = None,
    device: torch.device | str = "cpu",
) -> Greedy:
    """Remove one unit after the other, each time the one with the least CAR in the network as it is by then.

    Args:
        split: images that choose. They must be labelled, and none of them may be in `report`.
        layers: whose units may go, or {layer: which of its channels}; None: all that have units.
        report: images on which accuracy is reported as well.
        per_layer: each layer by itself while the others are whole, as in the papers; otherwise all compete.
        fine_tune: called with the model and what is out after every `every` removals; trains the model in place. A
            mask of `removal_mask` keeps it out. With more than one layer it needs `per_layer=False`.
        seed: of races.
        done: what a run that was begun before had found, with the model as it was by then: it is not made again.
        on_step: called after each removal with what was found so far.

    >>> model = nn.Sequential(nn.Conv2d(1, 3, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    >>> images = torch.randint(0, 255, (5, 1, 4, 4), dtype=torch.uint8)
    >>> split = Split(images, torch.tensor([0, 1, 0, 1, 1]), [str(i) for i in range(5)], ("a", "b"))
    >>> len(greedy(model, split).steps)
    2

    Raises:
        Untraceable: neither torch.fx nor hooks can follow the network (`Ablator`).
        PrunescopeError: a split without images, one that both chooses and reports, an unknown layer or channel,
            a `done` of another run, an effort with another removal than `zero`.
    """
    _check(split, report, every)
    run = _Run(model, split, report, effort, fine_tune, every, race or Race(), seed, device)
    units = units_of(run.ablator.channels, layers)
    if fine_tune is not None and per_layer and len(units) > 1:
        raise PrunescopeError(
            "fine-tuning for one layer changes the network for the next: name one layer, or let all compete "
            "(per_layer=False)"
        )
    found = done or Greedy({name: run.ablator.channels[name] for name in units}, *run.measured({}), ())
    parts = [{name: channels} for name, channels in units.items()] if per_layer else [units]
    for part in parts:
        found = run.through(part, until or Until(), found, on_step)
    return found


class _Run:
    """A network on its way, and how it is looked at."""

    def __init__(
        self, model: nn.Module, split: Split, report: Split | None, effort: Effort | None, fine_tune: FineTune | None,
        every: int, race: Race, seed: int, device: torch.device | str,
    ) -> None:  # fmt: skip
        self.model, self.split, self.report, self.fine_tune, self.every = model, split, report, fine_tune, every
        self.race, self.seed, self.options = race, seed, {"effort": effort, "device": device}
        self.capture()

    def capture(self) -> None:
        """Look at the network as it is now."""
        self.ablator = Ablator(self.model, self.split, **self.options)  # type: ignore[arg-type]

    def through(
        self, units: Units, until: Until, found: Greedy, on_step: Callable[[Greedy], None] | None
    ) -> Greedy:  # fmt: skip
        """What was found so far, and further removals among these units until it is enough."""
        gone, known = _gone(found, units), self.ablator.channels
        total = sum(known[name] for name in units)
        while not until.reached(removed := sum(map(len, gone.values())), total):
            left = {name: [c for c in channels if c not in gone[name]] for name, channels in units.items()}
            left = {name: channels for name, channels in left.items() if channels and len(gone[name]) + 1 < known[name]}
            if not left:
                break
            seed = derive(self.seed, "greedy", *units, removed)
            choice = choose(self.ablator, left, gone, race=self.race, seed=seed)
            if until.accuracy is not None and choice.after < until.accuracy:
                break
            gone[choice.layer].append(choice.channel)
            found = replace(found, steps=(*found.steps, self.step(choice, gone, removed + 1)))
            if on_step is not None:
                on_step(found)
        return found

    def step(self, choice: Choice, gone: Units, number: int) -> Step:
        """What there is to say of a removal, after fine-tuning where it is due."""
        if self.fine_tune is None or number % self.every:
            return Step(choice, choice.after, self._accuracy(self.report, gone))
        self.fine_tune(self.model, gone)
        self.capture()
        return replace(Step(choice, *self.measured(gone)), tuned=True)

    def measured(self, gone: Units) -> tuple[float, float | None]:
        """Accuracy on the images that choose and on the others."""
        accuracy = self._accuracy(self.split, gone)
        assert accuracy is not None
        return accuracy, self._accuracy(self.report, gone)

    def _accuracy(self, split: Split | None, gone: Units) -> float | None:
        if split is None:
            return None
        said = predictions(self.ablator, split, [gone])[0]
        return float((said == split.labels).double().mean())


def _gone(found: Greedy, units: Units) -> dict[str, list[int]]:
    """{layer: channels that went} of these layers."""
    gone: dict[str, list[int]] = {name: [] for name in units}
    for layer, channel in found.order:
        if layer in units:
            if channel not in units[layer]:
                raise PrunescopeError(f"`done` takes channel {channel} out of {layer}, which may not go: another run's")
            gone[layer].append(channel)
    return gone


def require_apart(choose: Split, report: Split) -> None:
    """Refuse images that both choose and report."""
    shared = np.intersect1d(choose.ids, report.ids).tolist()
    if shared:
        raise PrunescopeError(
            f"{len(shared)} images both choose and report, {shared[0]!r} first: an accuracy that was chosen for is no "
            "measurement; take other images for `report`"
        )


def _check(split: Split, report: Split | None, every: int) -> None:
    if not len(split) or (report is not None and not len(report)) or every < 1:
        raise PrunescopeError(f"greedy pruning needs images in each split and every >= 1, got {every}")
    if report is not None:
        require_apart(split, report)
