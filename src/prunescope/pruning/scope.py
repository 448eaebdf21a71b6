"""Scope: where scores compete, and what share of each layer stays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Literal, get_args

from prunescope.core.errors import PrunescopeError

#: `global`: all weights compete. In the others those of a layer do: `layer` keeps the same share of each, `erk` more of
#: the thin ones, `uniform+` spares the first and the last.
Scope = Literal["global", "layer", "erk", "uniform+"]
SCOPES: tuple[Scope, ...] = get_args(Scope)

#: What `uniform+` keeps at least of the last layer.
_LAST = 0.2


def layer_densities(shapes: Mapping[str, Sequence[int]], density: float, scope: Scope) -> dict[str, float]:
    """{parameter: share of it that stays}, in [0, 1], so that of all weights together a share `density` does.

    - `layer`: `density` everywhere.
    - `erk`, Erdos-Renyi kernel (Mocanu et al. 2018; Evci et al. 2020, section 3): proportional to the sum of a tensor's
      sides over their product; tensors that would keep more than everything are kept whole.
    - `uniform+` (Gale et al. 2019, section 3): the first tensor whole, at least a fifth of the last, equal shares of
      the rest.

    >>> layer_densities({"a": (4, 2), "b": (8, 8), "c": (4, 8)}, 0.5, "erk")["a"]
    1.0

    Raises:
        PrunescopeError: `uniform+` cannot go that low.
    """
    if scope == "erk":
        return _erk(shapes, density)
    if scope == "uniform+":
        return _uniform_plus({name: prod(shape) for name, shape in shapes.items()}, density)
    return dict.fromkeys(shapes, density)


def _erk(shapes: Mapping[str, Sequence[int]], density: float) -> dict[str, float]:
    sizes = {name: prod(shape) for name, shape in shapes.items()}
    raw = {name: sum(shape) / sizes[name] for name, shape in shapes.items()}
    whole: set[str] = set()
    while True:
        rest = [name for name in shapes if name not in whole]
        left = density * sum(sizes.values()) - sum(sizes[name] for name in whole)
        scale = left / sum(raw[name] * sizes[name] for name in rest) if rest else 0.0
        over = {name for name in rest if raw[name] * scale > 1}
        if not over:
            return {name: 1.0 if name in whole else max(0.0, raw[name] * scale) for name in shapes}
        top = max(raw[name] for name in over)
        whole |= {name for name in over if raw[name] == top}


def _uniform_plus(sizes: Mapping[str, int], density: float) -> dict[str, float]:
    first, *middle, last = sizes if len(sizes) > 2 else ("", "", "")
    if not first:
        raise PrunescopeError(f"uniform+ spares the first and the last layer: it takes three, there are {len(sizes)}")
    count = density * sum(sizes.values()) - sizes[first]
    between = sum(sizes[name] for name in middle)
    share = count / (between + sizes[last])
    if share < _LAST:
        share = (count - _LAST * sizes[last]) / between
    if share < 0:
        least = (sizes[first] + _LAST * sizes[last]) / sum(sizes.values())
        raise PrunescopeError(
            f"uniform+ keeps the first layer and a fifth of the last: {least:.1%} of all, so not {density:.1%}"
        )
    return {first: 1.0, **dict.fromkeys(middle, share), last: max(share, _LAST)}
