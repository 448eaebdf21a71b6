"""MIS beside the paper's four terms, task by task; and what random, planted and broken input gives."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunescope.core.errors import PrunescopeError
from prunescope.core.types import Array
from prunescope.metrics.mis import (
    alpha_for_people,
    alpha_for_spread,
    chance_alpha,
    draw_tasks,
    margins,
    score,
    task_accuracy,
)


def vectors(images: int, dimensions: int, seed: int = 0) -> Array:
    found = np.random.default_rng(seed).normal(size=(images, dimensions))
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def extremes(units: int, images: int, count: int, seed: int = 0) -> tuple[Array, Array]:
    """The most and the least activating images of units with random activations."""
    order = np.random.default_rng(seed).normal(size=(units, images)).argsort(axis=1)
    return order[:, ::-1][:, :count], order[:, :count]


def slow(up: Array, down: Array, similarity: Array, alpha: float) -> tuple[float, float]:
    """(MIS, share of right tasks) of one unit, from the table of similarities; up and down are lists of tasks."""
    chances, right = [], []
    for (query_up, *shown_up), (query_down, *shown_down) in zip(up.tolist(), down.tolist(), strict=True):
        like = {
            (query, side): sum(similarity[query, image] for image in shown) / len(shown)
            for query in (query_up, query_down)
            for side, shown in (("+", shown_up), ("-", shown_down))
        }
        first = like[query_up, "+"] - like[query_up, "-"]
        second = like[query_down, "+"] - like[query_down, "-"]
        chances.append(1 / (1 + np.exp(-alpha * (first - second))))
        right.append(first > second)
    return float(np.mean(chances)), float(np.mean(right))


@given(
    units=st.integers(1, 4), number=st.integers(1, 6), references=st.integers(1, 5), alpha=st.floats(0.1, 20),
    seed=st.integers(0, 99),
)  # fmt: skip
@settings(max_examples=30, deadline=None)
def test_equal_to_four_terms_task_by_task(units: int, number: int, references: int, alpha: float, seed: int) -> None:
    images = 2 * number * (references + 1) + 3
    embedding = vectors(images, 7, seed)
    tasks = draw_tasks(*extremes(units, images, number * (references + 1), seed), number, seed=seed)
    margin = margins(tasks, embedding)
    assert tasks.shape == (units, number, references)
    expected = [slow(u, d, embedding @ embedding.T, alpha) for u, d in zip(tasks.up, tasks.down, strict=True)]
    np.testing.assert_allclose(score(margin, alpha), [mis for mis, _ in expected], rtol=1e-9)
    np.testing.assert_allclose(task_accuracy(margin), [right for _, right in expected])


def test_any_centre_and_squared_distances_give_the_same_margins() -> None:
    embedding = vectors(100, 5)
    tasks = draw_tasks(*extremes(3, 100, 40), 8, seed=0)
    margin = margins(tasks, embedding)
    np.testing.assert_allclose(margins(tasks, embedding + 3), margin, atol=1e-12)
    uneven = np.random.default_rng(1).normal(size=(100, 5))
    squared = -((uneven[:, None] - uneven) ** 2).sum(axis=2)
    expected = [slow(u, d, squared, 0.3)[0] for u, d in zip(tasks.up, tasks.down, strict=True)]
    np.testing.assert_allclose(score(2 * margins(tasks, uneven), 0.3), expected)


def test_tasks_are_disjoint_and_take_one_image_of_every_bin_of_ranks() -> None:
    number, references = 20, 9
    top, bottom = extremes(5, 1000, number * (references + 1))
    tasks = draw_tasks(top, bottom, number, seed=4)
    for ranked, side in ((top, tasks.up), (bottom, tasks.down)):
        for unit in range(5):
            place = {image: rank for rank, image in enumerate(ranked[unit].tolist())}
            bins = [[place[image] // number for image in task] for task in side[unit].tolist()]
            assert bins == [list(range(references + 1))] * number  # the query from the most extreme one
            assert sorted(side[unit].ravel().tolist()) == sorted(place)
    again, other = draw_tasks(top, bottom, number, seed=4), draw_tasks(top, bottom, number, seed=5)
    assert (again.up == tasks.up).all()
    assert (again.down == tasks.down).all()
    assert (other.up != tasks.up).mean() > 0.9
    assert not np.array_equal(tasks.up[0].argsort(axis=0), tasks.up[1].argsort(axis=0))


def test_units_that_pick_images_at_random_score_a_half() -> None:
    embedding = vectors(3000, 8)
    margin = margins(draw_tasks(*extremes(400, 3000, 200), 20, seed=0), embedding)
    alpha = chance_alpha(embedding, tasks=20, references=9)
    error = 0.5 / np.sqrt(400 * 20)
    assert task_accuracy(margin).mean() == pytest.approx(0.5, abs=4 * error)
    assert score(margin, alpha).mean() == pytest.approx(0.5, abs=4 * error)
    assert (alpha * margin).std() == pytest.approx(2.2, rel=0.1)


def test_a_planted_unit_scores_high_until_its_images_are_shuffled() -> None:
    """Units whose activation is a direction of the embedding, and the same with the embedding's rows permuted."""
    embedding = vectors(2000, 6)
    order = np.argsort(embedding @ vectors(50, 6, 1).T, axis=0).T
    tasks = draw_tasks(order[:, ::-1][:, :200], order[:, :200], 20, seed=0)
    alpha = chance_alpha(embedding, tasks=20, references=9)
    margin = margins(tasks, embedding)
    assert task_accuracy(margin).min() > 0.95
    assert score(margin, alpha).mean() > 0.9
    shuffled = margins(tasks, np.random.default_rng(0).permutation(embedding))
    assert task_accuracy(shuffled).mean() == pytest.approx(0.5, abs=0.06)
    assert score(shuffled, alpha).mean() == pytest.approx(0.5, abs=0.06)
    turned = margins(draw_tasks(order[:, :200], order[:, ::-1][:, :200], 20, seed=0), embedding)
    assert task_accuracy(turned).min() > 0.95, "which end is called the upper one does not matter"


def test_labels_tie_exactly() -> None:
    labels = np.random.default_rng(0).integers(0, 3, 400)
    tasks = draw_tasks(*extremes(30, 400, 70), 7, seed=0)  # 9 references: a ninth has no exact float
    found = np.sign(margins(tasks, np.eye(3, dtype=np.float32)[labels]))
    up, down = labels[tasks.up], labels[tasks.down]
    lead = [
        (query[..., None] == up[..., 1:]).sum(axis=2) - (query[..., None] == down[..., 1:]).sum(axis=2)
        for query in (up[..., 0], down[..., 0])
    ]
    expected = np.sign(lead[0] - lead[1])
    assert (expected == 0).mean() > 0.2
    assert (found == expected).all()


def test_similarities_that_do_not_differ_are_a_coin_s_toss() -> None:
    margin = margins(draw_tasks(*extremes(3, 50, 20), 2, seed=0), np.full((50, 2), 0.7))
    assert task_accuracy(margin).tolist() == score(margin, 6.0).tolist() == [0.5] * 3


def test_alpha_for_spread_and_for_people() -> None:
    margin = np.random.default_rng(0).normal(0.3, 0.2, (200, 20))
    assert (alpha_for_spread(margin) * margin).std() == pytest.approx(2.2)
    for true in (0.7, 6.25, 40.0):
        people = score(margin, true)
        people[::3] = np.nan
        assert alpha_for_people(margin, people) == pytest.approx(true, rel=1e-3)
    noisy = np.random.default_rng(1).binomial(60, score(margin, 6.25)) / 60
    assert alpha_for_people(margin, noisy) == pytest.approx(6.25, rel=0.1)


def test_bad_input_is_refused() -> None:
    top, bottom = extremes(2, 60, 20)
    with pytest.raises(PrunescopeError, match=r"multiple of 3 images, .* got \(2, 20\)"):
        draw_tasks(top, bottom, 3, seed=0)
    with pytest.raises(PrunescopeError, match="at least twice as many"):
        draw_tasks(top, bottom, 20, seed=0)
    with pytest.raises(PrunescopeError, match=r"got \(2, 20\) and \(2, 10\)"):
        draw_tasks(top, bottom[:, :10], 5, seed=0)
    tasks = draw_tasks(top, bottom, 4, seed=0)
    with pytest.raises(PrunescopeError, match="30 are embedded"):
        margins(tasks, np.ones((30, 2)))
    with pytest.raises(PrunescopeError, match=r"finite vectors \(images, d\), got \(60,\)"):
        margins(tasks, np.ones(60))
    broken = np.ones((60, 2))
    broken[[7, 40], 1] = np.nan
    with pytest.raises(PrunescopeError, match="not finite for 2 of 60 images, first for the one at 7"):
        margins(tasks, broken)
    with pytest.raises(PrunescopeError, match="same margin"):
        alpha_for_spread(np.ones((2, 3)))
    with pytest.raises(PrunescopeError, match="need 400 images: 60"):
        chance_alpha(np.ones((60, 2)), tasks=20, references=9)
    with pytest.raises(PrunescopeError, match="one for each of 3 units"):
        alpha_for_people(np.ones((3, 2)), np.array([0.5, np.nan, np.nan]))
    with pytest.raises(PrunescopeError, match="0 to 1"):
        alpha_for_people(np.ones((2, 2)), np.array([0.5, 70]))


def test_labels_that_are_permuted_tell_nothing() -> None:
    """Units that answer to one class each: labels get all tasks right, and half of them once they are permuted."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 4, 2000)
    activation = (labels == np.arange(60)[:, None] % 4) + generator.normal(0, 0.1, (60, 2000))
    order = activation.argsort(axis=1)
    tasks = draw_tasks(order[:, ::-1][:, :200], order[:, :200], 20, seed=0)
    assert task_accuracy(margins(tasks, np.eye(4)[labels])).mean() > 0.95
    permuted = [
        task_accuracy(margins(tasks, np.eye(4)[generator.permutation(labels)])).mean() for _ in range(30)
    ]  # fmt: skip
    # The mean of 30 permutations; within one, units that share images go together.
    assert np.mean(permuted) == pytest.approx(0.5, abs=4 * np.std(permuted) / np.sqrt(30))
    assert np.std(permuted) < 0.05
