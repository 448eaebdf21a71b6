"""Which unit costs least when it is taken out: all compared on all images, or a race that the hopeless leave early."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from prunescope.core.errors import PrunescopeError, choices
from prunescope.core.seeds import numpy_generator
from prunescope.core.types import Array
from prunescope.data.split import Split
from prunescope.engine.ablation.ablate import Ablator
from prunescope.engine.ablation.deciders import gap
from prunescope.engine.ablation.gates import Reading
from prunescope.engine.ablation.hooked import Hooked
from prunescope.engine.ablation.scene import images_first
from prunescope.engine.ablation.units import Units
from prunescope.metrics.ablation import order, reductions
from prunescope.metrics.racing import can_win, unbeaten

Kind = Literal["none", "exact", "sign"]

#: Mean drops in log-probability, in nats, that are told apart by rounding alone.
ROUNDING = 1e-6


@dataclass(frozen=True)
class Race:
    """How candidates are compared.

    Attributes:
        by: `none`: all of them on all images. `exact`: one leaves when it cannot have the largest count of right images
            any more, whatever the images to come; the winner is that of `none`. `sign`: one leaves when a sign test
            says that the leader is better; the best is lost with a probability of at most `delta` at each step.
        delta: of `sign`.
        images: after how many the race is looked at.
    """

    by: Kind = "none"
    delta: float = 0.01
    images: int = 256

    def __post_init__(self) -> None:
        if self.by not in get_args(Kind):
            raise choices("race", self.by, get_args(Kind))
        if not 0 < self.delta < 0.25 or self.images < 1:
            raise PrunescopeError(
                f"a race needs 0 < delta < 0.25 and at least 1 image at a time, got {self.delta} and {self.images}"
            )


@dataclass(frozen=True)
class Choice:
    """The unit that goes.

    Attributes:
        layer, channel: which it is.
        car: accuracy of the network minus accuracy without it, -1 to 1.
        drop: fall of the true class's mean log-probability, in nats.
        before, after: accuracy with and without it.
        tied: how many others have the same CAR, of those that saw all images.
        undecided: how many of these have the same drop as well, so that the lower position decided.
        asked: candidates x images that were computed, what tied candidates were asked once more aside.
        spared: candidates x images that were not.
    """

    layer: str
    channel: int
    car: float
    drop: float
    before: float
    after: float
    tied: int
    undecided: int
    asked: int
    spared: int


def choose(
    ablator: Ablator, candidates: Units, gone: Units | None = None, *, race: Race | None = None, seed: int = 0
) -> Choice:
    """The candidate with the least CAR; ties: the smaller drop, then the earlier layer, then the lower channel.

    Low precision and screens know the drop less well than the decisions, so the tied are looked at once more without.

    Args:
        ablator: with the images on which all are compared.
        candidates: at least one.
        gone: what is out already.
        seed: of the order of the images, where a race draws one.
    """
    gone, race = gone or {}, race or Race()
    if ablator.effort.removal != "zero":
        raise PrunescopeError(
            f"what is chosen is made zero, so its CAR must be; got removal {ablator.effort.removal!r}"
        )
    field = _Field(ablator, candidates)
    if race.by == "none":
        field.run(None, gone)
    elif race.by == "exact":
        _race_exactly(field, gone, race.images)
    else:
        _race_by_sign(field, gone, race, seed)
    return field.choice(gone)


class _Field:
    """The candidates, and what was seen of them.

    Attributes:
        units: (layer, channel) of each of U candidates.
        right: bool (U, images): right without it? As far as it was seen.
        whole: bool (images,): right with it?
        drops: sums (U, classes) over the images that it was seen on.
        alive: (a,) candidates still in the race.
        positions: of the images seen so far (seen,).
    """

    def __init__(self, ablator: Ablator, candidates: Units) -> None:
        self.ablator, self.split = ablator, ablator.split
        self.units = [(layer, channel) for layer, channels in candidates.items() for channel in sorted(channels)]
        images = len(self.split)
        self.right, self.whole = np.zeros((len(self.units), images), dtype=np.bool_), np.zeros(images, dtype=np.bool_)
        self.drops = np.zeros((len(self.units), len(self.split.classes)))
        self.alive, self.positions = np.arange(len(self.units)), np.arange(0)
        self.asked = 0

    def run(self, part: Array | None, gone: Units) -> None:
        """All that are alive, on some more images; None: on all."""
        ablator = self.ablator if part is None else _on(self.ablator, self.split.subset(part))
        part = np.arange(len(self.split)) if part is None else part
        living: dict[str, list[int]] = {}
        for unit in self.alive:
            layer, channel = self.units[unit]
            living.setdefault(layer, []).append(channel)
        found, labels = ablator.run(living, gone=gone), ablator.split.labels.numpy()
        self.right[np.ix_(self.alive, part)] = found.predicted.numpy() == labels
        self.whole[part] = found.dense.numpy() == labels
        self.drops[self.alive] += found.drop.numpy()
        self.asked += found.worlds
        self.positions = np.concatenate([self.positions, part])

    def choice(self, gone: Units) -> Choice:
        """The best of those alive, all of which have seen all images."""
        found = reductions(self.right[self.alive], self.whole, self.split.labels.numpy(), self.split.classes)
        net = (found.losses - found.gains).sum(1)
        level = net == net.min()
        if level.sum() > 1:
            self._know_drops(self.alive[level], gone)
        found = replace(found, drops=self.drops[self.alive])
        best = int(order(found, rounding=ROUNDING).order[0])
        layer, channel = self.units[self.alive[best]]
        same = level & (np.abs(found.mean_drop - found.mean_drop[best]) <= ROUNDING)
        return Choice(
            layer, channel, float(found.car[best]), float(found.mean_drop[best]), float(self.whole.mean()),
            float(self.right[self.alive[best]].mean()), int(level.sum()) - 1, int(same.sum()) - 1, self.asked,
            self.right.size - self.asked,
        )  # fmt: skip

    def _know_drops(self, tied: Array, gone: Units) -> None:
        """Those of these candidates in float32, of all images."""
        if self.ablator.effort.precision == "32" and not self.ablator.effort.screen:
            return
        exact = copy.copy(self.ablator)
        exact.decider, exact.effort = exact.exact, exact.effort.in_full
        units = [self.units[candidate] for candidate in tied]
        layers = {layer: [c for name, c in units if name == layer] for layer, _ in units}
        self.drops[tied] = exact.run(layers, gone=gone).drop.numpy()


def _race_exactly(field: _Field, gone: Units, size: int) -> None:
    """Images with small margins first: there decisions turn, and candidates fall behind."""
    margin, right, unread = _look(field.ablator, field.units, gone)
    for part in _parts(np.argsort(margin, kind="stable"), size):
        field.run(part, gone)
        unseen = np.ones(len(margin), dtype=np.bool_)
        unseen[field.positions] = False
        blank = unread[field.alive][:, unseen]
        correct = field.right[field.alive].sum(1) + (blank & right[unseen]).sum(1)
        field.alive = field.alive[can_win(correct, (~blank).sum(1))]


def _race_by_sign(field: _Field, gone: Units, race: Race, seed: int) -> None:
    images, candidates = len(field.split), len(field.units)
    parts = _parts(numpy_generator(seed, "race").permutation(images), race.images)
    for part in parts:
        field.run(part, gone)
        seen = field.right[field.alive][:, field.positions]
        left = unbeaten(seen, images, delta=race.delta, candidates=candidates, checks=len(parts))
        field.alive = field.alive[left]


def _parts(positions: Array, size: int) -> list[Array]:
    return np.split(positions, range(size, len(positions), size))


@torch.inference_mode()
def _look(ablator: Ablator, units: Sequence[tuple[str, int]], gone: Units) -> tuple[Array, Array, Array]:
    """What one pass of the network tells of every image.

    Returns:
        margins (images,) between the two largest logits; bool (images,), whether it is right; bool (units, images),
        whether a unit is zero wherever it is read, so that the image says the same without it.
    """
    split = ablator.split
    margin, right = torch.empty(len(split)), torch.empty(len(split), dtype=torch.bool)
    unread = torch.zeros(len(units), len(split), dtype=torch.bool)
    out = {layer: torch.as_tensor(list(channels), dtype=torch.int64) for layer, channels in gone.items()}
    exact = ablator.exact
    exact.begin(out)
    readings = {} if isinstance(exact, Hooked) else exact.stage.readings  # with hooks, what readers get is not seen
    layers = dict.fromkeys(layer for layer, _ in units if layer in readings)
    rows = {layer: [i for i, (name, _) in enumerate(units) if name == layer] for layer in layers}
    for index, x, y in split.batches(ablator.batch_size, ablator.device):
        chunk = exact.look_at(x)
        margin[index], right[index] = gap(chunk.logits).cpu(), (chunk.logits.argmax(1) == y).cpu()
        for layer, at in rows.items():
            channels = [units[i][1] for i in at]
            blank = torch.stack([_blank(chunk.base[r.gate], r, channels) for r in readings[layer]]).all(0)
            unread[torch.tensor(at)[:, None], index] = blank.t().cpu()
    return margin.numpy(), right.numpy(), unread.numpy()


def _blank(value: Tensor, reading: Reading, channels: list[int]) -> Tensor:
    """Bool (images, channels): zero at all places."""
    found = images_first(reading.gate, value).movedim(reading.axis, 1)
    here = found[:, reading.index(torch.tensor(channels))]
    return (here == 0).flatten(2).all(2)


def _on(ablator: Ablator, split: Split) -> Ablator:
    """The same captured network with other images."""
    other = copy.copy(ablator)
    other.split = split
    return other
