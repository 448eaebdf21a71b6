"""Flips by class, and the images that pruning hits most, from records."""

from __future__ import annotations

import numpy as np
import pytest

from prunescope.core.errors import PrunescopeError
from prunescope.core.types import Record
from prunescope.study.hits import flips, hits


def record(predicted: list[int], ids: str = "abcd", labels: tuple[int, ...] = (0, 1, 2, 0)) -> Record:
    arrays = {"image.predicted": np.array(predicted, dtype=np.int16), "image.label": np.array(labels)}
    return Record("performance", {}, arrays, np.array(list(ids)), {"classes": ["cat", "dog", "owl", "yak"]})


def test_flips_are_counted_by_image_id() -> None:
    table = flips(record([0, 1, 2, 0]), record([0, 3, 1, 0], ids="dcba", labels=(0, 2, 1, 0)))
    expected = np.zeros((4, 4), dtype=int)
    expected[0, 0], expected[1, 1], expected[2, 3] = 2, 1, 1
    np.testing.assert_array_equal(table, expected)


def test_hits_hold_each_ticket_against_its_own_dense_network() -> None:
    dense = [record([0, 1, 2, 0]), record([0, 1, 2, 1])]
    tickets = [record([1, 1, 2, 1]), record([1, 1, 2, 1]), record([1, 1, 0, 1]), record([0, 1, 2, 1])]
    found = hits([(dense[0], tickets[0]), (dense[0], tickets[1]), (dense[1], tickets[2]), (dense[1], tickets[3])])
    assert found.ids.tolist() == ["a", "b", "c", "d"]
    assert found.labels.tolist() == [0, 1, 2, 0]
    assert found.flipped.tolist() == [0.75, 0, 0.25, 0.5]
    assert found.between_dense.tolist() == [0, 0, 0, 1]
    assert found.pie.tolist() == [True, False, False, True]  # the last: dense modes tie, and the first class wins
    assert found.worst(2).tolist() == [0, 2]  # the last image flips between dense networks too: hard, not hit


def test_hits_of_one_dense_network_have_no_comparison() -> None:
    found = hits([(record([0, 1, 2, 0]), record([0, 0, 2, 0]))])
    assert np.isnan(found.between_dense).all()
    assert found.pie.tolist() == [False, True, False, False]
    assert found.worst(1).tolist() == [1]


def test_what_cannot_be_counted_is_refused() -> None:
    with pytest.raises(PrunescopeError, match="no tickets"):
        hits([])
    with pytest.raises(PrunescopeError, match="has no predictions"):
        flips(record([0, 1, 2, 0]), Record("gradcam", {}, {}, np.array(list("abcd"))))
    with pytest.raises(PrunescopeError, match="1 images in common"):
        flips(record([0, 1, 2, 0]), record([0, 1, 2, 0], ids="axyz"))
    with pytest.raises(PrunescopeError, match="no image ids"):
        flips(record([0, 1, 2, 0]), Record("performance"))
