"""Pruned networks as small files: the mask in as few bytes as it holds information, and the kept weights.

This is about disks and downloads. A network read back is as large and as slow as the dense one: dense hardware
multiplies with zeros at the same speed as with other numbers. What makes a network faster is to remove whole channels.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from prunescope.core.errors import PrunescopeError
from prunescope.core.files import write_atomic
from prunescope.core.mask import Mask
from prunescope.models.checkpoint import Checkpoint
from prunescope.models.mask_codes import CodedMask, binary_entropy, decode_mask, encode_mask
from prunescope.models.weights import read_safetensors

FORMAT = 1
#: What a file may unpack to, in bytes, unless the caller allows more.
LIMIT = 8 * 2**30
#: Elements are moved as integers of their size: copying a half-precision NaN as a float may change its bits.
_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def entropy_bound(mask: Mask, value_bits: int = 32) -> float:
    """Bytes below which a file cannot get whose masks are random: sum over tensors of n H(k/n) bits, and the values.

    Args:
        value_bits: of one kept weight; 0 gives the bound of the mask alone.

    A mask with structure (whole filters, n of every m) holds less information than a random one of its density, and
    its file may be smaller. Weights that the mask does not cover are not counted.

    >>> entropy_bound(Mask({"w": torch.tensor([True, False])}))
    4.25
    """
    bits = sum(kept.numel() * binary_entropy(int(kept.sum()) / max(1, kept.numel())) for kept in mask.values())
    return (bits + value_bits * mask.kept) / 8


def pack(weights: Mapping[str, Tensor], mask: Mask) -> bytes:
    """The bytes of the file that `save_packed` writes. Equal weights and masks give equal bytes (with one zlib).

    Raises:
        PrunescopeError: the mask does not fit the weights, or a weight that it prunes is not zero.
    """
    Checkpoint(weights, mask)  # which looks whether they fit
    tensors: dict[str, Tensor] = {}
    masks: dict[str, Any] = {}
    for name, tensor in weights.items():
        own = tensor.detach().cpu()
        if name in mask:
            kept = mask[name].flatten()
            coded = encode_mask(kept.numpy())
            masks[name] = [list(mask[name].shape), coded.code, coded.shift]
            tensors[f"mask/{name}"] = torch.from_numpy(np.frombuffer(coded.data, dtype=np.uint8).copy())
            tensors[f"kept/{name}"] = _as_integers(own)[kept].view(own.dtype)
        else:
            tensors[f"whole/{name}"] = own.clone(memory_format=torch.contiguous_format)
    # One entry of metadata only: safetensors writes several in random order, and keeps no order of the tensors.
    facts = {"packed": FORMAT, "weights": list(weights), "masks": {name: masks[name] for name in mask}}
    return save(tensors, metadata={"prunescope": json.dumps(facts)})


def save_packed(weights: Mapping[str, Tensor], mask: Mask, path: str | Path) -> None:
    """Write weights and their mask as one safetensors file, whole or not at all.

    Of each masked tensor the file holds the mask in the shortest of `models.mask_codes.CODES`, and the kept weights as
    they are; of the others all. `load_packed` gives back the same bits (only a pruned -0.0 comes back as 0.0).

    Args:
        weights: a state_dict, in which pruned weights are zero.
        mask: of some of its tensors; `Mask({})` for none.

    Raises:
        PrunescopeError: the mask does not fit the weights, or a weight that it prunes is not zero.
    """
    write_atomic(Path(path), pack(weights, mask))


def load_packed(path: str | Path, *, limit: int = LIMIT) -> tuple[dict[str, Tensor], Mask]:
    """(weights, mask) as `save_packed` was given them, in their order. Nothing in the file is executed.

    Args:
        limit: bytes that the masked tensors may take. A file of a few bytes can declare any number of zeros.

    Raises:
        PrunescopeError: no such file, not one of `save_packed`, damaged, or larger than the limit.
    """
    path = Path(path)
    if not path.is_file():
        raise PrunescopeError(f"packed weights {path}: no such file")
    facts, tensors = _facts(path), read_safetensors(path)
    try:
        _check(facts, tensors, limit)
        masks = {name: _mask(tensors, name, *entry) for name, entry in facts["masks"].items()}
        weights = {name: _weights(tensors, name, masks.get(name)) for name in facts["weights"]}
    # Facts of any other kind than ours fail at one of these; PrunescopeError is a ValueError.
    except (KeyError, TypeError, AttributeError, ValueError, RuntimeError, OverflowError) as error:
        raise PrunescopeError(f"packed weights {path}: damaged ({error})") from None
    return weights, Mask(masks)


def _facts(path: Path) -> dict[str, Any]:
    try:
        with safe_open(path, "pt") as file:
            facts = json.loads(file.metadata()["prunescope"])
        if facts["packed"] == FORMAT:
            return dict(facts)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RecursionError):
        raise PrunescopeError(f"packed weights {path}: damaged, or not written by save_packed") from None
    raise PrunescopeError(f"packed weights {path}: format {facts['packed']!r}; this version reads format {FORMAT}")


def _check(facts: Mapping[str, Any], tensors: Mapping[str, Tensor], limit: int) -> None:
    """That the file holds what it says, and that it is not too much, before anything of that size is made."""
    if set(_keys(facts)) != set(tensors):
        raise PrunescopeError("its tensors are not those that it names")
    total = 0
    for name, (shape, _, _) in facts["masks"].items():
        if not all(type(length) is int and length >= 0 for length in shape):
            raise PrunescopeError(f"{name!r} has shape {shape}")
        total += math.prod(shape) * tensors[f"kept/{name}"].element_size()
    if total > limit:
        raise PrunescopeError(f"it would unpack to {total:,} bytes; pass limit={total} if that is meant")


def _keys(facts: Mapping[str, Any]) -> Iterator[str]:
    for name in facts["weights"]:
        yield from (f"mask/{name}", f"kept/{name}") if name in facts["masks"] else (f"whole/{name}",)


def _mask(tensors: Mapping[str, Tensor], name: str, shape: list[int], code: str, shift: int) -> Tensor:
    data = tensors[f"mask/{name}"].numpy().tobytes()
    kept = decode_mask(CodedMask(code, shift, data), math.prod(shape), tensors[f"kept/{name}"].numel())
    return torch.from_numpy(kept).view(shape)


def _weights(tensors: Mapping[str, Tensor], name: str, mask: Tensor | None) -> Tensor:
    if mask is None:
        return tensors[f"whole/{name}"]
    values = tensors[f"kept/{name}"]
    dense = torch.zeros(mask.numel(), dtype=values.dtype)
    _as_integers(dense)[mask.flatten()] = _as_integers(values)
    return dense.view(mask.shape)


def _as_integers(tensor: Tensor) -> Tensor:
    flat = tensor.flatten()
    return flat.view(_INTEGERS[flat.element_size()])
