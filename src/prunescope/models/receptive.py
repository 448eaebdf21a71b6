"""Which input pixels a layer's places can see: the exact box of each, whatever the strides.

The network runs once, on boxes instead of numbers (as `graph` runs it on channel labels). The batch holds four bounds:
-first row, last row, -first column, last column. Each is larger where more is seen, so that whatever joins values takes
their maximum: a convolution is a max pooling of the bounds with its kernel, stride, dilation and padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from prunescope.core.errors import PrunescopeError, choices
from prunescope.models.channel_signals import is_signal, signal, signals
from prunescope.models.layers import evaluating
from prunescope.models.live_rules import ASIDE, ATTRIBUTES, words
from prunescope.models.receptive_rules import rule

#: Operations that change their first argument, beside those whose name ends in "_".
IN_PLACE = words("__iadd__ __isub__ __imul__ __itruediv__ __ipow__ __setitem__")


def receptive_fields(
    model: nn.Module, shape: tuple[int, int, int], layers: Sequence[str] | None = None
) -> dict[str, Tensor]:
    """{layer: the box of pixels that each place of its output can see}, for images of `shape` (C, H, W).

    A box is the hull of all pixels with a path to the place, over all channels, weights of zero included: exact through
    strides, dilations, padding, pooling, sums and concatenations. Behind global pooling or a squeeze-excite gate
    everything sees all that was pooled. What has no rule (attention, transposed convolutions) sees the whole image.

    Args:
        layers: modules with outputs (B, C, h, w) or (B, C); None: all 2-d convolutions that run.

    Returns:
        int64 (h, w, 4) per layer, on the CPU: first row, last row, first column, last column, inclusive and within the
        image. A place that sees padding only has its last row before its first, and so for columns.

    >>> model = nn.Sequential(nn.Conv2d(1, 1, 3, stride=2, padding=1), nn.Conv2d(1, 1, 2))
    >>> receptive_fields(model, (1, 8, 8))["1"][0, :, 2:].tolist()
    [[0, 3], [1, 5], [3, 7]]

    Raises:
        PrunescopeError: unknown layer, one that does not run or runs several times, or whose output is no map; or the
            network does not run on one image of this shape.
    """
    modules = dict(model.named_modules())
    for layer in layers or ():
        if layer not in modules:
            raise choices("layer", layer, [name for name in modules if name])
    watched = layers if layers is not None else [n for n, m in modules.items() if isinstance(m, nn.Conv2d)]
    seen = _outputs(model, shape, watched)
    wanted = watched if layers is not None else [layer for layer in watched if seen[layer]]
    return {layer: _boxes(layer, seen[layer], shape) for layer in wanted}


def _outputs(model: nn.Module, shape: tuple[int, int, int], layers: Sequence[str]) -> dict[str, list[object]]:
    """{layer: what it gave, each time that it ran}, in eval mode."""
    seen: dict[str, list[object]] = {layer: [] for layer in layers}
    handles = [
        model.get_submodule(layer).register_forward_hook(
            lambda _module, _inputs, output, into=seen[layer]: into.append(_copied(output))
        )
        for layer in seen
    ]
    try:
        with evaluating(model), torch.no_grad(), torch.random.fork_rng(devices=[]), _Boxes():
            model(_image(shape))
    except PrunescopeError:
        raise
    except Exception as error:  # whatever the network's own code raises
        raise PrunescopeError(
            f"{type(model).__name__} does not run on an image of shape {shape}, so what its layers see is not known: "
            f"{type(error).__name__}: {str(error).splitlines()[0]}"
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _copied(output: object) -> object:
    """What an operation in place behind the layer cannot reach."""
    return signal(output.detach()) if isinstance(output, Tensor) and is_signal(output) else output


def _image(shape: tuple[int, int, int]) -> Tensor:
    """Every pixel sees itself: (4, C, H, W)."""
    rows, columns = torch.meshgrid(torch.arange(shape[1]), torch.arange(shape[2]), indexing="ij")
    bounds = torch.stack([-rows, rows, -columns, columns]).float()
    return signal(bounds[:, None].expand(4, *shape))


def _boxes(layer: str, outputs: list[object], shape: tuple[int, int, int]) -> Tensor:
    if len(outputs) != 1:
        times = "does not run when the network is evaluated" if not outputs else f"runs {len(outputs)} times"
        raise PrunescopeError(f"layer {layer!r} {times}; name one that runs once")
    (output,) = outputs
    if not is_signal(output) or not isinstance(output, Tensor) or output.ndim not in (2, 4) or len(output) != 4:
        got = tuple(output.shape[1:]) if isinstance(output, Tensor) else type(output).__name__
        raise PrunescopeError(f"layer {layer!r} gives {got} for an image, not (channels, height, width)")
    bounds = output.amax(1) if output.ndim == 4 else output.amax(1)[:, None, None]
    _, height, width = shape
    first_row, last_row, first_column, last_column = bounds.clamp(-max(height, width), max(height, width)).long()
    return torch.stack(
        [
            (-first_row).clamp(0, height), last_row.clamp(-1, height - 1),
            (-first_column).clamp(0, width), last_column.clamp(-1, width - 1),
        ], dim=-1,
    )  # fmt: skip


class _Boxes(TorchFunctionMode):
    """While active, every torch function works on boxes."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", str(func))
        if name == "__get__":
            name = ATTRIBUTES.get(func.__self__.__name__, name)
        if name in ASIDE or not signals((args, tuple(kwargs.values()))):
            return func(*args, **kwargs)
        if name == "t":
            func, args = torch.transpose, (args[0], -2, -1)
        result = rule(name)(func, *args, **kwargs)
        in_place = name in IN_PLACE or (name.endswith("_") and not name.endswith("__"))
        if in_place and isinstance(args[0], Tensor) and is_signal(result):
            args[0].data = result  # whoever else holds the tensor sees the change
            return None if name == "__setitem__" else signal(args[0])
        return result
