"""What a study claims of pruning: that a measure differs from the control's, and that it changes with the rate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from prunescope.core.errors import PrunescopeError
from prunescope.core.types import Array
from prunescope.metrics.claims import (
    Evidence,
    evidence,
    judged,
    p_values,
    permutation_within,
    pooled_correlation,
    runs_needed,
    shared_spread,
)
from prunescope.metrics.mixed import Mixed, mixed_model, within_model
from prunescope.metrics.statistics import Interval, Spread
from prunescope.pruning.recipe import Recipe
from prunescope.study.results import MEASURE, Results
from prunescope.study.study import Study

#: {probe: {metric: from which change on it matters}}, and {family of drifts: (distance, margin)}: what is claimed where
#: a study says nothing of its own.
METRICS = {
    "performance": {"top1": 0.01}, "mis": {"accuracy": 0.01, "mis": 0.01}, "selectivity": {"mean": 0.01},
}  # fmt: skip
DRIFTS = {"labels": ("agreement", 0.02), "maps": ("spearman", 0.05), "features": ("cka", 0.05),
          "rankings": ("rbo", 0.05)}  # fmt: skip

CLAIM = ["claim", "measure", "role", "recipe", "round", "density", "against", "outcome", "value", "low", "high", "runs",
         "margin", "p", "p_equal", "needed"]  # fmt: skip
RELATION = ["claim", "measure", "role", "runs", "methods", "slope", "slope_p", "model", "rate", "rate_low", "rate_high",
            "rate_p", "accuracy", "accuracy_low", "accuracy_high", "accuracy_p", "pooled_r", "pooled_low",
            "pooled_high", "pooled_p", "note"]  # fmt: skip
_RUN = ["role", "recipe", "seed", "round", "target"]
_KEY = _RUN[:4]
#: What claims are made of: networks retrained, beside their control, and those just cut, beside the dense one.
_ROLES = ("ticket", "unretrained")


@dataclass(frozen=True, eq=False)
class Stated:
    """All claims of a study.

    Attributes:
        claims: one row per claim (`CLAIM`). `differs`: ticket - control at one density, means over seeds, the run as
            unit, the spread pooled over the recipe's densities; `changes with rate`: over all recipes of several
            densities, from the lowest rate to the highest, within methods. `p` and `p_equal` are corrected (Holm) for
            the number of all rows. `needed`: seeds that would decide, if mean and spread stayed, where that is known.
        relations: one row per claim of the second kind (`RELATION`): slope and permutation p within methods, the mixed
            model on rate and accuracy with method and seed as groups, and the pooled correlation beside them.
        notes: sentences about what could not be stated, and why.
    """

    claims: pd.DataFrame
    relations: pd.DataFrame
    notes: tuple[str, ...]


def margins(study: Study) -> dict[str, float]:
    """{measure: margin}: those of the study, or `METRICS` and `DRIFTS` of its probes."""
    if study.claims.margins:
        return dict(study.claims.margins)
    found: dict[str, float] = {}
    for key, probe in study.probes.items():
        found |= {f"{key}.{metric}": margin for metric, margin in METRICS.get(probe.name, {}).items()}
        claimed = set(probe.distances.values())
        for family in [name for name in DRIFTS if name in claimed]:
            array = next(item for item, of in probe.distances.items() if of == family)
            distance, margin = DRIFTS[family]
            subset = "all" if family in ("labels", "rankings") else "both_right"
            found[f"{key}/{array}/{distance}/{subset}"] = margin
    return found


@lru_cache(maxsize=1)
def stated(found: Results) -> Stated:
    """The claims of a study and what became of them; empty where no recipe is done."""
    notes: list[str] = []
    raw: dict[str, tuple[dict[str, Any], Evidence]] = {}
    relations = []
    for measure, margin in margins(found.study).items():
        runs = _values(found, measure)
        if runs.empty:
            notes.append(f"Nothing is known of {measure}, so nothing is claimed.")
            continue
        compared = list(_differences(found, runs, measure, margin))
        raw |= {row["claim"]: (row, shown) for row, shown in compared}
        if not compared and "/" in measure:
            notes.append(f"There is no dense network retrained as long to compare {measure} with.")
        for row, shown in _relations(found, runs, measure, margin):
            raw[row["claim"]] = {**dict.fromkeys(CLAIM), **{k: v for k, v in row.items() if k in CLAIM}}, shown
            relations.append(row)
    claims = pd.DataFrame(_judged(raw, found.study.claims.alpha), columns=CLAIM)
    claims = claims.astype({"round": "Int64", "needed": "Int64"})
    return Stated(claims, pd.DataFrame(relations, columns=RELATION), tuple(notes))


def _judged(raw: Mapping[str, tuple[dict[str, Any], Evidence]], alpha: float) -> Iterator[dict[str, Any]]:
    """Rows with outcomes, corrected for their number."""
    outcomes = judged({name: shown for name, (_, shown) in raw.items()}, alpha=alpha)
    for claim, (row, _) in zip(outcomes.values(), raw.values(), strict=True):
        change, ask = claim.difference, row["needed"]
        yield {
            **row, "outcome": claim.outcome, "value": change.value, "low": change.low, "high": change.high,
            "runs": change.n, "margin": claim.margin, "p": claim.p, "p_equal": claim.p_equal,
            "needed": ask(alpha / len(raw)) if ask and claim.outcome == "undecided" else None,
        }  # fmt: skip


def _values(found: Results, measure: str) -> pd.DataFrame:
    """`value` of the measure of every network, with where it stands and its accuracy."""
    if found.runs.empty:
        return pd.DataFrame(columns=[*_RUN, "value", "accuracy"])
    accuracy = f"{next(key for key, probe in found.study.probes.items() if probe.name == 'performance')}.top1"
    runs = found.runs[_RUN].assign(accuracy=found.runs.get(accuracy, np.nan))
    if "/" not in measure:
        runs["value"] = found.runs.get(measure, np.nan)
        return runs[runs["value"].notna()]
    chosen = found.drift
    for column, value in zip(MEASURE, measure.split("/"), strict=True):
        chosen = chosen[chosen[column] == value]
    return runs.merge(chosen[[*_KEY, "value"]].dropna(), on=_KEY)


def _differences(
    found: Results, runs: pd.DataFrame, measure: str, margin: float
) -> Iterator[tuple[dict[str, Any], Evidence]]:
    """Networks less their control of the same seed, at every density of every recipe."""
    for role in _ROLES:
        for recipe in found.study.recipes:
            mine = runs[(runs["role"] == role) & (runs["recipe"] == recipe.name)]
            if recipe.schedule.density == 1 or mine.empty:
                continue
            places = []
            for (place, density), group in mine.groupby(["round", "target"]):
                base, against = _control(found.study, runs, recipe, role, int(place))  # type: ignore[call-overload]
                own = group.set_index("seed")["value"]
                if base is not None:
                    places.append((place, density, against, (own - base.reindex(own.index)).to_numpy()))
            spread = shared_spread([item[3] for item in places])
            for place, density, against, values in places:
                yield (
                    {**dict.fromkeys(CLAIM), "claim": f"{measure} differs: {recipe.name}, {role}, round {place}",
                     "measure": measure, "role": role, "recipe": recipe.name, "round": place, "density": density,
                     "against": against, "needed": _needed(values, spread, margin)},
                    evidence(values, margin, spread),
                )  # fmt: skip


def _needed(values: Array, spread: Spread, margin: float) -> Any:
    """How many runs would decide, at a level that is known when all claims are."""
    known = values[np.isfinite(values)]
    mean = float(known.mean()) if len(known) else float("nan")
    return lambda alpha: runs_needed(mean, spread.sd, margin, alpha=alpha)


def _control(
    study: Study, runs: pd.DataFrame, recipe: Recipe, role: str, place: int
) -> tuple[pd.Series[float] | None, str]:
    """({seed: value} of what networks are compared with, what it is), None where there is nothing."""
    if role == "ticket" and study.claims.against == "control":
        own = runs[(runs["role"] == "dense-control") & (runs["recipe"] == recipe.name) & (runs["round"] == place)]
        if len(own):
            return own.set_index("seed")["value"], "dense, retrained"
        for other in study.recipes:
            plain = runs[(runs["role"] == "ticket") & (runs["recipe"] == other.name)]
            if len(plain) and _trains_as_long(study, other, recipe, place):
                return plain.set_index("seed")["value"], f"dense, retrained ({other.name})"
    dense = runs[runs["role"] == "dense"]
    return (dense.set_index("seed")["value"], "dense") if len(dense) else (None, "")


def _trains_as_long(study: Study, control: Recipe, recipe: Recipe, place: int) -> bool:
    """Whether a recipe that cuts nothing is the control of a round: trained once, in the same way."""
    once = recipe.schedule.independent or place == 1 or recipe.rewind.to in ("init", "late")
    return (
        control.schedule.density == 1 and once and control.rewind == recipe.rewind
        and control.distill == recipe.distill
        and control.retraining(study.training, 1) == recipe.retraining(study.training, place)
    )  # fmt: skip


def _relations(
    found: Results, runs: pd.DataFrame, measure: str, margin: float
) -> Iterator[tuple[dict[str, Any], Evidence]]:
    """The measure on the rate, over all recipes that have several densities."""
    cut = [recipe.name for recipe in found.study.recipes if recipe.schedule.density < 1]
    for role in _ROLES:
        mine = runs[(runs["role"] == role) & runs["recipe"].isin(cut)]
        several = mine.groupby("recipe")["target"].transform("nunique") > 1
        if several.any():
            row, shown = relation(mine[several], margin, accuracy=not measure.endswith(".top1"))
            yield {"claim": f"{measure} changes with rate: {role}", "measure": measure, "role": role, **row}, shown


def relation(runs: pd.DataFrame, margin: float, *, accuracy: bool = True) -> tuple[dict[str, Any], Evidence]:
    """(numbers as in `RELATION`, the evidence that `value` changes from the lowest rate to the highest).

    p is that of the permutation test within methods; equivalence is tested by the within estimator.

    Args:
        runs: columns recipe, seed, target (share kept), value, accuracy; one row per network.
        accuracy: whether the mixed model has accuracy beside the rate.
    """
    rate, value = 1 - runs["target"].to_numpy(float), runs["value"].to_numpy(float)
    methods, groups = runs["recipe"].astype(str).tolist(), _groups(runs)
    inner = within_model(value, {"rate": rate}, groups).effects["rate"]
    p = permutation_within(rate, value, methods)[1]
    span = float(np.ptp(rate))
    size = Interval(inner.value * span, inner.low * span, inner.high * span, len(runs))
    shown = Evidence(size, margin, p, p_values(size.value, inner.error * span, inner.dof, margin)[1])
    r, r_p = pooled_correlation(rate, value)
    predictors = {"rate": rate} | ({"accuracy": runs["accuracy"].to_numpy(float)} if accuracy else {})
    model, note = _mixed(value, predictors, groups)
    row = {
        "runs": len(runs), "methods": runs["recipe"].nunique(), "slope": inner.value, "slope_p": p,
        "model": "" if model is None else model.how, "note": note,
        "pooled_r": r.value, "pooled_low": r.low, "pooled_high": r.high, "pooled_p": r_p,
    }  # fmt: skip
    for name, effect in ({} if model is None else model.effects).items():
        row |= {name: effect.value, f"{name}_low": effect.low, f"{name}_high": effect.high, f"{name}_p": effect.p}
    return row, shown


def _groups(runs: pd.DataFrame) -> Mapping[str, list[Any]]:
    return {"method": runs["recipe"].tolist(), "seed": runs["seed"].tolist()}


def _mixed(value: Array, predictors: Mapping[str, Array], groups: Mapping[str, list[Any]]) -> tuple[Mixed | None, str]:
    """(the model, why it is not what was asked for), None where statsmodels is not installed."""
    try:
        found = mixed_model(value, predictors, groups)
    except PrunescopeError as error:
        return None, str(error)
    return found, found.why
