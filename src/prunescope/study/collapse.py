"""Layer collapse, told when it comes: layers that a cut has left without weights, or off every path."""

from __future__ import annotations

from collections.abc import Sequence

from prunescope.pruning.summary import Collapse, collapsed
from prunescope.study.cell import Cell
from prunescope.study.store import Store

#: What became of the layers, for one of them and for several.
WORDS: dict[Collapse, tuple[str, str]] = {
    "empty": ("has no weights left", "have no weights left"),
    "cut off": (
        "has weights left, but none on a path from input to output",
        "have weights left, but none on a path from input to output",
    ),
}
_NAMED = 4


def collapse(store: Store, cell: Cell, children: Sequence[Cell]) -> str:
    """What to warn of when a cell is done; empty unless it is a cut after which more layers pass nothing on.

    Args:
        children: cells that need this one: those that retrain say which recipe, round and seed it is.

    Raises:
        PrunescopeError: the cell, or the one that it cut, is not done.
    """
    if cell.kind != "prune":
        return ""
    before = _collapsed(store, cell.parents.get("ticket", cell.parents["previous"]))
    fresh = {layer: how for layer, how in _collapsed(store, cell).items() if layer not in before}
    retrained = [child for child in children if child.kind == "retrain"]
    tickets = [child.label for child in retrained if "role" not in child.params]
    who = ", ".join(tickets or [child.label for child in retrained] or [cell.label])
    return f"{who}: {in_words(fresh)}" if fresh else ""


def in_words(layers: dict[str, Collapse]) -> str:
    """`conv1, conv2 have no weights left; conv3 has weights left, but ...`; the first few of each kind by name."""
    told = []
    for how, (one, several) in WORDS.items():
        names = [layer.removesuffix(".weight") for layer, ended in layers.items() if ended == how]
        if names:
            more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            told.append(f"{', '.join(names[:_NAMED])}{more} {one if len(names) == 1 else several}")
    return "; ".join(told)


def _collapsed(store: Store, cell: Cell) -> dict[str, Collapse]:
    """Of a dense network nothing is known, and of older checkpoints not which layers are cut off."""
    info = store.json(cell, "checkpoint.json").get("info", {})
    return collapsed(info.get("densities", {}), info.get("effective_densities", {}))
