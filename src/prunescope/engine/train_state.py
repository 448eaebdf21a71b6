"""The state of a training in progress, on disk: enough to go on to the same bits."""

from __future__ import annotations

import hashlib
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prunescope.core.errors import PrunescopeWarning
from prunescope.core.files import atomic_file


def identity(*parts: object) -> str:
    """What a state belongs to: a call of `fit` with equal parts; tensors, also in tuples, count with every element."""
    digest = hashlib.sha256()
    for part in parts:
        content = _content(part)
        digest.update(f"{len(content)}:".encode() + content)
    return digest.hexdigest()


def _content(part: object) -> bytes:
    if isinstance(part, Tensor):
        return part.cpu().numpy().tobytes()
    return identity(*part).encode() if isinstance(part, tuple) else repr(part).encode()


def save_state(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    owner: str,
    step: int,
    history: list[dict[str, Any]],
    mask: Mapping[str, Tensor],
) -> None:
    """Write the state after `step` optimiser steps; a reader sees the old file or this one.

    `mask` is the one in force, where it changes while training goes on; otherwise it is empty.
    No random state is in it: every epoch draws from seeds derived for it.
    """
    content = {
        "owner": owner, "step": step, "history": history,
        "model": model.state_dict(), "optimizer": optimizer.state_dict(), "mask": dict(mask),
    }  # fmt: skip
    with atomic_file(path) as temporary:
        torch.save(content, temporary)


def load_state(path: Path | None, owner: str) -> dict[str, Any] | None:
    """The stored state, or None when there is none; a damaged or foreign one is left out with a warning."""
    if path is None or not path.is_file():
        return None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        if content["owner"] == owner:
            return dict(content)
        reason = "it belongs to another training"
    except (RuntimeError, EOFError, KeyError, TypeError, ValueError, OSError, pickle.UnpicklingError) as error:
        reason = f"it is damaged ({str(error).splitlines()[0] if str(error) else type(error).__name__})"
    warnings.warn(f"training state {path} is not used: {reason}; starting anew", PrunescopeWarning, stacklevel=3)
    return None
