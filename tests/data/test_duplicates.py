from __future__ import annotations

import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prunescope.core.errors import PrunescopeError, PrunescopeWarning
from prunescope.data.duplicates import find_duplicates, refuse_duplicates
from prunescope.data.split import Dataset, Split

Codes = list[int]


def dataset(train: Codes, val: Codes, test: Codes) -> Dataset:
    """Images of 3x5 pixels of which only the last one tells them apart."""

    def split(name: str, codes: Codes) -> Split:
        images = torch.zeros(len(codes), 1, 3, 5, dtype=torch.uint8)
        images[:, 0, 2, 4] = torch.tensor(codes, dtype=torch.uint8)
        return Split(images, torch.zeros(len(codes)), [f"{name}{i}" for i in range(len(codes))], ("a",))

    return Dataset("toy", split("train", train), split("val", val), split("test", test))


@settings(deadline=None)
@given(*[st.lists(st.integers(0, 12), max_size=6)] * 3)
def test_equal_to_comparing_every_image_with_every_other(train: Codes, val: Codes, test: Codes) -> None:
    data = dataset(train, val, test)
    expected = []
    for a, b in (("train", "val"), ("train", "test"), ("val", "test")):
        for j in range(len(data[b])):
            same = [i for i in range(len(data[a])) if torch.equal(data[a].images[i], data[b].images[j])]
            expected += [(f"{a}{same[0]}", f"{b}{j}")] if same else []
    assert find_duplicates(data) == expected


def test_more_images_than_are_hashed_at_once() -> None:
    data = dataset([0] * 300 + [7], [1] * 300, [2] * 299 + [7, 2])
    assert find_duplicates(data) == [("train300", "test299")]


def test_refused_with_the_first_names_the_number_and_the_way_on() -> None:
    data = dataset(list(range(8)), [99], list(range(7)))
    with pytest.raises(PrunescopeError) as caught:
        refuse_duplicates(data)
    message = str(caught.value)
    assert "7 images" in message
    assert "train4 = test4, ..." in message
    assert "train5" not in message
    assert "allow_duplicates: true" in message
    assert "\n" not in message


def test_allowed_duplicates_are_a_warning_and_none_are_silence() -> None:
    with pytest.warns(PrunescopeWarning, match="1 image stands in two splits, pixel for pixel: train0 = test0"):
        assert refuse_duplicates(dataset([1], [2], [1]), allow=True) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert refuse_duplicates(dataset([1, 1], [2, 2], [3, 3])) == 0
