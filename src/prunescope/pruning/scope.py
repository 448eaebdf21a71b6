"""Scope: where scores compete, and what share of each layer stays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar, Literal, TypeAlias, get_args

from prunescope.core.configure import configure, split_spec
from prunescope.core.errors import PrunescopeError, choices
from prunescope.models.layers import matches, require_matches

#: `global`: all weights compete. In the others those of a layer do: `layer` keeps the same share of each, `erk` more of
#: the thin ones, `uniform+` spares the first and the last.
Simple = Literal["global", "layer", "erk", "uniform+"]
SCOPES: tuple[Simple, ...] = get_args(Simple)


@dataclass(frozen=True)
class Table:
    """Each layer loses its own share: the table's, all of them scaled by one factor so that the density comes out.

    Attributes:
        rates: {layer, parameter or pattern: share that goes, in [0, 1)}; the first that matches counts, and what none
            matches is not cut. Any scale will do: only the proportions matter. Also a tuple of pairs.
    """

    rates: Any
    name: ClassVar[str] = "table"

    def __post_init__(self) -> None:
        pairs = tuple((str(k), v) for k, v in (self.rates.items() if isinstance(self.rates, Mapping) else self.rates))
        wrong = [(k, v) for k, v in pairs if isinstance(v, bool) or not isinstance(v, (int, float)) or not 0 <= v < 1]
        if wrong or not any(rate for _, rate in pairs):
            raise PrunescopeError(
                f"a table gives for each layer the share that goes, in [0, 1) and not all 0; got {wrong or dict(pairs)}"
            )
        object.__setattr__(self, "rates", tuple((name, float(rate)) for name, rate in pairs))


@dataclass(frozen=True)
class Sensitivity:
    """A table that the network itself gives: each layer's largest rate at which accuracy holds when it alone is cut.

    Attributes:
        tolerance: accuracy that may be lost, in (0, 1): 0.01 is one point in a hundred.
        rates: shares that are tried, rising, in (0, 1).
        images: validation images that are looked at, the first ones; 0 for all.
    """

    tolerance: float = 0.01
    rates: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    images: int = 0
    name: ClassVar[str] = "sensitivity"

    def __post_init__(self) -> None:
        if not 0 < self.tolerance < 1:
            raise PrunescopeError(f"tolerance is the accuracy that may be lost, in (0, 1), got {self.tolerance}")
        if not self.rates or list(self.rates) != sorted(set(self.rates)) or not 0 < self.rates[0] <= self.rates[-1] < 1:
            raise PrunescopeError(f"rates are shares that go, rising, in (0, 1), got {self.rates}")
        if self.images < 0:
            raise PrunescopeError(f"images must be at least 0 (all), got {self.images}")


Scope: TypeAlias = Simple | Table | Sensitivity


def read_scope(spec: object, where: str) -> Scope:
    """A scope from its name, or from a mapping with `name` and options: `{name: table, rates: {conv1: 0.2}}`.

    Raises:
        PrunescopeError: it is none.
    """
    if isinstance(spec, str) and spec in SCOPES:
        return spec
    if isinstance(spec, (Table, Sensitivity)):
        return spec
    name, options = split_spec(spec, where)
    kinds: dict[str, type[Table | Sensitivity]] = {kind.name: kind for kind in (Table, Sensitivity)}
    if name not in kinds:
        raise choices("scope", name, [*SCOPES, *kinds], where)
    return configure(kinds[name], options, where)


#: What `uniform+` keeps at least of the last layer.
_LAST = 0.2


def scope_name(scope: Scope) -> str:
    """`global`, `table` ...: the name alone, for people."""
    return scope if isinstance(scope, str) else scope.name


def layer_densities(
    shapes: Mapping[str, Sequence[int]], density: float, scope: Scope, units: Mapping[str, int] | None = None
) -> dict[str, float]:
    """{parameter: share of its units that stays}, in [0, 1], so that of all units together a share `density` does.

    Args:
        shapes: of the tensors.
        units: how many units each holds; None: single weights.

    - `layer`: `density` everywhere.
    - `erk`, Erdos-Renyi kernel (Mocanu et al. 2018; Evci et al. 2020, section 3): proportional to the sum of a tensor's
      sides over their product; tensors that would keep more than everything are kept whole.
    - `uniform+` (Gale et al. 2019, section 3): the first tensor whole, at least a fifth of the last, equal shares of
      the rest.
    - a `Table`: its rates times one factor, up to all but one of a layer's weights.

    >>> layer_densities({"a": (4, 2), "b": (8, 8), "c": (4, 8)}, 0.5, "erk")["a"]
    1.0

    Raises:
        PrunescopeError: `uniform+` or the table cannot go that low, a name in the table is not there, or a scan for
            sensitivity has not been made yet.
    """
    sizes = {name: prod(shape) for name, shape in shapes.items()} if units is None else units
    if isinstance(scope, Table):
        return _scaled(table_rates(shapes, scope), density, sizes)
    if isinstance(scope, Sensitivity):
        raise PrunescopeError("sensitivity must be measured first: see prunescope.pruning.sensitivity.scan")
    if scope == "erk":
        return _erk(shapes, density, sizes)
    if scope == "uniform+":
        return _uniform_plus(sizes, density)
    return dict.fromkeys(shapes, density)


def _erk(shapes: Mapping[str, Sequence[int]], density: float, sizes: Mapping[str, int]) -> dict[str, float]:
    raw = {name: sum(shape) / prod(shape) for name, shape in shapes.items()}
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


def _scaled(rates: Mapping[str, float], density: float, sizes: Mapping[str, int]) -> dict[str, float]:
    """Each layer's rate times the one factor that leaves `density`, found by bisection."""
    total = sum(sizes.values())
    most = {name: 1 - 1 / max(1, sizes[name]) if rate else 0.0 for name, rate in rates.items()}

    def left(factor: float) -> float:
        return 1 - sum(sizes[name] * min(most[name], factor * rates[name]) for name in rates) / total

    low, high = 0.0, max(1 / rate for rate in rates.values() if rate)
    if left(high) > density:
        raise PrunescopeError(f"the table's layers hold too little: at least {left(high):.2%} stay, not {density:.2%}")
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if left(middle) > density else (low, middle)
    return {name: 1 - min(most[name], high * rates[name]) for name in rates}


def table_rates(shapes: Mapping[str, Sequence[int]], table: Table) -> dict[str, float]:
    """{tensor: its rate in the table}. A layer's name may join several tensors by slashes (coupled channels)."""
    parts = {name: name.split("/") for name in shapes}
    flat = [part for found in parts.values() for part in found]
    require_matches([pattern for pattern, _ in table.rates if pattern not in shapes], flat, "scope.rates")
    found = {
        name: next((r for p, r in table.rates if p == name or any(matches(part, p) for part in parts[name])), 0.0)
        for name in shapes
    }
    if not any(found.values()):
        raise PrunescopeError("the table gives a rate to no layer that is cut")
    return found
