"""Decisions of two networks, and of populations of networks."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import confusion_matrix

from prunescope.metrics import predictions
from prunescope.metrics.families import FAMILIES


def test_agreement_and_flips_against_a_confusion_matrix() -> None:
    generator = np.random.default_rng(0)
    before, after = generator.integers(4, size=200, dtype=np.int16), generator.integers(4, size=200, dtype=np.int16)
    table = predictions.flips(before, after, classes=5)
    np.testing.assert_array_equal(table, confusion_matrix(before, after, labels=range(5)))
    assert predictions.agreement(before, after).mean() == np.trace(table) / 200


def test_the_mode_of_a_population_takes_the_first_of_equally_frequent_classes() -> None:
    runs = np.array([[0, 2, 1], [1, 2, 2], [1, 0, 1], [0, 0, 2]])
    assert predictions.modal(runs, classes=3).tolist() == [0, 0, 1]


def test_pies_against_counting_image_by_image() -> None:
    generator = np.random.default_rng(1)
    dense, pruned = generator.integers(3, size=(5, 60)), generator.integers(3, size=(7, 60))

    def mode(votes: np.ndarray) -> int:
        return max(range(3), key=lambda k: (votes.tolist().count(k), -k))

    expected = [mode(dense[:, i]) != mode(pruned[:, i]) for i in range(60)]
    assert predictions.pies(dense, pruned, classes=3).tolist() == expected
    assert 0 < sum(expected) < 60


def test_share_of_pairs_that_flip_an_image() -> None:
    before = np.array([[0, 1, 2], [0, 1, 2]])
    after = np.array([[0, 0, 1], [0, 1, 0]])
    assert predictions.flip_share(before, after).tolist() == [0, 0.5, 1]


def test_every_distance_says_what_a_reader_must_know() -> None:
    for family, distances in FAMILIES.items():
        assert len({d.name for d in distances}) == len(distances) > 0, family
        for distance in distances:
            assert distance.title
            assert distance.unit
            assert distance.range[0] < distance.range[1]


def test_differences_of_shares_have_a_sign_and_keep_gaps() -> None:
    (distance,) = FAMILIES["energy"]
    found = distance.function(np.array([0.25, 0.5, np.nan], dtype=np.float32), np.array([0.5, 0.25, 1.0]))
    np.testing.assert_array_equal(found, [0.25, -0.25, np.nan])
    assert distance.higher_is_better is None
