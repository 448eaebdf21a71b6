"""A mask as few bytes: the shortest of three codes, each read and written without a loop over weights.

A mask that keeps k of n weights, wherever they lie, holds n H(k/n) bits, with H the binary entropy. Rice's code of the
gaps between kept weights (or between pruned ones, if these are fewer) comes within 3 % of that at any density; a mask
with structure (whole filters, n of every m) can be shorter than that, and for it there is deflate.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from prunescope.core.errors import PrunescopeError

Bools = np.ndarray[Any, np.dtype[np.bool_]]
Ints = np.ndarray[Any, np.dtype[np.int64]]

#: {name: what the bytes are}. The first of equally short ones is taken.
CODES = {
    "bits": "one bit a weight",
    "kept gaps": "Rice's code of the gaps before kept weights",
    "cut gaps": "Rice's code of the gaps before pruned weights",
    "deflate": "one bit a weight, compressed by zlib",
}
_LEVEL = 6  # of deflate: higher ones take five times as long for less than one per cent


@dataclass(frozen=True)
class CodedMask:
    """One flat mask in one of `CODES`; `shift` is Rice's parameter, 0 for the other codes."""

    code: str
    shift: int
    data: bytes


def binary_entropy(share: float) -> float:
    """H(p) = -p log2 p - (1-p) log2 (1-p), bits, in [0, 1] (Shannon 1948).

    >>> binary_entropy(0.5), binary_entropy(0.0)
    (1.0, 0.0)
    """
    parts = [p for p in (share, 1.0 - share) if p > 0.0]
    return float(sum(-p * np.log2(p) for p in parts))


def encode_mask(kept: Bools) -> CodedMask:
    """The shortest code of a flat mask (n,).

    >>> encode_mask(np.zeros(1000, dtype=bool))
    CodedMask(code='kept gaps', shift=0, data=b'')
    """
    bits = np.packbits(kept).tobytes()
    few = kept if 2 * int(kept.sum()) <= kept.size else ~kept
    shift, gaps = _rice(_gaps(few))
    found = [
        CodedMask("bits", 0, bits),
        CodedMask("kept gaps" if few is kept else "cut gaps", shift, gaps),
        CodedMask("deflate", 0, zlib.compress(bits, _LEVEL)),
    ]
    return min(found, key=lambda coded: len(coded.data))


def decode_mask(coded: CodedMask, size: int, kept: int) -> Bools:
    """The mask (size,) that `encode_mask` was given; `kept` is how many weights it keeps.

    Nothing larger than a few times `size` is allocated, whatever the bytes say: `size` is the caller's to check.

    Raises:
        PrunescopeError: the bytes are not such a mask.
    """
    if not 0 <= kept <= size:
        raise PrunescopeError(f"a mask of {size} weights cannot keep {kept}")
    if coded.code in ("bits", "deflate"):
        mask = _unpacked(_inflated(coded.data, size) if coded.code == "deflate" else coded.data, size)
    elif coded.code in CODES:
        inverted = coded.code == "cut gaps"
        mask = np.zeros(size, dtype=np.bool_)
        mask[_positions(coded, size, size - kept if inverted else kept)] = True
        mask = ~mask if inverted else mask
    else:
        raise PrunescopeError(f"unknown code of a mask {coded.code!r}; known: {', '.join(CODES)}")
    if int(mask.sum()) != kept:
        raise PrunescopeError(f"a mask says that it keeps {kept} weights, and keeps {int(mask.sum())}")
    return mask


def _gaps(mask: Bools) -> Ints:
    return np.diff(np.flatnonzero(mask), prepend=-1) - 1


def _rice(gaps: Ints) -> tuple[int, bytes]:
    """(shift, bytes) of Rice's code (1971): each gap's quotient by 2^shift in unary, then all remainders."""
    if not gaps.size:
        return 0, b""
    shifts = range(int(gaps.max()).bit_length() + 1)
    shift = min(shifts, key=lambda k: gaps.size * (k + 1) + int((gaps >> k).sum()))
    ends = np.cumsum((gaps >> shift) + 1)
    unary = np.zeros(int(ends[-1]), dtype=np.uint8)
    unary[ends - 1] = 1
    rest = (gaps[:, None] >> np.arange(shift)) & 1
    return shift, np.packbits(unary).tobytes() + np.packbits(rest.astype(np.uint8)).tobytes()


def _positions(coded: CodedMask, size: int, count: int) -> Ints:
    """Where the `count` ones of a mask of `size` lie."""
    tail = -(-count * coded.shift // 8)
    if not 0 <= coded.shift < 63 or not 0 <= tail <= len(coded.data):
        raise PrunescopeError("the gaps of a mask are cut short")
    split = len(coded.data) - tail
    ends = np.flatnonzero(np.unpackbits(np.frombuffer(coded.data[:split], dtype=np.uint8)))
    if len(ends) != count:
        raise PrunescopeError(f"a mask has {len(ends)} gaps instead of {count}")
    rest = np.unpackbits(np.frombuffer(coded.data[split:], dtype=np.uint8), count=count * coded.shift)
    low = rest.reshape(count, coded.shift) @ (1 << np.arange(coded.shift, dtype=np.int64))
    high = (np.diff(ends, prepend=-1) - 1) << coded.shift
    positions = np.cumsum(high + low + 1) - 1
    if count and not 0 <= positions.min() <= positions.max() < size:
        raise PrunescopeError(f"the gaps of a mask lead outside its {size} weights")
    return positions


def _inflated(data: bytes, size: int) -> bytes:
    """At most the bytes of a mask of this size: what would grow larger is never unpacked."""
    reader = zlib.decompressobj()
    try:
        found = reader.decompress(data, -(-size // 8) + 1)
    except zlib.error as error:
        raise PrunescopeError(f"a mask cannot be unpacked ({error})") from None
    if not reader.eof:
        raise PrunescopeError("a mask unpacks to more, or to less, than its size")
    return found


def _unpacked(bits: bytes, size: int) -> Bools:
    if len(bits) != -(-size // 8):
        raise PrunescopeError(f"a mask of {size} weights lies in {len(bits)} bytes")
    return np.unpackbits(np.frombuffer(bits, dtype=np.uint8), count=size).astype(np.bool_)
