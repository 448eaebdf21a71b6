"""From what a config says about data to a checked `Dataset`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from typing import Any

import numpy as np

from prunescope.core.configure import configure, split_spec
from prunescope.core.errors import PrunescopeError, choices
from prunescope.core.seeds import derive
from prunescope.data.duplicates import refuse_duplicates
from prunescope.data.sources import sources
from prunescope.data.split import NAMES, Dataset, Split
from prunescope.data.subsets import stratified
from prunescope.data.user import user_dataset


@dataclass(frozen=True)
class Common:
    """Options of every source.

    Attributes:
        allow_duplicates: go on, with a warning, when images stand in two splits.
        limit_train, limit_val, limit_test: at most so many images, a stratified random subset; None: all.
    """

    allow_duplicates: bool = False
    limit_train: int | None = None
    limit_val: int | None = None
    limit_test: int | None = None


_COMMON = tuple(field.name for field in fields(Common))


def load_data(config: Mapping[str, Any] | str) -> Dataset:
    """The data set that a config names, loaded, limited and checked.

    Args:
        config: `{"name": "shapes", option: value}` or only the name. Names are those of registered sources,
            `source:PATH` for `{"name": source, "root": PATH}`, or `package.module:function` of the user's own,
            which is called with the remaining options and returns a `Dataset`.

    Raises:
        PrunescopeError: unknown name or option, a wrong type, an empty class, a split with a single class, images
            that stand in two splits.
    """
    name, options = split_spec(config, "data")
    shared = {key: options.pop(key) for key in _COMMON if key in options}
    common = configure(Common, shared, "data")
    dataset = _limited(_load(name, options), common)
    check(dataset)
    repeated = refuse_duplicates(dataset, common.allow_duplicates)
    return replace(dataset, info={**dataset.info, "duplicates": repeated}) if repeated else dataset


def _load(name: str, options: Mapping[str, Any]) -> Dataset:
    source, colon, path = name.partition(":")
    if colon and source not in sources:
        return _users(name, options)
    allowed = [field.name for field in fields(sources[source])]  # type: ignore[arg-type]
    for key in options:
        if key not in allowed and get_close_matches(str(key), _COMMON, n=1, cutoff=0.8):
            raise choices("key", key, [*allowed, *_COMMON], "data")
    if colon:
        if "root" not in allowed:
            raise PrunescopeError(f"data {name!r}: {source!r} reads no folder; write only {source!r}")
        if "root" in options:
            raise PrunescopeError(f"data {name!r}: the folder is given twice, also as root: {options['root']!r}")
        options = {**options, "root": path}
    return configure(sources[source], options, "data").load()


def _users(name: str, options: Mapping[str, Any]) -> Dataset:
    module, _, function = name.partition(":")
    if not all(part.isidentifier() for part in [*module.split("."), function]):
        sources[module]  # a misspelt `source:PATH`: raises with the nearest name
    return user_dataset(name, options)


def _limited(dataset: Dataset, common: Common) -> Dataset:
    changed: dict[str, Any] = {}
    for name in NAMES:
        limit, split = getattr(common, f"limit_{name}"), dataset[name]
        if limit is not None and limit < 1:
            raise PrunescopeError(f"data.limit_{name}: must be at least 1, got {limit}")
        if limit is not None and limit < len(split):
            changed[name] = split.subset(stratified(split.labels, limit, seed=derive(0, "limit", name)))
    if not changed:
        return dataset
    limits = {name: len(split) for name, split in changed.items()}
    return replace(dataset, **changed, info={**dataset.info, "limited_to": limits})


def check(dataset: Dataset) -> None:
    """Refuse what cannot be trained on or would be measured wrongly; the message names the classes and splits."""
    for name in NAMES:
        _check_split(dataset, name, dataset[name])
    counts = np.bincount(dataset.train.labels.numpy(), minlength=len(dataset.classes))
    empty = [dataset.classes[i] for i in np.flatnonzero(counts == 0)]
    if empty:
        raise PrunescopeError(f"data set {dataset.name!r}: no training image of class {', '.join(map(repr, empty))}")


def _check_split(dataset: Dataset, name: str, split: Split) -> None:
    where = f"data set {dataset.name!r}: split {name!r}"
    if split.classes != dataset.classes:
        raise PrunescopeError(f"{where} has classes {split.classes}, train has {dataset.classes}")
    if not len(split):
        raise PrunescopeError(f"{where} has no images")
    if split.shape != dataset.train.shape:
        raise PrunescopeError(f"{where} has images of shape {split.shape}, train of {dataset.train.shape}")
    present = split.labels.unique().tolist()
    if len(present) < 2:
        only = split.classes[present[0]]
        raise PrunescopeError(f"{where} has images of a single class, {only!r}; at least two classes are needed")
    ids, counts = np.unique(split.ids, return_counts=True)
    if (counts > 1).any():
        raise PrunescopeError(f"{where} has the id {str(ids[counts > 1][0])!r} more than once")
