"""Which channels of a network hang together: what must go when one goes.

The network runs once, on labels instead of numbers: each convolution and linear layer labels its outputs, every
operation hands labels on (`channel_rules`), layers note the labels that they read, and labels that meet in a sum or a
product become one. What is left at the end are *units*: channels, neurons or attention heads with everything that has
to go with them: rows of the layers that make them, their biases and norms, the columns of the layers that read them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from prunescope.core.errors import PrunescopeError
from prunescope.models.channel_rules import rule
from prunescope.models.channel_signals import NOTHING, is_signal, signals, small, spread
from prunescope.models.layers import evaluating, is_auxiliary
from prunescope.models.live_rules import ASIDE, ATTRIBUTES, flat

#: Unit of channels that cannot go.
FIXED = -1


@dataclass(frozen=True, eq=False)
class ChannelGraph:
    """The units of one network.

    Attributes:
        units: how many there are, numbered from 0 in the order in which the network makes them.
        axes: {parameter or buffer: {axis: unit of every index along it, `FIXED` where it cannot go}}. Axis 0 of a
            weight: what it makes; axis 1: what it reads. In grouped convolutions a unit is a whole group with its
            inputs, so that only axis 0 is there.
        makers: weights whose outputs are units, in the order in which they run.
        positions: {weight: places per image at which it is applied}, for counting operations.
        reasons: {weight: why none of its outputs can go}.
    """

    units: int
    axes: Mapping[str, Mapping[int, Tensor]]
    makers: tuple[str, ...]
    positions: Mapping[str, int]
    reasons: Mapping[str, str]

    def families(self) -> tuple[Tensor, tuple[tuple[str, ...], ...]]:
        """Units made by the same layers form a family: (family of every unit, the makers of each family)."""
        made_by: list[list[str]] = [[] for _ in range(self.units)]
        for name in self.makers:
            for unit in self.axes[name][0].unique().tolist():
                if unit != FIXED:
                    made_by[unit].append(name)
        known: dict[tuple[str, ...], int] = {}
        family = [known.setdefault(tuple(names), len(known)) for names in made_by]
        return torch.tensor(family, dtype=torch.int64), tuple(known)

    def kept(self, name: str, alive: Tensor, shape: torch.Size) -> Tensor:
        """Which elements of a parameter are left when only some units are (bool per unit)."""
        padded = torch.cat([alive, torch.ones(1, dtype=torch.bool)])  # FIXED is the last
        keep = torch.ones(shape, dtype=torch.bool)
        for axis, units in self.axes.get(name, {}).items():
            view = [1] * len(shape)
            view[axis] = -1
            keep &= padded[units].view(view)
        return keep


def channel_graph(model: nn.Module, shape: tuple[int, ...]) -> ChannelGraph:
    """The units of a network for images of `shape` (C, H, W). The model is left as it was.

    What cannot be followed is not cut: its channels are `FIXED`, with the reason. Auxiliary heads (GoogLeNet,
    Inception) are followed as well.

    >>> model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))
    >>> graph = channel_graph(model, (1, 4, 4))
    >>> graph.units, graph.makers, graph.axes["3.weight"][1].tolist()[:5]
    (4, ('0.weight',), [0, 0, 0, 0, 1])

    Raises:
        PrunescopeError: the network does not run on one image of this shape.
    """
    tracker = _Tracker(model)
    tracker.run(model, shape)
    return tracker.graph()


class _Tracker(TorchFunctionMode):
    """While active, every torch function works on labels. The ledger that the rules write to."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        tensors = (*model.named_parameters(), *model.named_buffers())
        self.names = {id(tensor): name for name, tensor in tensors}
        self.own: dict[str, Tensor] = {}
        self.count = 1  # 0 is NOTHING
        self.pairs: list[Tensor] = []
        self.fixed: dict[float, str] = {NOTHING: "it is not made by a layer"}
        self.axes: dict[str, dict[int, Tensor]] = {}
        self.places: dict[str, int] = {}

    def run(self, model: nn.Module, shape: tuple[int, ...]) -> None:
        """In eval mode; then once more in training mode where there are auxiliary heads."""
        for training in (False, True) if any(is_auxiliary(name) for name, _ in model.named_modules()) else (False,):
            with evaluating(model), torch.no_grad():
                model.train(training)
                image = spread(torch.full((shape[0],), NOTHING, dtype=torch.float64), 1, (1, *shape))
                try:
                    with torch.random.fork_rng(devices=[]), self:
                        output = model(image)
                except PrunescopeError:
                    raise
                except Exception as error:  # whatever the network's own code raises
                    raise PrunescopeError(
                        f"{type(model).__name__} does not run on an image of shape {shape}, so which channels hang "
                        f"together is not known: {type(error).__name__}: {str(error).splitlines()[0]}. Pruning single "
                        "weights, filters or kernels needs no graph"
                    ) from error
            for value in signals(list(output.values()) if isinstance(output, dict) else output):
                self.fix(value, "it is the network's output")

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", str(func))
        if name == "__get__":
            name = ATTRIBUTES.get(func.__self__.__name__, name)
        touched = any(is_signal(value) for value in flat((args, tuple(kwargs.values()))))
        if not touched and name.endswith("_") and not name.endswith("__") and self.name(args[0]) is not None:
            return args[0]  # a norm that counts its batches: nothing of the network changes
        if name in ASIDE or not touched:
            return func(*args, **kwargs)
        if name == "t":
            func = torch.transpose
            args = (args[0], -2, -1)
        return rule(name)(self, func, *args, **kwargs)

    def fresh(self, name: str, count: int) -> Tensor:
        if name not in self.own:
            self.own[name] = torch.arange(self.count, self.count + count, dtype=torch.float64)
            self.count += count
        return self.own[name]

    def name(self, tensor: object) -> str | None:
        return self.names.get(id(tensor))

    def lies(self, name: str, axis: int, labels: Tensor) -> None:
        known = self.axes.setdefault(name, {})
        if axis in known:
            self.unite(known[axis], labels)
        known[axis] = labels

    def unite(self, first: Tensor, second: Tensor) -> None:
        first, second = torch.broadcast_tensors(first, second)
        a, b = (_both(first, second), _both(second, first))
        keys = (a.flatten() * 2.0**26 + b.flatten()).unique()  # below 2**53: exact
        self.pairs.append(torch.stack([keys.div(2.0**26, rounding_mode="floor"), keys.remainder(2.0**26)]))

    def fix(self, labels: Tensor, reason: str) -> None:
        for label in small(labels).unique().tolist():
            self.fixed.setdefault(label, reason)

    def positions(self, name: str, count: int) -> None:
        self.places[name] = count

    def graph(self) -> ChannelGraph:
        """Labels that were united become one unit; a unit with a fixed label is none."""
        pairs = torch.cat([torch.zeros(2, 0, dtype=torch.float64), *self.pairs], dim=1).long().numpy()
        links = coo_array((np.ones(pairs.shape[1], dtype=bool), (pairs[0], pairs[1])), shape=(self.count,) * 2)
        _, component = connected_components(links, directed=False)
        stuck = {int(component[int(label)]): reason for label, reason in reversed(self.fixed.items())}
        number: dict[int, int] = dict.fromkeys(stuck, FIXED)
        for part in component.tolist():
            number.setdefault(part, len(number) - len(stuck))
        unit = torch.tensor([number[part] for part in component.tolist()])
        axes = {
            name: {axis: unit[labels.long()] for axis, labels in found.items()} for name, found in self.axes.items()
        }
        makers = [name for name in self.axes if name in self.places and 0 in axes[name]]
        reasons = {
            name: stuck[int(component[int(self.axes[name][0][0])])]
            for name in makers if bool((axes[name][0] == FIXED).all())
        }  # fmt: skip
        free = tuple(name for name in makers if name not in reasons)
        return ChannelGraph(len(number) - len(stuck), axes, free, dict(self.places), reasons)


def _both(x: Tensor, other: Tensor) -> Tensor:
    """`x` without the copies along axes over which both tensors are expanded."""
    for axis in range(x.dim()):
        if x.shape[axis] > 1 and x.stride(axis) == 0 and other.stride(axis) == 0:
            x, other = x.narrow(axis, 0, 1), other.narrow(axis, 0, 1)
    return x
