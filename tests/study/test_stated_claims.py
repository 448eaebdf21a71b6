"""Claims of a study: planted truths come out, each number is the one that SciPy gives, and too few runs stay open."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from claimed import MAPS, results_of, study
from prunescope.core.errors import PrunescopeError
from prunescope.metrics.claims import permutation_within, runs_needed
from prunescope.metrics.paired import holm
from prunescope.study.claims import CLAIM, RELATION, margins, stated
from prunescope.study.config import read_study
from prunescope.study.folder import differences
from prunescope.study.plan import make_plan
from prunescope.study.results import Results


def claim(found: Results, name: str) -> pd.Series[Any]:
    rows = stated(found).claims
    return rows[rows["claim"] == name].iloc[0]


def test_planted_truths_come_out(tmp_path: Path) -> None:
    found = results_of(tmp_path)
    for number in (1, 2, 3):
        lost = claim(found, f"performance.top1 differs: <filters>, ticket, round {number}")
        kept = claim(found, f"performance.top1 differs: weights, ticket, round {number}")
        assert (lost["outcome"], kept["outcome"]) == ("supported", "not supported")
        assert lost["value"] == pytest.approx(-0.1, abs=0.003)
        assert lost["against"] == kept["against"] == "dense, retrained (nothing)"
        cut = claim(found, f"performance.top1 differs: <filters>, unretrained, round {number}")
        assert (cut["against"], cut["outcome"]) == ("dense", "supported")
    changes = claim(found, "mis.mis changes with rate: ticket")
    assert changes["outcome"] == "supported"
    assert changes["value"] == pytest.approx(-0.05, abs=0.003)
    assert claim(found, "performance.top1 changes with rate: ticket")["outcome"] == "not supported"
    maps = [f"{MAPS} differs: {name}, ticket, round 2" for name in ("weights", "<filters>")]
    assert {claim(found, name)["outcome"] for name in maps} == {"not supported"}
    moved = results_of(tmp_path, drift=0.2)
    assert {claim(moved, name)["outcome"] for name in maps} == {"supported"}


def test_numbers_are_those_of_the_runs(tmp_path: Path) -> None:
    found = results_of(tmp_path, noise=0.02)
    runs = found.runs.set_index(["role", "recipe", "round", "seed"])["performance.top1"].sort_index()
    control = runs["ticket", "nothing", 1]
    each = [(runs["ticket", "weights", number] - control).to_numpy() for number in (1, 2, 3)]
    sd = np.sqrt(np.mean([values.var(ddof=1) for values in each]))
    row = claim(found, "performance.top1 differs: weights, ticket, round 2")
    assert row["value"] == pytest.approx(each[1].mean())
    dof = 3 * 2 / (1 + 2 / 4)
    raw = 2 * stats.t.sf(abs(each[1].mean()) / (sd / np.sqrt(3)), dof)
    assert row["p"] >= raw
    claims = stated(found).claims
    half = stats.t.ppf(0.975, dof) * sd / np.sqrt(3)
    assert (row["low"], row["high"]) == pytest.approx((each[1].mean() - half, each[1].mean() + half))
    assert (row["runs"], row["margin"], row["density"]) == (3, 0.01, 0.5)
    assert row["outcome"] == "undecided"
    assert row["needed"] == runs_needed(each[1].mean(), sd, 0.01, alpha=0.05 / len(claims))


def test_one_correction_for_all_claims(tmp_path: Path) -> None:
    """Claims with raw p that are known: those of runs without noise but in one measure."""
    found = results_of(tmp_path, noise=0.02, claims={"margins": {"performance.top1": 0.01}})
    claims = stated(found).claims
    assert len(claims) == 2 * 2 * 3 + 2
    runs = found.runs.set_index(["role", "recipe", "round", "seed"])["performance.top1"].sort_index()
    raw = []
    for _, row in claims[claims["recipe"].notna()].iterrows():
        base = runs["ticket", "nothing", 1] if row["role"] == "ticket" else runs["dense", "", 0]
        each = [(runs[row["role"], row["recipe"], number] - base).to_numpy() for number in (1, 2, 3)]
        error = np.sqrt(np.mean([values.var(ddof=1) for values in each]) / 3)
        raw.append(2 * stats.t.sf(abs(each[row["round"] - 1].mean()) / error, 4))
    for role in ("ticket", "unretrained"):
        mine = found.runs[(found.runs["role"] == role) & found.runs["recipe"].isin(["weights", "<filters>"])]
        x, y = 1 - mine["target"].to_numpy(), mine["performance.top1"].to_numpy()
        raw.append(permutation_within(x, y, list(mine["recipe"]))[1])
    order = [*np.flatnonzero(claims["recipe"].notna()), *np.flatnonzero(claims["recipe"].isna())]
    np.testing.assert_allclose(claims["p"].to_numpy(float)[order], holm(np.array(raw)))


def test_the_relation_has_all_three_readings(tmp_path: Path) -> None:
    found = results_of(tmp_path)
    row = stated(found).relations.set_index("claim").loc["mis.mis changes with rate: ticket"]
    assert row["slope"] == pytest.approx(-0.05 / 0.6, rel=0.03)
    assert row["slope_p"] < 0.001
    assert (row["runs"], row["methods"]) == (18, 2)
    assert row["rate"] == pytest.approx(row["slope"], rel=0.1)
    assert row["rate_low"] < row["rate"] < row["rate_high"] < 0
    mine = found.runs[(found.runs["role"] == "ticket") & (found.runs["recipe"] != "nothing")]
    r = np.corrcoef(1 - mine["target"], mine["mis.mis"])[0, 1]
    assert row["pooled_r"] == pytest.approx(r)
    accuracy = stated(found).relations.set_index("claim").loc["performance.top1 changes with rate: ticket"]
    assert np.isnan(accuracy["accuracy"])  # not held against itself


def test_one_seed_decides_nothing(tmp_path: Path) -> None:
    claims = stated(results_of(tmp_path, seeds=1)).claims
    alone = claims[claims["recipe"].notna()]
    assert set(alone["outcome"]) == {"undecided"}
    assert alone["needed"].isna().all()
    assert set(alone["runs"]) == {1}


def test_without_a_control_the_dense_network_is_one_and_drift_has_none(tmp_path: Path) -> None:
    recipes = study()["recipes"][:2]
    found = results_of(tmp_path, recipes=recipes)
    assert claim(found, "mis.mis differs: weights, ticket, round 1")["against"] == "dense"
    drifts = stated(found).claims
    assert not (drifts["measure"] == MAPS)[drifts["recipe"].notna()].any()
    assert any(MAPS in note for note in stated(found).notes)
    asked = results_of(tmp_path, claims={"against": "dense"})
    assert claim(asked, "mis.mis differs: weights, ticket, round 1")["against"] == "dense"
    other = [*recipes, {"name": "nothing", "schedule": {"density": 1}, "rewind": {"to": "none"},
                        "training": {"epochs": 3}}]  # fmt: skip
    shorter = results_of(tmp_path, recipes=other)  # another training is no control
    assert claim(shorter, "mis.mis differs: weights, ticket, round 1")["against"] == "dense"


def test_a_control_of_the_round_itself_comes_first(tmp_path: Path) -> None:
    found = results_of(tmp_path)
    own = found.runs[found.runs["recipe"] == "nothing"].assign(role="dense-control", recipe="weights", round=2)
    own["mis.mis"] -= 0.3
    found.runs = pd.concat([found.runs, own], ignore_index=True)
    row = claim(found, "mis.mis differs: weights, ticket, round 2")
    assert row["against"] == "dense, retrained"
    assert row["value"] == pytest.approx(0.275, abs=0.01)
    assert claim(found, "mis.mis differs: weights, ticket, round 1")["against"] == "dense, retrained (nothing)"


def test_without_statsmodels_the_report_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "statsmodels.regression", None)
    relations = stated(results_of(tmp_path)).relations
    assert relations["note"].str.contains("pip install 'prunescope[stats]'", regex=False).all()
    assert relations["slope"].notna().all()
    assert relations["rate"].isna().all()


def test_nothing_measured_is_nothing_claimed(tmp_path: Path) -> None:
    found = results_of(tmp_path, claims={"margins": {"mis.accuracy_unheard": 0.1}})
    told = stated(found)
    assert told.claims.empty
    assert list(told.claims) == CLAIM
    assert list(told.relations) == RELATION
    assert told.notes == ("Nothing is known of mis.accuracy_unheard, so nothing is claimed.",)
    found = results_of(tmp_path)
    found.runs = pd.DataFrame()
    assert stated(found).claims.empty


def test_margins_are_the_studys_or_its_probes() -> None:
    assert margins(read_study(study())) == {
        "performance.top1": 0.01, "performance/image.predicted/agreement/all": 0.02, MAPS: 0.05,
        "mis.accuracy": 0.01, "mis.mis": 0.01,
    }  # fmt: skip
    own = {"performance.top1": 0.02, MAPS: 0.1}
    given = read_study(study(claims={"margins": own, "alpha": 0.01}))
    assert margins(given) == own
    assert read_study(given.as_mapping()) == given
    assert set(make_plan(given).cells) == set(make_plan(read_study(study())).cells)


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({"margins": {"performance.top1": 0}}, "the margin of 'performance.top1' must be above 0"),
        ({"margins": {"performanc.top1": 0.1}}, "did you mean 'performance'?"),
        ({"margins": {"performance": 0.1}}, "write performance.METRIC"),
        ({"margins": {"performance.topp1": 0.1}}, "unknown metric 'topp1' in claims.margins: 'performance.topp1'; did"),
        ({"margins": {"gradcam/image.true/spearman": 0.1}}, "is no drift of 'gradcam'"),
        ({"margins": {"gradcam/image.true/spearmen/all": 0.1}}, "is no drift of 'gradcam'"),
        ({"alpha": 1}, "alpha must lie between 0 and 1"),
        ({"against": "chance"}, "claims.against"),
        ({"margin": {}}, "did you mean 'margins'?"),
    ],
)
def test_mistakes_are_named(claims: dict[str, Any], expected: str) -> None:
    with pytest.raises(PrunescopeError) as caught:
        read_study(study(claims=claims))
    assert expected in str(caught.value)


def test_margins_may_be_added_to_a_study_and_not_moved() -> None:
    plain, stricter, looser = (
        read_study(study(**changes)).as_mapping()
        for changes in ({}, {"claims": {"margins": {"mis.mis": 0.01}}}, {"claims": {"margins": {"mis.mis": 0.1}}})
    )
    assert differences(plain, stricter) == []
    assert differences(stricter, looser) == [("claims.margins.mis.mis", 0.01, 0.1)]
