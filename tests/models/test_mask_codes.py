from __future__ import annotations

import zlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunescope.core.errors import PrunescopeError
from prunescope.models.mask_codes import CodedMask, binary_entropy, decode_mask, encode_mask


def random_mask(size: int, density: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(size) < density


def rice_by_hand(coded: CodedMask, size: int, count: int) -> list[bool]:
    """Rice's code read bit by bit: a gap is its quotient in unary (zeros, then a one), and its remainder."""
    bits = np.unpackbits(np.frombuffer(coded.data, dtype=np.uint8)).tolist()
    rest = bits[8 * (len(coded.data) - -(-count * coded.shift // 8)) :]
    mask, at, place = [False] * size, 0, -1
    for i in range(count):
        quotient = bits[at:].index(1)
        at += quotient + 1
        low = sum(bit << k for k, bit in enumerate(rest[i * coded.shift : (i + 1) * coded.shift]))
        place += (quotient << coded.shift) + low + 1
        mask[place] = True
    return mask


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 40)), max_size=30))
def test_round_trip(runs: list[tuple[bool, int]]) -> None:
    mask = np.array([value for value, length in runs for _ in range(length)], dtype=bool)
    coded = encode_mask(mask)
    assert (decode_mask(coded, mask.size, int(mask.sum())) == mask).all()
    assert len(coded.data) <= -(-mask.size // 8)
    assert encode_mask(mask) == coded


@pytest.mark.parametrize("density", [0.01, 0.1, 0.3, 0.8, 0.97])
def test_gaps_are_what_a_reader_bit_by_bit_finds(density: float) -> None:
    mask = random_mask(700, density)
    coded = encode_mask(mask)
    few = mask if coded.code == "kept gaps" else ~mask
    assert coded.code.endswith("gaps")
    assert rice_by_hand(coded, mask.size, int(few.sum())) == few.tolist()


@pytest.mark.parametrize("density", [0.001, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9, 0.99])
def test_random_masks_come_within_three_per_cent_of_their_entropy(density: float) -> None:
    mask = random_mask(400_000, density)
    bound = mask.size * binary_entropy(mask.mean()) / 8
    assert bound * 0.999 <= len(encode_mask(mask).data) <= bound * 1.03 + 2


def test_structured_masks_are_shorter_than_random_ones() -> None:
    filters = np.repeat(random_mask(256, 0.3), 576)
    two_of_four = np.tile([True, False, False, True], 50_000)
    for mask in (filters, two_of_four):
        assert encode_mask(mask).code == "deflate"
        assert len(encode_mask(mask).data) < 0.02 * mask.size * binary_entropy(mask.mean()) / 8


@pytest.mark.parametrize("value", [True, False])
def test_full_and_empty_masks_cost_nothing(value: bool) -> None:
    assert encode_mask(np.full(1000, value)).data == b""


def test_entropy() -> None:
    assert binary_entropy(0.5) == 1.0
    assert binary_entropy(0.0) == binary_entropy(1.0) == 0.0
    assert binary_entropy(0.11) == pytest.approx(0.4999, abs=1e-4)  # a textbook's value


SPARSE = random_mask(1000, 0.05)
CODED = encode_mask(SPARSE)


@pytest.mark.parametrize(
    ("coded", "size", "kept", "message"),
    [
        (CODED, 1000, 1001, "cannot keep 1001"),
        (CODED, 1000, -1, "cannot keep -1"),
        (replace(CODED, code="bit"), 1000, 5, "unknown code of a mask 'bit'; known: bits, kept gaps"),
        (replace(CODED, data=CODED.data[:3]), 1000, int(SPARSE.sum()), "cut short"),
        (replace(CODED, shift=63), 1000, int(SPARSE.sum()), "cut short"),
        (CODED, 100, int(SPARSE.sum()), "outside its 100 weights"),
        (CODED, 1000, int(SPARSE.sum()) - 1, "gaps instead of"),
        (CodedMask("bits", 0, b"\xff"), 9, 8, "9 weights lies in 1 bytes"),
        (CodedMask("bits", 0, b"\xf0"), 8, 3, "keeps 3 weights, and keeps 4"),
        (CodedMask("deflate", 0, b"nonsense"), 8, 3, "cannot be unpacked"),
        (CodedMask("deflate", 0, zlib.compress(bytes(10**7))), 800, 0, "more, or to less"),
        (CodedMask("deflate", 0, zlib.compress(bytes(10))[:-2]), 80, 0, "more, or to less"),
    ],
)
def test_damaged_masks_are_refused(coded: CodedMask, size: int, kept: int, message: str) -> None:
    with pytest.raises(PrunescopeError, match=message):
        decode_mask(coded, size, kept)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=40), st.integers(0, 62), st.integers(0, 300), st.integers(0, 300), st.data())
def test_whatever_the_bytes_a_mask_comes_out_or_an_error(
    data: bytes, shift: int, size: int, kept: int, choice: st.DataObject
) -> None:
    code = choice.draw(st.sampled_from(["bits", "kept gaps", "cut gaps", "deflate"]))
    try:
        found = decode_mask(CodedMask(code, shift, data), size, kept)
    except PrunescopeError:
        return
    assert found.shape == (size,)
    assert int(found.sum()) == kept
