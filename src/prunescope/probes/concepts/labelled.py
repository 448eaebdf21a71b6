"""Which images teach a concept, and which other ones tell whether it was learnt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from prunescope.core.seeds import numpy_generator
from prunescope.data.split import Dataset, Split
from prunescope.probes.concepts.embeddings import Embedded

#: Of a concept bank, one image in so many is held out.
_HELD = 4


@dataclass(frozen=True, eq=False)
class Labelled:
    """Images with concept labels.

    Attributes:
        fit, held: for the vectors, and for their quality and regularisation. Never the test split.
        source: `bank` (images of their own) or `train`.
    """

    fit: Embedded
    held: Embedded
    source: Literal["bank", "train"]


def labelled_split(data: Dataset) -> Split:
    """The split that has the concept labels: the bank if there is one."""
    return data.train if data.concept_bank is None else data.concept_bank


def labelled(splits: Mapping[str, Embedded], seed: int) -> Labelled:
    """The training split's own labels, held against validation's; of a bank (or without labels there) a part."""
    if "concepts" not in splits and splits["val"].concepts is not None:
        return Labelled(splits["train"], splits["val"], "train")
    source = splits.get("concepts", splits["train"])
    assert source.concepts is not None
    held = held_out(source.concepts, seed)
    return Labelled(source.at(~held), source.at(held), "bank" if "concepts" in splits else "train")


def held_out(concepts: Tensor, seed: int) -> Tensor:
    """A quarter of the images, bool (N,): of each combination of labels (N, K) a quarter, as near as whole images go.

    >>> int(held_out(torch.tensor([[1, -1]] * 8 + [[0, -1]] * 4), seed=0)[:8].sum())
    2
    """
    _, group = np.unique(concepts.numpy(), axis=0, return_inverse=True)
    chance = numpy_generator(seed, "concepts", "held out").random(len(group))
    order = np.lexsort((chance, group.reshape(-1)))
    found = torch.zeros(len(group), dtype=torch.bool)
    found[torch.from_numpy(order[_HELD - 1 :: _HELD].copy())] = True
    return found
