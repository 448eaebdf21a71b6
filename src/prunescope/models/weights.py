"""Weights from files that other people wrote: opened without running code, unwrapped, and loaded strictly."""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from prunescope.core.errors import PrunescopeError

SUFFIXES = (".safetensors", ".pt", ".pth", ".ckpt", ".bin", ".tar")
#: Where training scripts keep the weights; of several the first is taken, so a moving average only when it is alone.
WRAPPERS = (
    "state_dict",
    "model_state_dict",
    "model",
    "net",
    "network",
    "weights",
    "state_dict_ema",
    "model_ema",
    "ema",
)
#: What DataParallel, Lightning modules and torch.compile put before every name.
PREFIXES = ("module.", "model.", "_orig_mod.")


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a file by name, on the CPU.

    `.safetensors`, or a pickle of torch's (`.pt`, `.pth`, `.ckpt`, `.bin`, `.tar`), of which only tensors are read.
    The weights may be wrapped in a mapping (`state_dict`, `model`, ...), and a prefix common to all names
    (`module.`, `model.`, `_orig_mod.`) is taken off.

    Raises:
        PrunescopeError: no such file, another kind, damaged, holding Python objects, or holding no weights.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise PrunescopeError(f"weights {path}: unknown kind of file {path.suffix!r}; known: {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise PrunescopeError(f"weights {path}: no such file")
    found = read_safetensors(path) if path.suffix == ".safetensors" else _unpickle(path)
    return strip_prefixes(_unwrap(found, path))


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file; a damaged one is named in the error."""
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise PrunescopeError(f"{path} is damaged or no safetensors file ({error})") from error


def load_weights(model: nn.Module, state: Mapping[str, Tensor], *, where: str = "") -> None:
    """Copy `state` into the network, which must have exactly these names and shapes.

    Counters of batches (`num_batches_tracked`), which old files lack, may be missing.

    Args:
        where: the file, for messages.

    Raises:
        PrunescopeError: the first few of what is missing, unexpected and differently shaped, and how many of each.
            The network is then as it was.
    """
    own = model.state_dict()
    state = _with_prefix(state, own)
    problems = _mismatch(state, own)
    if problems:
        place = f"weights {where}" if where else "weights"
        raise PrunescopeError(f"{place} do not fit {type(model).__name__}: {'; '.join(problems)}")
    model.load_state_dict({**own, **state})


def strip_prefixes(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Take off the prefixes of wrappers, as often as all names share one.

    >>> list(strip_prefixes({"module._orig_mod.fc.weight": torch.zeros(1)}))
    ['fc.weight']
    """
    length = len(_shared_prefix(state))
    return {name[length:]: tensor for name, tensor in state.items()}


def _shared_prefix(names: Iterable[str]) -> str:
    rest, shared = list(names), ""
    while prefix := next((p for p in PREFIXES if rest and all(name.startswith(p) for name in rest)), ""):
        rest, shared = [name.removeprefix(prefix) for name in rest], shared + prefix
    return shared


def _unpickle(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about protocols and archives: what matters then fails, below
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        objects = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f"Python objects ({objects.group(1)})" if objects else "more than weights, or is damaged"
        raise PrunescopeError(
            f"weights {path}: refused, because it holds {what}, and opening such a file could run any code; "
            "if you trust it, save its state_dict as .safetensors where it was made"
        ) from error
    except Exception as error:  # damaged bytes make the reader of pickles raise nearly anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise PrunescopeError(f"weights {path}: damaged, or not a file of torch's ({reason})") from error


def _unwrap(found: Any, path: Path) -> dict[str, Tensor]:
    while isinstance(found, Mapping):
        inner = next((found[key] for key in WRAPPERS if isinstance(found.get(key), Mapping)), None)
        if inner is None:
            break
        found = inner
    if not isinstance(found, Mapping) or not any(isinstance(value, Tensor) for value in found.values()):
        held = f"a mapping with {_few(map(str, found))}" if isinstance(found, Mapping) else type(found).__name__
        raise PrunescopeError(
            f"weights {path}: no weights found, it holds {held}; known wrappers: {_few(WRAPPERS, 99)}"
        )
    others = [str(name) for name, value in found.items() if not isinstance(value, Tensor)]
    if others:
        raise PrunescopeError(f"weights {path}: entries that are no tensors: {_few(others)}")
    return {str(name): value for name, value in found.items()}


def _with_prefix(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Put a prefix back on when it is the network's own: a user's module whose only child is called `model`."""
    prefix = "" if any(name in own for name in state) else _shared_prefix(own)
    return {prefix + name: tensor for name, tensor in state.items()}


def _mismatch(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> list[str]:
    missing = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in state if name not in own]
    shapes = [
        f"{name} {tuple(state[name].shape)}, the network has {tuple(tensor.shape)}"
        for name, tensor in own.items()
        if name in state and state[name].shape != tensor.shape
    ]
    kinds = (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
    return [f"{len(names)} {kind} ({_few(names)})" for kind, names in kinds if names]


def _few(names: Iterable[str], limit: int = 3) -> str:
    names = list(names)
    return ", ".join(names[:limit]) + (", ..." if len(names) > limit else "")
