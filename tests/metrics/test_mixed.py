"""The mixed model beside statsmodels called plainly, closed forms of balanced designs, and simulated runs."""

from __future__ import annotations

import sys
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from scipy import stats

from prunescope.core.errors import PrunescopeError
from prunescope.metrics.claims import permutation_within, pooled_correlation
from prunescope.metrics.mixed import Mixed, mixed_model, within_model

Array = np.ndarray[Any, np.dtype[Any]]
RATES = np.array([0.2, 0.4, 0.6, 0.8])


def crossed(seed: int, *, methods: int = 4, seeds: int = 6, noise: float = 0.02, slope: float = 0.1) -> pd.DataFrame:
    """Runs of every method, seed and rate, with intercepts of methods and seeds and an effect of accuracy of 0.3."""
    g = np.random.default_rng(seed)
    table = pd.DataFrame([(m, s, r) for m in range(methods) for s in range(seeds) for r in RATES], columns=list("msr"))
    table["accuracy"] = 0.5 - 0.2 * table["r"] + g.normal(0, 0.05, len(table))
    shift = g.normal(0, 0.05, methods)[table["m"]] + g.normal(0, 0.03, seeds)[table["s"]]
    table["y"] = slope * table["r"] + 0.3 * table["accuracy"] + shift + g.normal(0, noise, len(table))
    return table


def fitted(table: pd.DataFrame, model: Any = mixed_model) -> Mixed:
    predictors = {"rate": table["r"].to_numpy(), "accuracy": table["accuracy"].to_numpy()}
    found: Mixed = model(table["y"].to_numpy(), predictors, {"method": list(table["m"]), "seed": list(table["s"])})
    return found


def test_it_equals_statsmodels_called_plainly() -> None:
    table = crossed(1).assign(one=1)
    parts = {"method": "0 + C(m)", "seed": "0 + C(s)"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it takes every variance below 0.01 for one on its bound
        plain = smf.mixedlm("y ~ r + accuracy", table, groups="one", vc_formula=parts, re_formula="0").fit()
    found = fitted(table)
    assert (found.how, found.why, found.runs) == ("random", "", 96)
    for name, column in (("rate", "r"), ("accuracy", "accuracy")):
        effect = found.effects[name]
        assert effect.value == pytest.approx(plain.fe_params[column], rel=1e-3)
        assert effect.error == pytest.approx(plain.bse_fe[column], rel=1e-3)
        # 96 runs less 1 + 3 + 5 intercepts and 2 slopes
        assert effect.p == pytest.approx(2 * stats.t.sf(abs(plain.fe_params[column] / plain.bse_fe[column]), 85), 0.05)
    assert found.spread["method"] == pytest.approx(np.sqrt(plain.vcomp[0]), rel=1e-2)
    assert found.spread["seed"] == pytest.approx(np.sqrt(plain.vcomp[1]), rel=1e-2)
    assert found.residual == pytest.approx(np.sqrt(plain.scale), rel=1e-3)


def test_a_balanced_random_intercept_has_the_closed_form() -> None:
    """Every method at the same rates: the slope is that within methods, and variances are those of the analysis of
    variance."""
    g, k, n = np.random.default_rng(3), 6, 4
    y = (0.2 * RATES + g.normal(0, 0.1, (k, 1)) + g.normal(0, 0.02, (k, n))).ravel()
    rate, method = np.tile(RATES, k), np.repeat(range(k), n)
    found = mixed_model(y, {"rate": rate}, {"method": method.tolist()})
    inner = rate - rate.mean()
    slope = inner @ y / (inner @ inner)
    rest = (y - slope * inner).reshape(k, n)
    residual = ((rest - rest.mean(1, keepdims=True)) ** 2).sum() / (k * (n - 1) - 1)
    between = n * rest.mean(1).var(ddof=1)
    effect = found.effects["rate"]
    assert found.how == "random"
    assert effect.value == pytest.approx(slope, rel=1e-6)
    assert effect.dof == k * (n - 1) - 1
    assert effect.error == pytest.approx(np.sqrt(residual / (inner @ inner)), rel=1e-4)
    assert found.residual == pytest.approx(np.sqrt(residual), rel=1e-4)
    assert found.spread["method"] == pytest.approx(np.sqrt((between - residual) / n), rel=1e-3)


def test_fixed_intercepts_equal_dummies() -> None:
    table = crossed(2)
    plain = smf.ols("y ~ r + accuracy + C(m) + C(s)", table).fit()
    found = fitted(table, within_model)
    assert found.how == "fixed"
    for name, column in (("rate", "r"), ("accuracy", "accuracy")):
        effect = found.effects[name]
        assert effect.value == pytest.approx(plain.params[column])
        assert (effect.low, effect.high) == pytest.approx(tuple(plain.conf_int().loc[column]))
        assert effect.p == pytest.approx(plain.pvalues[column])
    assert found.residual == pytest.approx(np.sqrt(plain.scale))


def test_a_slope_that_pooling_hides_is_found_within_methods() -> None:
    """Every method rises with the rate, and those that were run at higher rates lie lower: pooled there is nothing."""
    g = np.random.default_rng(0)
    rate = np.concatenate([start + np.linspace(0, 0.3, 7) for start in (0.1, 0.3, 0.5)])
    method = np.repeat(["a", "b", "c"], 7)
    y = 0.1 * rate - np.repeat([0.0, 0.02, 0.04], 7) * 1.26 + g.normal(0, 0.003, 21)
    r, p = pooled_correlation(rate, y)
    assert abs(r.value) < 0.2
    assert p > 0.4
    found = mixed_model(y, {"rate": rate}, {"method": method.tolist()})
    slope, chance = permutation_within(rate, y, method.tolist())
    for value, unlikely in ((found.effects["rate"].value, found.effects["rate"].p), (slope, chance)):
        assert value == pytest.approx(0.1, abs=0.02)
        assert unlikely < 1e-3


def test_effects_are_found_and_intervals_cover_as_promised() -> None:
    """200 simulated studies of 3 methods and 2 seeds: as few runs as are common."""
    cover, null, how = 0, 0, set()
    for seed in range(200):
        found = fitted(crossed(seed, methods=3, seeds=2, slope=0.0))
        how.add(found.how)
        rate, accuracy = found.effects["rate"], found.effects["accuracy"]
        cover += accuracy.low <= 0.3 <= accuracy.high
        null += rate.p < 0.05
    assert how == {"random", "fixed"}  # two seeds often seem not to differ
    assert 180 <= cover <= 198  # 190 of 200 expected; outside once in 500
    assert null <= 20


def test_too_few_runs_fall_back_and_say_so() -> None:
    table = crossed(5, methods=3, seeds=2)
    table["y"] = 0.1 * table["r"] + np.random.default_rng(0).normal(0, 0.02, len(table))  # groups do not differ
    found, fixed = fitted(table), fitted(table, within_model)
    assert found.how == "fixed"
    assert "could not be fitted" in found.why
    assert found.effects == fixed.effects
    single = mixed_model(table["y"].to_numpy(), {"rate": table["r"].to_numpy()}, {"method": ["one"] * len(table)})
    assert (single.how, single.why) == ("fixed", "No group has several levels.")
    plain = stats.linregress(table["r"], table["y"])
    assert single.effects["rate"].value == pytest.approx(plain.slope)
    assert single.effects["rate"].p == pytest.approx(plain.pvalue)


@pytest.mark.parametrize("model", [mixed_model, within_model])
@pytest.mark.parametrize(
    ("y", "predictors", "why"),
    [
        ([0.1, 0.2, 0.4], {"rate": [0.1, 0.2, 0.3]}, "Fewer runs"),
        ([0.5] * 6, {"rate": [0.1, 0.2, 0.3] * 2}, "The metric is the same"),
        ([0.1, 0.3, 0.2, 0.5, 0.6, 0.4], {"rate": [0.1] * 3 + [0.2] * 3}, "Within groups rate does not vary."),
        (
            [0.1, 0.3, 0.2, 0.5, 0.6, 0.4], {"rate": [0.1, 0.2, 0.3] * 2, "accuracy": [0.9, 0.8, 0.7] * 2},
            "rate and accuracy do not vary apart",
        ),
    ],
)  # fmt: skip
def test_what_runs_cannot_tell_is_not_told(
    model: Any, y: list[float], predictors: dict[str, list[float]], why: str
) -> None:
    groups = {"method": ["a", "a", "b"] if len(y) == 3 else ["a"] * 3 + ["b"] * 3}
    found = model(np.array(y), {name: np.array(item) for name, item in predictors.items()}, groups)
    assert found.how == "none"
    assert why in found.why
    assert all(np.isnan(effect.value) and np.isnan(effect.p) for effect in found.effects.values())


def test_runs_without_a_value_are_left_out_and_scale_does_not_matter() -> None:
    table = crossed(7)
    whole = fitted(table)
    hole = table.copy()
    hole.loc[3, "y"] = np.nan
    assert fitted(hole).runs == 95
    dropped = fitted(table.drop(index=3))
    assert fitted(hole).effects["rate"].value == pytest.approx(dropped.effects["rate"].value)
    large = fitted(table.assign(y=1e6 * table["y"] + 3, r=table["r"] / 1000))
    assert large.effects["rate"].value == pytest.approx(1e9 * whole.effects["rate"].value, rel=1e-3)


def test_bad_input_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PrunescopeError, match=r"all of it \(runs,\)"):
        mixed_model(np.zeros(3), {"rate": np.zeros(4)}, {})
    with pytest.raises(PrunescopeError, match="needs a predictor"):
        within_model(np.zeros(3), {}, {"method": ["a"] * 3})
    monkeypatch.setitem(sys.modules, "statsmodels.regression.mixed_linear_model", None)
    monkeypatch.setitem(sys.modules, "statsmodels.regression", None)
    with pytest.raises(PrunescopeError, match=r"a mixed model needs .*prunescope\[stats\]"):
        mixed_model(np.zeros(3), {"rate": np.zeros(3)}, {})
