"""Where a network's stages end: the last outermost module of every resolution, found by running it once."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor, nn

from prunescope.core.errors import PrunescopeError
from prunescope.models.axes import last_learned, units_last
from prunescope.models.layers import CONVOLUTIONS, evaluating, is_auxiliary, penultimate


def last_of_stages(model: nn.Module, shape: tuple[int, ...]) -> list[str]:
    """Names of the modules at which stages end, in the order of running, for images of `shape` (C, H, W).

    A stage is what gives maps (B, C, h, w) of one size, or tokens (B, T, C) of one number. Of the modules that give
    them the outermost count (the residual block rather than its convolutions), and of these the last. Maps of a size
    that no convolution gives, or at which no outermost module has parameters (behind global pooling), are no stage, nor
    is what holds the head. A module that runs several times (a shared ReLU) is passed over. In a ResNet: the stem's
    `relu`, `layer1` ... `layer4`. Maps may be (B, h, w, C), as within Swin transformers.

    >>> model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    >>> last_of_stages(model, (1, 8, 8))
    ['1']

    Raises:
        PrunescopeError: the network does not run on an image of this shape, or has no such module.
    """
    sizes = _sizes(model, shape)
    modules, head = dict(model.named_modules()), penultimate(model)
    found: list[str] = []
    for size in dict.fromkeys(sizes.values()):
        names = [
            name for name, own in sizes.items() if own == size and name != head and not head.startswith(f"{name}.")
        ]
        outer = [name for name in names if name.count(".") == min(n.count(".") for n in names)]
        written = len(size) == 1 or any(isinstance(modules[name], (*CONVOLUTIONS, nn.Linear)) for name in names)
        if written and any(next(modules[name].parameters(), None) is not None for name in outer):
            found.append(outer[-1])
    if not found:
        raise PrunescopeError(f"{type(model).__name__} has no stages of maps or tokens; name layers instead")
    return sorted(found, key=list(sizes).index)


def _sizes(model: nn.Module, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """{module: size of its maps (h, w), or number of its tokens}, in the order of finishing; those that run once."""
    seen: list[tuple[str, tuple[int, ...]]] = []
    learned = last_learned(model, [name for name, _ in model.named_modules() if name])
    handles = [
        module.register_forward_hook(
            lambda _m, _inputs, output, name=name: seen.append((name, _size(output, learned[name], name)))
        )
        for name, module in model.named_modules()
        if name and not is_auxiliary(name)
    ]
    first = next(model.parameters(), torch.zeros(()))
    try:
        with evaluating(model), torch.no_grad(), torch.random.fork_rng(devices=[]):
            model(torch.zeros(1, *shape, device=first.device, dtype=first.dtype))
    except Exception as error:  # whatever the network's own code raises
        raise PrunescopeError(
            f"{type(model).__name__} does not run on an image of shape {tuple(shape)}, so its stages are not known: "
            f"{type(error).__name__}: {str(error).splitlines()[0]}"
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    runs = Counter(name for name, _ in seen)
    return {name: size for name, size in seen if runs[name] == 1 and size}


def _size(output: object, learned: nn.Module | None, name: str) -> tuple[int, ...]:
    """Empty for what is neither maps nor tokens, and for maps of which it is not known where their units are."""
    if not isinstance(output, Tensor) or output.ndim not in (3, 4):
        return ()
    if output.ndim == 3:
        return (output.shape[1],)
    try:
        return tuple(output.shape[1:3] if units_last(learned, output.shape, name) else output.shape[2:])
    except PrunescopeError:
        return ()
