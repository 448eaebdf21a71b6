"""Captum, imported when it is used, and the function of images that it is given."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from prunescope.core.errors import missing_extra
from prunescope.engine.attribution.rewritten import folded_for
from prunescope.engine.sweep import logits_of

#: Images on which it is checked whether Captum understands a network: a step that it does not see shows in any.
CHECKED = 8


def rows_for(device: torch.device) -> int:
    """Images, counting copies, that run at once where nothing is asked for: what fits the caches of a CPU, and more on
    other devices; bounds the memory."""
    return 64 if device.type == "cpu" else 512


def captum(wanted_for: str) -> Any:
    """The module `captum.attr`.

    Raises:
        PrunescopeError: it is not installed.
    """
    try:
        return importlib.import_module("captum.attr")
    except ImportError:
        raise missing_extra("captum", "attribution", f"the attribution {wanted_for!r}") from None


def logits_function(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """Images to logits. A clone goes in, because a network may overwrite its input and that must stay a leaf."""
    return lambda x: logits_of(model(x.clone()))


def folded_function(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """The same for many passes, by the folded network (`folded_for`), which is made when the first images come."""
    made: list[nn.Module] = []

    def logits(x: Tensor) -> Tensor:
        if not made:
            made.append(folded_for(model, x.detach()[:16].clone()))
        return logits_of(made[0](x.clone()))

    return logits


def in_parts(attribute: Callable[[Tensor, Tensor], Tensor], x: Tensor, target: Tensor, copies: int) -> Tensor:
    """`attribute` of a few images at a time, each of which it copies so often; the attributions (B, C, H, W)."""
    size = max(1, rows_for(x.device) // copies)
    pairs = zip(x.detach().split(size), target.split(size), strict=True)
    return torch.cat([attribute(part.clone().requires_grad_(), chosen).detach() for part, chosen in pairs])
