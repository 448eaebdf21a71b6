"""Which concepts are asked about, and which of them have enough examples."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from prunescope.core.errors import PrunescopeError, choices
from prunescope.data.split import Dataset, Split
from prunescope.probes.concepts.labelled import labelled_split


def require_concepts(data: Dataset, where: str) -> None:
    """Refuse data without concept labels."""
    if labelled_split(data).concepts is None:
        raise PrunescopeError(f"{where}: data {data.name!r} has no concept labels")


def named_concepts(split: Split, names: tuple[str, ...], where: str) -> Split:
    """The split with labels of the named concepts only, in the order given; without names, with all."""
    if not names or split.concepts is None:
        return split
    for name in names:
        if name not in split.concept_names:
            raise choices("concept", name, split.concept_names, where)
    chosen = tuple(dict.fromkeys(names))
    columns = [split.concept_names.index(name) for name in chosen]
    return replace(split, concepts=split.concepts[:, columns], concept_names=chosen)


def few_examples(
    fit: Split, sizes: Tensor, repeats: int, least: int, *, named: bool, where: str = "tcav"
) -> dict[str, str]:
    """{concept: why it has no vectors}, of those without enough examples.

    Args:
        sizes: (K,) examples per vector, of each kind, that there are.
        named: the user asked for these concepts: then one without is an error, and so it is if none has enough.

    Raises:
        PrunescopeError: saying how many positives and negatives there are, and how many it takes.
    """
    assert fit.concepts is not None
    found = {}
    for k, name in enumerate(fit.concept_names):
        if sizes[k] >= least:
            continue
        labels = fit.concepts[:, k]
        found[name] = (
            f"{int((labels == 1).sum())} positives and {int((labels == 0).sum())} negatives; it takes "
            f"{least * repeats} of both"
            + (f" ({least} for each of {repeats} repeats, which share none)" if repeats > 1 else "")
        )
        if not bool((labels == 1).any()) and named:
            raise PrunescopeError(f"{where}: concept {name!r} has no positives: {found[name]}")
    if found and (named or len(found) == len(fit.concept_names)):
        name = next(iter(found))
        raise PrunescopeError(
            f"{where}: concept {name!r} has {found[name]}; give more images, or fewer repeats or min_examples"
        )
    return found
