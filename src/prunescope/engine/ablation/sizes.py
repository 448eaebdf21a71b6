"""How the values of a captured network grow with the number of images, and whether they are the network's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, fx

from prunescope.engine.ablation.nodes import Untraceable, first_line, run
from prunescope.engine.sweep import logits_of

#: Numbers of images of the runs from which sizes are learned: two for the line, a third to see that it is one.
PROBES = (2, 3, 5)


def learn_sizes(traced: fx.GraphModule, images: Tensor, expected: Tensor) -> None:
    """Write `images`, `shape`, `where`, `leads` and `size` into every node's `meta` (see `capture`).

    Args:
        images: (PROBES[-1], C, H, W).
        expected: logits of the network itself for the first PROBES[0] of them.

    Raises:
        Untraceable: the graph computes something else, or an image's outputs depend on others, or a size is not linear.
    """
    try:
        runs = [run(traced, images[:n]) for n in PROBES]
    except Exception as error:
        raise Untraceable(f"the network does not run on {PROBES} images alike: {first_line(error)}") from error
    output = next(node for node in reversed(traced.graph.nodes) if node.op == "output")
    found, of_more = logits_of(runs[0][output]), logits_of(runs[-1][output])
    if not _close(found, expected):
        raise Untraceable(
            "operation by operation the network gives other outputs: it writes over values it reads again"
        )
    if of_more.shape[1:] != found.shape[1:] or not _close(of_more[: len(found)], found):
        raise Untraceable("what the network says of an image depends on the images beside it")
    for node in traced.graph.nodes:
        given = [run_[node] for run_ in runs]
        node.meta["images"] = node.op == "placeholder" or _depends(node, given)
        node.meta["shape"] = tuple(given[0].shape) if isinstance(given[0], Tensor) else None
        node.meta["where"] = _axis_of_images(given) if node.meta["shape"] is not None else None
        node.meta["leads"] = node.meta["where"] == 0
        if not any(isinstance(value, Tensor) for value in _flat(given)):
            node.meta["size"] = _line(node, given)


def _depends(node: fx.Node, given: list[Any]) -> bool:
    """Whether a value depends on the images. What only takes their number or type may be the same for all."""
    inputs = [other for other in node.all_input_nodes if other.meta["images"]]
    if inputs and all("size" in other.meta for other in inputs) and all(isinstance(value, Tensor) for value in given):
        return not all(torch.equal(given[0], value) for value in given)
    return bool(inputs)


def _axis_of_images(given: list[Tensor]) -> int | None:
    """The axis that is as long as there are images, while all others stay as long as they are."""
    for axis in range(given[0].dim()):
        others = {(*value.shape[:axis], *value.shape[axis + 1 :]) for value in given}
        if len(others) == 1 and tuple(value.shape[axis] for value in given) == PROBES:
            return axis
    return None


def _close(one: Tensor, other: Tensor) -> bool:
    """Equal up to rounding."""
    room = torch.finfo(other.dtype).eps ** 0.5 * float(other.nan_to_num().abs().amax())
    return one.shape == other.shape and torch.allclose(one, other, rtol=0, atol=room, equal_nan=True)


def _line(node: fx.Node, given: list[Any]) -> Callable[[int], Any]:
    """Values that grow with the number of images do so on a line."""

    def at(count: int, first: Any, second: Any) -> Any:
        if isinstance(first, (list, tuple)):
            return type(first)(at(count, a, b) for a, b in zip(first, second, strict=True))
        if isinstance(first, bool) or not isinstance(first, int):
            return first
        return first + (second - first) * (count - PROBES[0])

    if at(PROBES[2], given[0], given[1]) != given[2]:
        raise Untraceable(f"{node.name} depends on the number of images: {given} for {PROBES}")
    return lambda count: at(count, given[0], given[1])


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _flat(item)
    else:
        yield value
