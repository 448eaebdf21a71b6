"""Which images teach a concept's vectors: a pool with some of every concept, dealt out to repeats without overlap."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from prunescope.core.seeds import torch_generator
from prunescope.data.cache import ChosenImages
from prunescope.data.split import Dataset, Split
from prunescope.probes.concepts.labelled import held_out, labelled_split


def example_splits(data: Dataset, images: int, seed: int) -> tuple[Split, Split]:
    """Labelled images to fit on and others to judge by, at most `images` of each; never the test split.

    As in the probe `concepts`: the training split against validation; of a bank, or where validation has no labels, a
    quarter is held out.
    """
    source = labelled_split(data)
    assert source.concepts is not None
    if data.concept_bank is None and data.val.concepts is not None:
        fit, held = source, data.val
    else:
        apart = held_out(source.concepts, seed)
        fit, held = _chosen(source, (~apart).nonzero()[:, 0]), _chosen(source, apart.nonzero()[:, 0])
    parts = []
    for name, split in (("fit", fit), ("held", held)):
        assert split.concepts is not None
        rows = pool(split.concepts, images, torch_generator(seed, "tcav", "pool", name))
        parts.append(_chosen(split, rows) if len(rows) < len(split) else split)
    return parts[0], parts[1]


def _chosen(split: Split, rows: Tensor) -> Split:
    """Some of a split's images, read when they are asked for."""
    return replace(
        split, images=ChosenImages(split.images, rows), labels=split.labels[rows], ids=split.ids[rows.numpy()],
        concepts=None if split.concepts is None else split.concepts[rows],
        masks=None if split.masks is None else split.masks[rows],
        segments=None if split.segments is None else split.segments.subset(rows),
    )  # fmt: skip


def pool(concepts: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Sorted positions of at most `count` images, about as many positives and negatives of every concept (N, K)."""
    if len(concepts) <= count:
        return torch.arange(len(concepts))
    chance = torch.rand(concepts.shape, generator=generator)
    turn = torch.minimum(_places(concepts == 1, chance), _places(concepts == 0, chance)).min(1).values
    return turn.argsort(stable=True)[:count].sort().values


def _places(mine: Tensor, chance: Tensor) -> Tensor:
    """Place (N, K) of each image in a random order of those that are `mine` in the column; N for the others."""
    places = torch.where(mine, chance, 2.0).argsort(0).argsort(0)
    return torch.where(mine, places, len(mine))


@dataclass(frozen=True, eq=False)
class Dealt:
    """Labels of V vectors to fit, each on images of its own.

    Attributes:
        labels: int8 (N, V): 1, 0, and -1 where an image is not for this vector.
        concept: (V,) whose vector it is; -1 for random images against random images.
        size: (V,) positives, and as many negatives.
        sizes: (K,) of the concepts' vectors; below the least that was asked for there are no vectors.
    """

    labels: Tensor
    concept: Tensor
    size: Tensor
    sizes: Tensor

    def vectors_of(self, concept: int) -> Tensor:
        """Positions of a concept's vectors, one per repeat."""
        return (self.concept == concept).nonzero()[:, 0]

    def random_of(self, concept: int) -> Tensor:
        """Positions of the random vectors that were fitted on as many images as the concept's."""
        return ((self.concept == -1) & (self.size == self.sizes[concept])).nonzero()[:, 0]


def deal(concepts: Tensor, repeats: int, random: int, limits: tuple[int, int], generator: torch.Generator) -> Dealt:
    """Deal labelled images (N, K) out.

    The repeats of a concept share no image. So, of a "concept" that is a random set of images, they are independent
    draws as random vectors are, and the test between them holds; repeats on the same positives would agree with each
    other whatever they are, and the more of them, the surer any set of images would be "significant".

    Args:
        random: random vectors for each size that occurs.
        limits: fewest and most positives (and negatives) of a vector.
    """
    n, k = concepts.shape
    positives, negatives = (concepts == 1).sum(0), (concepts == 0).sum(0)
    sizes = torch.minimum(positives, negatives).div(repeats, rounding_mode="floor").clamp(max=limits[1])
    usable = sizes >= limits[0]
    labels = torch.full((n, k, repeats), -1, dtype=torch.int8)
    chance = torch.rand(n, k, generator=generator)
    for value in (1, 0):
        part = _places(concepts == value, chance).div(sizes.clamp_min(1), rounding_mode="floor")
        image, concept = ((concepts == value) & (part < repeats) & usable).nonzero(as_tuple=True)
        labels[image, concept, part[image, concept]] = value
    made = [labels[:, usable].flatten(1)]
    owner = [usable.nonzero()[:, 0].repeat_interleave(repeats)]
    size = [sizes[usable].repeat_interleave(repeats)]
    for few in sizes[usable].unique().tolist():
        place = torch.rand(n, random, generator=generator).argsort(0).argsort(0)
        made.append(torch.where(place < few, 1, torch.where(place < 2 * few, 0, -1)).to(torch.int8))
        owner.append(torch.full((random,), -1))
        size.append(torch.full((random,), few))
    return Dealt(torch.cat(made, 1), torch.cat(owner), torch.cat(size), sizes)
