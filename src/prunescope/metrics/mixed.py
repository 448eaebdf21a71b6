"""A metric on rate and accuracy with methods and seeds as groups: the linear mixed model of a study's runs.

Runs of one method share what is peculiar to it, and runs of one seed their dense network. A line through all runs takes
differences between methods for an effect of the rate; here every group has its own intercept, drawn from a normal
distribution (random effects, by REML), or, where that cannot be fitted, one of its own (fixed effects).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

from prunescope.core.errors import PrunescopeError, missing_extra
from prunescope.core.types import Array

_NOTHING = float("nan")
#: Share of all variance below which that of a group's intercepts lies on its bound.
_BOUND = 1e-4


@dataclass(frozen=True)
class Effect:
    """Change of the metric for one more of a predictor, with Student's interval and the p that there is none."""

    value: float
    low: float
    high: float
    p: float
    dof: int

    @property
    def error(self) -> float:
        """Standard error."""
        return (self.high - self.low) / (2 * float(stats.t.ppf(0.975, self.dof))) if self.dof > 0 else _NOTHING


@dataclass(frozen=True)
class Mixed:
    """A fitted model.

    Attributes:
        effects: {predictor: its effect, the others held}; NaN where the runs do not tell.
        how: `random` or `fixed` intercepts of groups, or `none`: nothing could be fitted.
        why: in a sentence, when `how` is not `random`; "" else.
        spread: {group: standard deviation of its intercepts}, of random ones only.
        residual: standard deviation of the rest.
        runs: that were used.
    """

    effects: Mapping[str, Effect]
    how: Literal["random", "fixed", "none"]
    why: str
    spread: Mapping[str, float]
    residual: float
    runs: int


def mixed_model(y: Array, predictors: Mapping[str, Array], groups: Mapping[str, Sequence[object]]) -> Mixed:
    """`y = a + b1 x1 + b2 x2 ... + (1 | group 1) + (1 | group 2) ...`, groups crossed; one row per run.

    Intervals and p are Student's with as many degrees of freedom as fixed intercepts would leave (runs - intercepts -
    predictors): for few groups the normal distribution, which statsmodels takes, is too sure. A group of one level is
    left out. Where the optimiser does not converge, or a variance lies on its bound of 0, as it often does with few
    runs, the same model with fixed intercepts is fitted (the within estimator), and `how` and `why` say so.

    Args:
        y: (runs,). Runs without a value in it or in a predictor are left out.
        predictors: {name: (runs,)}, such as rate and accuracy.
        groups: {name: level of each run}, such as method and seed.

    Raises:
        PrunescopeError: other lengths, no predictor, or statsmodels is not installed.
    """
    fitter = _fitter()
    data = _Data.of(y, predictors, groups)
    if data.why:
        return data.nothing()
    found, why = _random(data, fitter) if data.levels else (None, "No group has several levels.")
    return found or data.fixed(why)


def within_model(y: Array, predictors: Mapping[str, Array], groups: Mapping[str, Sequence[object]]) -> Mixed:
    """The same with fixed intercepts of groups from the start (the within estimator); needs no statsmodels.

    >>> rate = np.array([0.2, 0.8, 0.2, 0.8])
    >>> mis = np.array([0.6, 0.7, 0.4, 0.5])
    >>> round(within_model(mis, {"rate": rate}, {"method": ["a", "a", "b", "b"]}).effects["rate"].value, 3)
    0.167

    Raises:
        PrunescopeError: other lengths, or no predictor.
    """
    data = _Data.of(y, predictors, groups)
    return data.nothing() if data.why else data.fixed("Asked for.")


def _fitter() -> type:
    try:
        from statsmodels.regression import mixed_linear_model
    except ImportError:
        raise missing_extra("statsmodels", "stats", "a mixed model") from None
    fitter: type = mixed_linear_model.MixedLM
    return fitter


@dataclass(frozen=True, eq=False)
class _Data:
    """Runs in units of their own spread: numbers near 1 are easier to fit.

    Attributes:
        y: (n,), mean 0 and deviation 1.   x: (n, k), each column alike.   scale: (k,), from effects here to real ones.
        levels: {group: indicators (n, levels)}.
        dof: left by fixed intercepts.
        why: nothing can be fitted; "" else.
    """

    names: tuple[str, ...]
    y: Array
    x: Array
    scale: Array
    size: float
    levels: Mapping[str, Array]
    dof: int
    why: str

    @staticmethod
    def of(y: Array, predictors: Mapping[str, Array], groups: Mapping[str, Sequence[object]]) -> _Data:
        columns = [np.asarray(item, dtype=np.float64) for item in (y, *predictors.values())]
        lengths = {item.shape for item in columns} | {(len(item),) for item in groups.values()}
        if len(lengths) > 1 or columns[0].ndim != 1 or not predictors:
            raise PrunescopeError(f"a mixed model needs a predictor, and all of it (runs,): got {sorted(lengths)}")
        table = np.stack(columns, axis=1)
        known = np.isfinite(table).all(axis=1)
        table = table[known]
        coded = {name: np.asarray([str(item) for item in of])[known] for name, of in groups.items()}
        levels = {name: _indicators(of) for name, of in coded.items() if len(np.unique(of)) > 1}
        table = table - (table.mean(axis=0) if len(table) else 0)
        deviations = table.std(axis=0) if len(table) else np.zeros(table.shape[1])
        safe = np.where(deviations > 0, deviations, 1.0)
        made = table / safe
        inner = _without(_intercepts(levels, len(table)), made)
        dof = len(table) - int(np.linalg.matrix_rank(_intercepts(levels, len(table)))) - len(predictors)
        why = _impossible(inner, deviations, tuple(predictors), dof)
        return _Data(tuple(predictors), made[:, 0], made[:, 1:], safe[0] / safe[1:], float(safe[0]), levels, dof, why)

    def nothing(self) -> Mixed:
        lost = Effect(_NOTHING, _NOTHING, _NOTHING, _NOTHING, max(self.dof, 0))
        return Mixed(dict.fromkeys(self.names, lost), "none", self.why, {}, _NOTHING, len(self.y))

    def fixed(self, why: str) -> Mixed:
        """By Frisch and Waugh: least squares of what the groups' intercepts leave."""
        inner = _without(_intercepts(self.levels, len(self.y)), np.column_stack([self.y, self.x]))
        inverse = np.linalg.inv(inner[:, 1:].T @ inner[:, 1:])
        slopes = inverse @ inner[:, 1:].T @ inner[:, 0]
        variance = float(((inner[:, 0] - inner[:, 1:] @ slopes) ** 2).sum()) / self.dof
        effects = self.effects(slopes, np.sqrt(variance * np.diag(inverse)))
        return Mixed(effects, "fixed", why, {}, float(np.sqrt(variance)) * self.size, len(self.y))

    def effects(self, slopes: Array, errors: Array) -> dict[str, Effect]:
        found, reach = {}, float(stats.t.ppf(0.975, self.dof))
        for name, slope, error in zip(self.names, slopes * self.scale, errors * self.scale, strict=True):
            p = float(2 * stats.t.sf(abs(slope) / error, self.dof)) if error > 0 else float(slope == 0)
            low, high = float(slope - reach * error), float(slope + reach * error)
            found[name] = Effect(float(slope), low, high, p, self.dof)
        return found


def _impossible(inner: Array, deviations: Array, names: tuple[str, ...], dof: int) -> str:
    """Why no slope can be told, in a sentence; "" when all can."""
    if dof < 1:
        return "Fewer runs than the model has numbers."
    if not deviations[0] > 0:
        return "The metric is the same in all runs."
    if np.linalg.matrix_rank(inner[:, 1:], tol=1e-6 * np.sqrt(len(inner))) < len(names):
        return f"Within groups {' and '.join(names)} {'do' if len(names) > 1 else 'does'} not vary" + (
            " apart from each other." if len(names) > 1 else "."
        )
    return ""


def _random(data: _Data, fitter: type) -> tuple[Mixed | None, str]:
    """(the fit, "") or (None, why not)."""
    from statsmodels.regression.mixed_linear_model import VCSpec

    names, made = list(data.levels), list(data.levels.values())
    columns = [[[str(i) for i in range(item.shape[1])]] for item in made]
    parts = VCSpec(names, columns, [[item] for item in made])
    exog = np.column_stack([np.ones(len(data.y)), data.x])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            found = fitter(data.y, exog, groups=np.ones(len(data.y)), exog_vc=parts).fit(reml=True)
            slopes, errors = found.fe_params[1:], found.bse_fe[1:]
        except (np.linalg.LinAlgError, ValueError, FloatingPointError) as error:
            return None, f"Random intercepts could not be fitted ({error})."
    # Warnings of retries, and of a variance below 0.01 (1 % of all here), are about fits that may be sound.
    troubled = any("positive definite" in str(item.message) for item in caught)
    sound = found.converged and np.isfinite([*slopes, *errors]).all() and (errors > 0).all()
    if troubled or not sound or (found.vcomp < _BOUND).any():
        return None, "Random intercepts could not be fitted: too few runs, or groups that do not differ."
    spread = {name: float(np.sqrt(v)) * data.size for name, v in zip(names, found.vcomp, strict=True)}
    residual = float(np.sqrt(found.scale)) * data.size
    return Mixed(data.effects(slopes, errors), "random", "", spread, residual, len(data.y)), ""


def _indicators(codes: Array) -> Array:
    found: Array = (codes[:, None] == np.unique(codes)[None]).astype(np.float64)
    return found


def _intercepts(levels: Mapping[str, Array], runs: int) -> Array:
    return np.column_stack([np.ones(runs), *levels.values()])


def _without(intercepts: Array, table: Array) -> Array:
    """What least squares on the intercepts leaves."""
    if not len(table):
        return table
    found: Array = table - intercepts @ np.linalg.lstsq(intercepts, table, rcond=None)[0]
    return found
