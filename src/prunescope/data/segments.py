"""Labels of pixels: which concepts, any number of them, each pixel shows."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prunescope.core.errors import PrunescopeError

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, eq=False)
class Coded:
    """Every pixel's set of concepts as a number, and a table of the sets that occur: exact, and about a byte a pixel.

    Attributes:
        codes: uint8, int16 or int32 (N, H, W), rows of `table`.
        table: bool (S, K), which concepts a set holds.
        known: bool (S,), False for a set that means "not labelled": such pixels are left out of everything.
    """

    codes: Tensor
    table: Tensor
    known: Tensor


@dataclass(frozen=True, eq=False)
class Segments:
    """Labels of the pixels of N images of H x W pixels, read or drawn when first asked for.

    Attributes:
        names: K concepts.
        categories: of each concept: `colour`, `object`, `part` ...
        shape: (N, H, W).
        make: gives the labels of all images; called once, whatever subsets are taken.
        positions: which of them these are; None: all.
        identity: what tells these labels from others, for `fingerprint`; "" for labels that follow from the images as
            a drawing does; None: found by reading all of them.
    """

    names: tuple[str, ...]
    categories: tuple[str, ...]
    shape: tuple[int, int, int]
    make: Callable[[], Coded]
    positions: Tensor | None = None
    identity: str | None = None

    def __post_init__(self) -> None:
        if len(self.names) != len(self.categories):
            raise PrunescopeError(f"segments: {len(self.names)} concepts, but {len(self.categories)} categories")
        twice = [name for name in self.names if self.names.count(name) > 1]
        if twice or not self.names:
            raise PrunescopeError(f"segments: concept {twice[0]!r} twice" if twice else "segments: there is no concept")

    @classmethod
    def of(cls, masks: Tensor, names: Sequence[str], categories: Sequence[str] = ()) -> Segments:
        """From masks bool (N, K, H, W); without categories all are of one, `concept`.

        >>> masks = torch.zeros(1, 2, 2, 2, dtype=torch.bool)
        >>> masks[0, :, 0, 0] = True
        >>> Segments.of(masks, ["red", "square"]).coded.codes.tolist()
        [[[1, 0], [0, 0]]]
        """
        n, k, h, w = masks.shape
        if k != len(names):
            raise PrunescopeError(f"segments: masks have shape {tuple(masks.shape)}, but there are {len(names)} names")
        sets = coded_sets(masks.movedim(1, 3).reshape(n * h * w, k).numpy())
        codes = torch.from_numpy(sets[0]).view(n, h, w)
        table = torch.from_numpy(sets[1])
        made = Coded(smallest(codes, len(table)), table, torch.ones(len(table), dtype=torch.bool))
        return cls(tuple(names), tuple(categories or ["concept"] * k), (n, h, w), partial(_given, made))

    def __len__(self) -> int:
        return self.shape[0]

    @cached_property
    def coded(self) -> Coded:
        """The labels of these images.

        Raises:
            PrunescopeError: files cannot be read, or do not fit their images.
        """
        made = self.make()
        if self.positions is None:
            return made
        return replace(made, codes=made.codes[self.positions])

    def __getitem__(self, index: Any) -> Tensor:
        """Masks bool (B, K, H, W) of the images at `index` (int64 tensor or slice)."""
        coded = self.coded
        return coded.table[coded.codes[index].long()].movedim(3, 1)

    def subset(self, index: Tensor) -> Segments:
        """The labels of the images at `index`, in that order; still not read."""
        whole = self if self.positions is None else None
        make = partial(_whole, whole) if whole is not None else self.make
        positions = index if self.positions is None else self.positions[index]
        return replace(self, shape=(len(index), *self.shape[1:]), make=make, positions=positions)

    def pixels(self) -> Tensor:
        """How many pixels of all images show each concept, int64 (K,)."""
        coded = self.coded
        return self._counts() @ (coded.table & coded.known[:, None]).long()

    def areas(self) -> Tensor:
        """How many pixels of each image show each concept, int64 (N, K)."""
        coded, found = self.coded, []
        sets = len(coded.table)
        for part in coded.codes.split(64):
            keys = part.flatten(1).long() + sets * torch.arange(len(part))[:, None]
            counts = torch.bincount(keys.flatten(), minlength=sets * len(part)).view(len(part), sets)
            found.append(counts.double() @ (coded.table & coded.known[:, None]).double())
        return torch.cat(found).long()

    def labelled(self) -> int:
        """How many pixels of all images are labelled."""
        return int(self._counts() @ self.coded.known.long())

    def _counts(self) -> Tensor:
        """How many pixels have each of the sets, int64 (S,)."""
        coded = self.coded
        counts = torch.zeros(len(coded.table), dtype=torch.int64)
        for part in coded.codes.split(256):
            counts += torch.bincount(part.flatten().int(), minlength=len(counts))
        return counts

    @cached_property
    def fingerprint(self) -> str:
        """What the labels are, as text; "" where they follow from the images."""
        if self.identity == "":
            return ""
        digest = hashlib.sha256(repr((self.names, self.categories, self.shape[1:])).encode())
        if self.identity is not None:
            digest.update(self.identity.encode())
            return digest.hexdigest()
        coded = self.coded
        for part in (coded.codes.int(), coded.table, coded.known):
            digest.update(part.contiguous().numpy().tobytes())
        return digest.hexdigest()


def _given(made: Coded) -> Coded:
    return made


def _whole(segments: Segments) -> Coded:
    return segments.coded


def coded_sets(masks: Array) -> tuple[Array, Array]:
    """Rows of bool (P, K) as numbers int32 (P,) and the distinct rows (S, K) that they name."""
    packed = np.ascontiguousarray(np.packbits(masks, axis=1))
    _, first, codes = np.unique(packed.view(f"V{packed.shape[1]}")[:, 0], return_index=True, return_inverse=True)
    return codes.astype(np.int32), masks[first]


def smallest(codes: Tensor, sets: int) -> Tensor:
    """The codes in the smallest type that holds so many sets."""
    return codes.to(torch.uint8 if sets <= 1 << 8 else torch.int16 if sets <= 1 << 15 else torch.int32)
