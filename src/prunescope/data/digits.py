"""`digits`: 1797 real scans of handwritten digits that come with scikit-learn, for tests and first steps offline."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from prunescope.core.errors import PrunescopeError
from prunescope.core.seeds import derive
from prunescope.data.sources import sources
from prunescope.data.split import Dataset, Normalisation, Split
from prunescope.data.subsets import stratified

CLASSES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

#: Which digits have the part, as these writers usually write them.
CONCEPT_TABLE: dict[str, frozenset[int]] = {
    "closed loop": frozenset({0, 6, 8, 9}),  # an area shut in by ink; the 4 is mostly open at the top here
    "loop on top": frozenset({8, 9}),
    "loop at the bottom": frozenset({6, 8}),
    "vertical stroke": frozenset({1, 4, 7}),  # the 7's is slanted
    "straight strokes only": frozenset({1, 4, 7}),
    "horizontal bar on top": frozenset({5, 7}),
    "horizontal bar in the middle": frozenset({4, 7}),  # most writers of these scans cross their 7
    "horizontal bar at the bottom": frozenset({2}),  # the foot of the 2; a few 1s have one too
    "belly to the right on top": frozenset({2, 3, 8, 9}),
    "belly to the right at the bottom": frozenset({3, 5, 6, 8}),
    "open at the lower left": frozenset({3, 5, 7, 9}),  # white reaches the lower half from the left
    "symmetric left to right": frozenset({0, 8}),  # not the 1: most have a flag
}


@sources.register("digits")
@dataclass(frozen=True)
class Digits:
    """Digits 0 to 9, 8x8 pixels with 17 grey levels, enlarged bilinearly. Source: UCI Optical Recognition, CC BY 4.0.

    Concept labels are those of the class (`CONCEPT_TABLE`), not of the single scan.

    Attributes:
        seed: of the stratified split.
        val, test: share of the images, each above 0; the rest is for training.
        size: pixels per side after enlarging, 8 to 64.
        channels: 1, or 3 equal ones for networks that expect colour.
    """

    seed: int = 0
    val: float = 0.15
    test: float = 0.25
    size: int = 16
    channels: int = 1

    def __post_init__(self) -> None:
        if not (self.val > 0 and self.test > 0 and self.val + self.test < 1):
            raise PrunescopeError(
                f"digits: val and test must be above 0 and sum to less than 1, got {self.val}, {self.test}"
            )
        if not 8 <= self.size <= 64:
            raise PrunescopeError(f"digits: size must be 8 to 64 pixels, got {self.size}")
        if self.channels not in (1, 3):
            raise PrunescopeError(f"digits: channels must be 1 or 3, got {self.channels}")

    def load(self) -> Dataset:
        """Split, enlarge, label."""
        from sklearn.datasets import load_digits

        scans = load_digits()
        labels = torch.from_numpy(scans.target.astype(np.int64))
        images = self._enlarge(torch.from_numpy(scans.images))
        n = len(labels)
        test = stratified(labels, round(self.test * n), seed=derive(self.seed, "digits", "test"))
        rest = torch.from_numpy(np.setdiff1d(np.arange(n), test))
        val = rest[stratified(labels[rest], round(self.val * n), seed=derive(self.seed, "digits", "val"))]
        train = torch.from_numpy(np.setdiff1d(rest, val))
        everything = Split(
            images,
            labels,
            np.array([f"digits-{i:05d}" for i in range(n)]),
            CLASSES,
            normalisation=Normalisation.of(images[train]),
            concepts=concept_matrix()[labels],
            concept_names=tuple(CONCEPT_TABLE),
            concept_level="class",
        )
        return Dataset(
            "digits",
            everything.subset(train),
            everything.subset(val),
            everything.subset(test),
            info={"source": "scikit-learn load_digits (UCI Optical Recognition of Handwritten Digits, CC BY 4.0)"},
        )

    def _enlarge(self, images: Tensor) -> Tensor:
        """(N, 8, 8) with values 0 .. 16 -> uint8 (N, channels, size, size)."""
        scaled = torch.nn.functional.interpolate(
            images[:, None].float() * (255 / 16), size=(self.size, self.size), mode="bilinear", align_corners=False
        )
        return scaled.round().to(torch.uint8).repeat(1, self.channels, 1, 1)


def concept_matrix() -> Tensor:
    """int8 (10, K): `CONCEPT_TABLE` as a class x concept matrix."""
    return torch.tensor([[digit in having for having in CONCEPT_TABLE.values()] for digit in range(10)]).to(torch.int8)
