"""Pruned networks as small files: the mask in as few bytes as it holds information, and the kept weights.

In a network of 270,000 weights cut at random places, the file is 1 % above its entropy bound at density 0.1, and 3 % at
0.02, where names and shapes count (`benchmarks/packed.py`).

This is about disks and downloads. A network read back is as large and as slow as the dense one: dense hardware
multiplies with zeros at the same speed as with other numbers. What makes a network faster is to remove whole channels.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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

FORMAT = "packed 1"
#: What a file may unpack to, in bytes, unless the caller allows more.
LIMIT = 8 * 2**30
#: What the names and shapes in a file may unpack to.
_FACTS_LIMIT = 64 * 2**20
#: Elements are moved as integers of their size: copying a half-precision NaN as a float may change its bits.
_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def entropy_bound(mask: Mask, value_bits: int = 32) -> float:
    """Bytes that random masks and their kept values hold: the sum over tensors of n H(k/n) + 32 k bits.

    Args:
        value_bits: of one kept weight, taken as noise (the sign and exponent hold a little less); 0 gives the bound of
            the mask alone.

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
    entries: list[list[Any]] = []
    masks: list[bytes] = []
    values: dict[str, list[Tensor]] = {}
    for name, tensor in weights.items():
        kind, flat = str(tensor.dtype).removeprefix("torch."), _as_integers(tensor.detach().cpu())
        entry: list[Any] = [name, kind, list(tensor.shape)]
        if name in mask:
            kept = mask[name].flatten()
            coded, flat = encode_mask(kept.numpy()), flat[kept]
            entry += [len(flat), coded.code, coded.shift, len(coded.data)]
            masks.append(coded.data)
        entries.append(entry)
        values.setdefault(kind, []).append(flat.view(tensor.dtype))
    # A header of safetensors takes about 200 bytes a tensor: names and shapes are told apart, and compressed.
    places = {name: place for place, name in enumerate(weights)}
    order = [places[name] for name in mask]
    facts = zlib.compress(json.dumps({"tensors": entries, "masks": order}).encode(), 9)
    tensors = {"facts": _bytes(facts), "masks": _bytes(b"".join(masks))}
    joined = {f"values/{kind}": _joined(parts) for kind, parts in values.items()}
    return save({**tensors, **joined}, metadata={"prunescope": FORMAT})


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
        limit: bytes that the tensors may take. A file of a few bytes can declare any number of zeros.

    Raises:
        PrunescopeError: no such file, not one of `save_packed`, damaged, or larger than the limit.
    """
    path = Path(path)
    if not path.is_file():
        raise PrunescopeError(f"packed weights {path}: no such file")
    _require_format(path)
    tensors = read_safetensors(path)
    try:
        facts = json.loads(_inflated(tensors["facts"]))
        entries = [_Entry(*entry) for entry in facts["tensors"]]
        names = [entries[place].name for place in facts["masks"]]
        weights, masks = _unpacked(entries, tensors, limit)
        return weights, Mask({name: masks[name] for name in names})
    # Facts of any other kind than ours fail at one of these; PrunescopeError is a ValueError.
    except (LookupError, TypeError, AttributeError, ValueError, RuntimeError, OverflowError, zlib.error) as error:
        raise PrunescopeError(f"packed weights {path}: damaged ({error})") from None


@dataclass(frozen=True)
class _Entry:
    """What the file says of one tensor; the last four of a masked one only."""

    name: str
    kind: str
    shape: list[int]
    kept: int = -1
    code: str = ""
    shift: int = 0
    length: int = 0

    def __post_init__(self) -> None:
        numbers = [*self.shape, self.kept + 1, self.shift, self.length]
        if not all(type(number) is int and number >= 0 for number in numbers):
            raise PrunescopeError(f"{self.name!r} is described by {numbers}")

    @property
    def size(self) -> int:
        return math.prod(self.shape)


def _unpacked(
    entries: Sequence[_Entry], tensors: Mapping[str, Tensor], limit: int
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(weights, masks). Sizes are checked before anything of that size is made."""
    total = sum(entry.size * tensors[f"values/{entry.kind}"].element_size() for entry in entries)
    if total > limit:
        raise PrunescopeError(f"it would unpack to {total:,} bytes; pass limit={total} if that is meant")
    codes = _split(tensors["masks"], [entry.length for entry in entries])
    parts = {
        kind: iter(_split(tensors[f"values/{kind}"], [_held(entry) for entry in entries if entry.kind == kind]))
        for kind in dict.fromkeys(entry.kind for entry in entries)
    }
    weights, masks = {}, {}
    for entry, code in zip(entries, codes, strict=True):
        values = next(parts[entry.kind])
        if entry.kept >= 0:
            coded = CodedMask(entry.code, entry.shift, code.numpy().tobytes())
            kept = torch.from_numpy(decode_mask(coded, entry.size, entry.kept))
            masks[entry.name] = kept.view(entry.shape)
            values = _spread(values, kept)
        weights[entry.name] = values.view(entry.shape)
    return weights, masks


def _held(entry: _Entry) -> int:
    """How many values of a tensor are in the file."""
    return entry.size if entry.kept < 0 else entry.kept


def _split(tensor: Tensor, lengths: list[int]) -> list[Tensor]:
    if tensor.ndim != 1 or sum(lengths) != len(tensor):
        raise PrunescopeError(f"{sum(lengths)} values are told of, and there are {tuple(tensor.shape)}")
    return [part.clone() for part in tensor.split(lengths)]


def _spread(values: Tensor, kept: Tensor) -> Tensor:
    dense = torch.zeros(len(kept), dtype=values.dtype)
    _as_integers(dense)[kept] = _as_integers(values)
    return dense


def _as_integers(tensor: Tensor) -> Tensor:
    flat = tensor.flatten()
    if flat.element_size() not in _INTEGERS:
        raise PrunescopeError(f"packed files hold no tensors of {flat.dtype}")
    return flat.view(_INTEGERS[flat.element_size()])


def _joined(parts: list[Tensor]) -> Tensor:
    return torch.cat([_as_integers(part) for part in parts]).view(parts[0].dtype)


def _bytes(content: bytes) -> Tensor:
    return torch.from_numpy(np.frombuffer(content, dtype=np.uint8).copy())


def _inflated(content: Tensor) -> bytes:
    reader = zlib.decompressobj()
    found = reader.decompress(content.numpy().tobytes(), _FACTS_LIMIT)
    if not reader.eof:
        raise PrunescopeError(f"names and shapes are cut short, or more than {_FACTS_LIMIT:,} bytes")
    return found


def _require_format(path: Path) -> None:
    try:
        with safe_open(path, "pt") as file:
            found = (file.metadata() or {}).get("prunescope", "")
    except (SafetensorError, OSError):
        raise PrunescopeError(f"packed weights {path}: damaged, or not written by save_packed") from None
    if found != FORMAT:
        told = (
            f"format {found!r}; this version reads {FORMAT!r}" if found.startswith("packed") else "another kind of file"
        )
        raise PrunescopeError(f"packed weights {path}: not written by save_packed ({told})")
