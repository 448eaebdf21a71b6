"""Networks made smaller, loaded again."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from prunescope.core.errors import PrunescopeError
from prunescope.models.packed import load_packed
from prunescope.models.weights import load_weights, read_weights
from prunescope.ticket.blueprint import read_facts

#: Files that weights are in: all of them, or the mask and those that are kept.
WHOLE, PACKED = "network.safetensors", "packed.safetensors"


def load_shrunk(folder: str | Path, model: nn.Module | None = None) -> nn.Module:
    """The network that `prunescope shrink` wrote into a folder, in eval mode, on the CPU. Nothing in it is executed.

    Args:
        model: a network of the architecture that was pruned, where it comes from a function of the user's own; it
            becomes the smaller one.

    Raises:
        PrunescopeError: a file is missing, damaged, of another format, or of another network.
    """
    folder = Path(folder)
    blueprint, facts = read_facts(folder / "network.json", "network", ("weights",))
    name = facts["weights"]
    if name not in (WHOLE, PACKED):
        raise PrunescopeError(f"{folder / 'network.json'}: weights are in {WHOLE} or {PACKED}, not in {name!r}")
    file = folder / name
    weights = load_packed(file)[0] if name == PACKED else read_weights(file)
    if model is None and blueprint.classes not in {tensor.shape[0] for tensor in weights.values() if tensor.dim()}:
        raise PrunescopeError(f"{folder} tells of {blueprint.classes} classes, and no layer in {file.name} has so many")
    network = blueprint.build(model)
    load_weights(network, weights, where=str(file))
    return network
