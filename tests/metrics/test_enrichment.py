"""The hypergeometric curve beside Fisher's exact test, and where nothing can be told."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from prunescope.core.errors import PrunescopeError
from prunescope.metrics.enrichment import enrichment


@given(st.lists(st.booleans(), min_size=1, max_size=25))
def test_every_point_is_fishers_exact_test(kinds: list[bool]) -> None:
    found = enrichment(np.array(kinds))
    n, total = len(kinds), sum(kinds)
    assert found.drawn.tolist() == list(range(1, n + 1))
    for place, drawn in enumerate(range(1, n + 1)):
        hits = sum(kinds[:drawn])
        table = np.array([[hits, drawn - hits], [total - hits, n - drawn - total + hits]])
        assert found.hits[place] == hits
        assert found.p[place] == pytest.approx(stats.fisher_exact(table, alternative="greater").pvalue)
        assert found.expected[place] == pytest.approx(
            sum(k * stats.hypergeom.pmf(k, n, total, drawn) for k in range(total + 1))
        )
        if (table > 0).all():
            assert found.odds[place] == pytest.approx(table[0, 0] * table[1, 1] / (table[0, 1] * table[1, 0]))
    for array in (found.expected, found.odds, found.p):
        assert np.isfinite(array).all()
    assert ((found.p > 0) & (found.p <= 1)).all()
    assert (found.expected[-1], found.odds[-1], found.p[-1]) == (total, 1, 1)


def test_the_published_count_means_little_without_its_base_rate() -> None:
    """17 of the first 20 of 96 filters: a finding if 40 are colour-selective, none if 85 are."""
    p = []
    for total in (40, 85):
        kinds = np.repeat([True, False, True, False], [17, 3, total - 17, 76 - total + 17])
        found = enrichment(kinds)
        expected = sum(comb(total, k) * comb(96 - total, 20 - k) for k in range(17, 21)) / comb(96, 20)
        assert found.p[19] == pytest.approx(expected)
        assert found.expected[19] == pytest.approx(20 * total / 96)
        p.append(found.p[19])
    assert p[0] < 1e-4
    assert p[1] > 0.5


@pytest.mark.parametrize("every", [True, False])
def test_where_all_are_alike_nothing_can_be_told(every: bool) -> None:
    found = enrichment(np.full(7, every))
    assert found.p.tolist() == found.odds.tolist() == [1] * 7
    np.testing.assert_array_equal(found.expected, found.hits)


def test_an_empty_cell_counts_for_half() -> None:
    found = enrichment(np.array([True, True, False, False, False]))
    assert found.odds[1] == pytest.approx(2.5 * 3.5 / (0.5 * 0.5))
    assert enrichment(np.zeros(0, dtype=bool)).p.shape == (0,)


def test_p_is_as_rare_as_it_says() -> None:
    generator = np.random.default_rng(0)
    kinds = np.arange(60) < 24
    p = np.array([enrichment(generator.permutation(kinds)).p[19] for _ in range(400)])
    assert 0.005 < (p <= 0.05).mean() <= 0.08  # 5 %, three sigma; less, as counts are whole


def test_what_is_no_list_of_yes_and_no_is_refused() -> None:
    with pytest.raises(PrunescopeError, match="one boolean per unit, got int64"):
        enrichment(np.array([1, 0]))
