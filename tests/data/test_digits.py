from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from prunescope.core.errors import PrunescopeError
from prunescope.data.digits import CONCEPT_TABLE, Digits, concept_matrix
from prunescope.data.duplicates import find_duplicates


def test_every_scan_is_in_exactly_one_split_with_its_own_label() -> None:
    data, scans = Digits(size=8).load(), load_digits()
    seen = []
    for split in (data.train, data.val, data.test):
        where = np.array([int(name.removeprefix("digits-")) for name in split.ids])
        seen += where.tolist()
        np.testing.assert_array_equal(split.labels.numpy(), scans.target[where])
        np.testing.assert_allclose(split.images[:, 0].numpy() / 255 * 16, scans.images[where], atol=0.04)
    assert sorted(seen) == list(range(1797))
    assert find_duplicates(data) == []


def test_shares_are_those_asked_for_in_every_class() -> None:
    data = Digits(val=0.1, test=0.3).load()
    assert (len(data.val), len(data.test)) == (180, 539)
    counts = torch.bincount(torch.cat([data.train.labels, data.val.labels, data.test.labels]))
    for split, share in ((data.val, 0.1), (data.test, 0.3)):
        assert (torch.bincount(split.labels) - share * counts).abs().max() < 1.5


@pytest.mark.parametrize(("size", "channels"), [(16, 1), (32, 3)])
def test_enlarging_is_bilinear_as_pillow_does_it(size: int, channels: int) -> None:
    split, scans = Digits(size=size, channels=channels).load().test, load_digits()
    assert split.shape == (channels, size, size)
    assert (split.images[:] == split.images[:, :1]).all()
    for i in range(0, len(split), 50):
        scan = scans.images[int(split.ids[i].removeprefix("digits-"))].astype(np.float32) * (255 / 16)
        pillow = np.asarray(Image.fromarray(scan).resize((size, size), Image.Resampling.BILINEAR))
        np.testing.assert_allclose(split.images[i][0].numpy(), pillow, atol=0.51)


def test_seeds_change_the_split_only() -> None:
    a, b, c = Digits().load(), Digits().load(), Digits(seed=1).load()
    assert a.fingerprint == b.fingerprint != c.fingerprint


def test_concepts_are_those_of_the_class_and_tell_all_classes_apart() -> None:
    split = Digits().load().test
    assert split.concept_level == "class"
    assert split.concepts is not None
    for name, column in zip(split.concept_names, split.concepts.T, strict=True):
        assert {int(label) for label in split.labels[column == 1]} == CONCEPT_TABLE[name]
    assert len({tuple(row) for row in concept_matrix().tolist()}) == 10


@pytest.mark.parametrize(
    "options", [{"val": 0.0}, {"val": 0.5, "test": 0.5}, {"test": -0.1}, {"size": 4}, {"channels": 2}]
)
def test_impossible_options_are_refused(options: dict) -> None:
    with pytest.raises(PrunescopeError, match=next(iter(options))):
        Digits(**options)
