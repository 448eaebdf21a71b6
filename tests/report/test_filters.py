"""The page of filters beside the tables that it is made from; what it escapes, leaves out and refuses."""

from __future__ import annotations

import base64
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hostile_data import NAMES, SCRIPT
from hostile_filters import COMPARE, LAYERS, METHODS

from prunescope.core.errors import PrunescopeError
from prunescope.report.filters.build import build_filter_page, render_filters
from prunescope.report.filters.classes import class_rows
from prunescope.report.filters.data import compact
from prunescope.report.filters.folder import read_filters
from prunescope.report.filters.layers import cards, drawing, stars
from prunescope.report.filters.marks import kinds, signed
from prunescope.report.filters.removal import FIRST, curve_figures, removals
from prunescope.report.filters.words import made_again, removing

WORST = ("worst_low", "worst_high", "worst_p")
SEEN = (
    "colour", "shape", "redundancy", "partner", "chroma", "colour_selective", "class_selectivity",
    "class_selectivity_means",
)  # fmt: skip


@pytest.fixture
def tables(filter_tables: Path, tmp_path: Path) -> Path:
    """A copy that may be changed."""
    return Path(shutil.copytree(filter_tables, tmp_path / "tables"))


@pytest.fixture(scope="module")
def text(filter_tables: Path) -> str:
    return render_filters(read_filters(filter_tables))


def embedded(text: str, key: str) -> Any:
    found = re.search(rf'<script type="application/json" id="{key}">(.*?)</script>', text, re.DOTALL)
    assert found, key
    return json.loads(found[1])


def changed(folder: Path, name: str, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    change(pd.read_csv(folder / name, keep_default_na=False)).to_csv(folder / name, index=False)


def test_every_number_is_that_of_the_tables(text: str, filter_tables: Path) -> None:
    units, sees = (pd.read_csv(filter_tables / name) for name in ("units.csv", "sees.csv"))
    classes = pd.read_csv(filter_tables / "classes.csv").iloc[:, 2:].to_numpy()
    assert embedded(text, "class-names") == list(NAMES)
    start = 0
    for place, layer in enumerate(LAYERS):
        shown = embedded(text, f"numbers-{place}")
        own, seen = units[units["layer"] == layer], sees[sees["layer"] == layer]
        assert shown["name"] == layer
        for column in ("channel", "car", "low", "high", "p_holm", "mean_drop", "place"):
            assert np.allclose(shown[column], own[column], rtol=1e-4), column
        for table, names in ((own, WORST), (seen, SEEN)):
            for column in names:
                values = np.array(shown[column], dtype=float)  # None is NaN
                assert np.allclose(values, table[column].to_numpy(float), rtol=1e-4, equal_nan=True), column
        for row, (harmed, spared) in enumerate(zip(shown["harmed"], shown["spared"], strict=True)):
            values = classes[start + row]
            worst = own["worst_class"].iloc[row]
            lose = [k for k in range(4) if values[k] > 0]
            expected = sorted(lose, key=lambda k: (-values[k], NAMES[k] != worst, k))[:2]
            assert bool(expected) == isinstance(worst, str)
            assert [pair[0] for pair in harmed] == expected
            assert [pair[1] for pair in harmed] == pytest.approx(values[expected], rel=1e-4)
            assert spared == [int(np.argmin(values)), pytest.approx(values.min(), rel=1e-4)]
        start += len(own)
    assert start == len(units)


def test_pictures_are_those_of_the_units(text: str, filter_tables: Path) -> None:
    stored = pd.read_parquet(filter_tables / "patches.parquet").set_index(["layer", "channel"])
    for place, layer in enumerate(LAYERS):
        numbers, pictures = embedded(text, f"numbers-{place}"), embedded(text, f"pictures-{place}")
        for i, channel in enumerate(numbers["channel"]):
            assert base64.b64decode(pictures["patches"][i]) == stored["patches"][layer, channel]
            assert base64.b64decode(pictures["kernels"][i]) == stored["kernel"][layer, channel]
            assert base64.b64decode(pictures["maximised"][i]) == stored["maximised"][layer, channel]
    assert embedded(text, "pictures-1")["patches"][2] == ""  # dead
    assert all(embedded(text, "pictures-0")["kernels"])
    assert not any(embedded(text, "pictures-1")["kernels"])


def test_names_are_text(text: str) -> None:
    assert SCRIPT not in text
    assert not any(name in text for name in NAMES)
    assert "<img src=x" not in text
    assert all(name in unescape(text) for name in NAMES)
    markup = text.split('id="figures"')[0]  # before the scripts, of which one is Plotly's
    assert not re.search(r'(?:src|href)="(?!data:|#)', markup)
    assert "default-src 'none'" in text


def test_the_page_is_made_again_to_the_same_bytes(tables: Path) -> None:
    page = build_filter_page(tables)
    first = page.read_bytes()
    assert page == tables / "index.html"
    assert build_filter_page(tables, tables / "other" / "page.html").read_bytes() == first


def test_kinds() -> None:
    units = pd.DataFrame({"p_holm": [0.01, 0.01, 0.05, 0.9, 0.01], "car": [0.1, -0.1, 0.3, -0.2, 0.0]})
    assert kinds(units).tolist() == ["helps", "harms", "unsure", "unsure", "unsure"]
    assert [signed(v) for v in (0.0004, -0.0004, 0.0006, -0.5)] == ["0.000", "0.000", "+0.001", "−0.500"]
    assert compact([np.nan, pd.NA, 3.0, 0.123456789, -0.0]) == [None, None, 3, 0.12346, 0]


def test_a_drawing_has_a_bar_per_unit_on_its_side_of_zero() -> None:
    values = np.array([-0.5, 0.0, 0.25, 1.0])
    bars, zero = drawing(values, np.array(["harms", "unsure", "unsure", "helps"]))
    tops = {kind: [float(part.split("h")[0]) for part in path.split("V")[1::2]] for kind, path in bars.items()}
    assert tops["harms"][0] > zero > tops["unsure"][1] > tops["helps"][0]
    assert (zero - tops["helps"][0]) == pytest.approx(2 * (tops["harms"][0] - zero), abs=0.2)
    assert abs(tops["unsure"][0] - zero) == pytest.approx(0.5, abs=0.11)  # seen, though it is nothing
    many = drawing(np.linspace(-1, 1, 3000), np.full(3000, "unsure"))[0]["unsure"]
    assert many.count("M") == 256
    assert drawing(np.zeros(3), np.full(3, "unsure"))[0]["unsure"].count("M") == 3


def test_cards_show_both_ends_and_base_rates(filter_tables: Path) -> None:
    found = read_filters(filter_tables)
    units, sees = (pd.read_csv(filter_tables / name) for name in ("units.csv", "sees.csv"))
    for card, layer in zip(cards(found), LAYERS, strict=True):
        ranked = units[units["layer"] == layer].sort_values("place")["channel"].tolist()
        count = min(3, len(ranked) // 2)
        assert [unit.channel for unit in card.ends["least important"]] == ranked[:count]
        assert [unit.channel for unit in card.ends["most important"]] == ranked[::-1][:count]
        selective = sees[sees["layer"] == layer]["colour_selective"].dropna()
        told = dict(card.facts)["colour-selective"]
        assert told.startswith(f"{selective.sum():.0f} of {len(selective)} (")
    assert "dead" in dict(cards(found)[1].facts)
    best = units[units["car"] > 0].sort_values("place")[::-1].head(8)
    assert [(layer, row.channel) for row, _, layer in stars(found)] == list(
        zip(best["layer"], best["channel"], strict=True)
    )


def test_classes_name_the_units_that_they_need(filter_tables: Path) -> None:
    found = read_filters(filter_tables)
    for k, row in enumerate(class_rows(found)):
        values = found.class_car[:, k]
        best = sorted((i for i in range(len(values)) if values[i] > 0), key=lambda i: (-values[i], i))[:5]
        assert [unit[1:3] for unit in row.units] == [(found.units["layer"][i], found.units["channel"][i]) for i in best]
        assert int(row.images) == found.facts["class_images"][k]


def test_removal_beside_its_tables(filter_tables: Path) -> None:
    found = read_filters(filter_tables)
    figures = curve_figures(found)
    shown = removals(found, figures)
    assert [item.name for item in shown] == ["0", "3"]
    assert shown[0].charts == ("accuracy/0", "diversity/0")
    orders = found.orders[(found.orders["layer"] == "3") & (found.orders["seed"] == 0)]
    for order, method in zip(shown[1].orders, METHODS, strict=True):
        rows = orders[orders["method"] == method].sort_values("place")
        assert [channel for channel, *_ in order.first] == rows["channel"].tolist()
        selective = found.of("3").set_index("channel")["colour_selective"] == 1
        assert [colour for _, colour, _ in order.first] == [selective[channel] for channel in rows["channel"]]
    curves = found.curves[(found.curves["layer"] == "0") & (found.curves["method"] == "car")]
    for tuned, name in ((0, "car"), (1, "car, fine-tuned")):
        (line,) = (t for t in figures["accuracy/0"]["data"] if t.get("name") == name)
        own = curves[curves["fine_tuned"] == tuned]
        for x, y in zip(line["x"], line["y"], strict=True):
            assert y == pytest.approx(own[own["removed"] == x]["accuracy"].mean())
    names = {trace.get("name") for trace in figures["diversity/0"]["data"]}
    assert names == {"car", SCRIPT.replace("<", "&lt;").replace(">", "&gt;")}  # once, not for either tuning
    assert shown[0].enrichment[1] == ("car", "1", "1 of 3 (33.3\u00a0%)", "2 of 6 (33.3\u00a0%)", "1.0", "0.250")


def test_sections_without_tables_are_left_out(tables: Path) -> None:
    for name in ("orders.csv", "curves.csv", "enrichment.csv"):
        (tables / name).unlink()
    text = render_filters(read_filters(tables))
    assert 'id="removal"' not in text
    assert 'id="size"' in text
    (tables / "sees.csv").unlink()
    (tables / "patches.parquet").unlink()
    facts = json.loads((tables / "car.json").read_text())
    (tables / "car.json").write_text(json.dumps({**facts, "look": f"no {SCRIPT}"}))
    text = render_filters(read_filters(tables))
    assert 'id="size"' not in text
    assert f"not looked at (no {SCRIPT})" in unescape(text)
    assert SCRIPT not in text
    assert "plane/0" not in text
    assert len(embedded(text, "numbers-1")["car"]) == 9
    older = {key: value for key, value in facts.items() if key not in ("look", "class_images", "data")}
    (tables / "car.json").write_text(json.dumps(older))
    assert "What filters see was not looked at:" in render_filters(read_filters(tables))


@pytest.mark.parametrize("name", ["units.csv", "classes.csv", "car.json"])
def test_missing_tables(tables: Path, name: str) -> None:
    (tables / name).unlink()
    with pytest.raises(PrunescopeError, match=rf"has no {re.escape(name)}.*prunescope car"):
        build_filter_page(tables)
    assert not (tables / "index.html").exists()


def test_damaged_tables(tables: Path) -> None:
    def refuses(message: str) -> None:
        with pytest.raises(PrunescopeError, match=message):
            read_filters(tables)

    kept = {path: path.read_bytes() for path in tables.iterdir()}

    def restore() -> None:
        for path, content in kept.items():
            path.write_bytes(content)

    changed(tables, "units.csv", lambda t: t.drop(columns="p_holm"))
    refuses("units.csv has no column p_holm; it has layer, channel")
    changed(tables, "units.csv", lambda t: t.assign(p_holm="much"))
    refuses("units.csv: column p_holm holds what is no number, such as 'much'")
    restore()
    changed(tables, "units.csv", lambda t: t[1:])
    refuses("units.csv and classes.csv are not of the same units")
    changed(tables, "units.csv", lambda t: t[:0])
    refuses("units.csv has no unit")
    restore()
    changed(tables, "enrichment.csv", lambda t: t[:0])
    assert read_filters(tables).enrichment.empty
    changed(tables, "orders.csv", lambda t: t.replace({"layer": {"3": "33", 3: 33}}))
    refuses("unknown layer '33' in .*orders.csv; did you mean '3'")
    restore()
    (tables / "sees.csv").write_bytes(b"\xff\xfe\x00")
    refuses("sees.csv is damaged")
    restore()
    (tables / "patches.parquet").write_text("no")
    refuses("patches.parquet is damaged")
    restore()
    pd.read_parquet(tables / "patches.parquet").drop(columns="kernel").to_parquet(tables / "patches.parquet")
    refuses("patches.parquet has no column kernel")
    restore()
    (tables / "car.json").write_text("[]")
    refuses("car.json does not say model, split, images")
    (tables / "car.json").write_text(json.dumps({**json.loads(kept[tables / "car.json"]), "look": {"patches": 4}}))
    refuses("car.json does not say look.images, look.colour")
    (tables / "car.json").write_text(json.dumps({**json.loads(kept[tables / "car.json"]), "compare": {"methods": []}}))
    refuses("car.json does not say compare.report_split, compare.report_images, compare.fine")
    (tables / "car.json").write_text(json.dumps({**json.loads(kept[tables / "car.json"]), "class_images": [1]}))
    refuses("class_images are of 1 classes, not 4")


def test_names_that_look_like_nothing(tables: Path) -> None:
    """`NA` and `nan` are names of layers like others."""
    for name in ("units.csv", "classes.csv", "sees.csv"):
        changed(tables, name, lambda t: t.assign(layer=t["layer"].astype(str).replace("3", "NA")))
    for name in ("orders.csv", "curves.csv", "enrichment.csv"):
        (tables / name).unlink()
    assert read_filters(tables).layers == ["0", "NA", "</script>"]


def test_the_class_harmed_most_is_that_of_the_table(tables: Path) -> None:
    """Of classes that lose as much, the one whose interval stands there."""
    changed(tables, "classes.csv", lambda t: t.assign(**dict.fromkeys(t.columns[2:], 0.25)))
    changed(tables, "units.csv", lambda t: t.assign(worst_class=NAMES[2]))
    found = read_filters(tables)
    shown = embedded(render_filters(found), "numbers-0")
    assert all([pair[0] for pair in pairs] == [2, 0] for pairs in shown["harmed"])
    assert all(unit.harmed == f"{NAMES[2]} +0.250" for card in cards(found) for unit in card.ends["most important"])
    changed(tables, "units.csv", lambda t: t.assign(worst_class="a class that is not there"))
    assert read_filters(tables).worst_class(0) == 0


def test_as_many_are_shown_first_as_are_tested(filter_tables: Path) -> None:
    found = read_filters(filter_tables)
    many = pd.DataFrame({"layer": "0", "method": "car", "seed": 0.0, "place": range(40), "channel": range(40)})
    (order,) = removals(replace(found, orders=many, curves=found.curves[:0]), {})[0].orders
    assert [channel for channel, *_ in order.first] == list(range(20)) == list(range(FIRST))


def test_by_which_images_orders_were_chosen_and_measured(text: str, filter_tables: Path) -> None:
    said = removing(read_filters(filter_tables))
    assert "chose by 80 test images; accuracy along every order is that on 1,234 " in said
    assert COMPARE["report_split"] in said
    assert "trained for 0.25 epochs" in said
    assert said in unescape(text)
    found = read_filters(filter_tables)
    plain = replace(found, facts={**found.facts, "compare": {**COMPARE, "fine_tune_epochs": 0.0}})
    assert "fine-tuned" not in removing(plain)
    assert removing(replace(found, facts={k: v for k, v in found.facts.items() if k != "compare"})) == ""


def test_predictions_that_were_made_again_are_said(filter_tables: Path) -> None:
    told = {"worlds": 5000, "full_passes": 12, "again_in_float32": 1300, "precision": "bf16", "surprises": 2}
    assert made_again(told) == (
        "Of 5,000 predictions 12 were within rounding of a tie and made by full forward passes, 1,300 were not sure in "
        "bf16 and made again in float32. In 2 measurements an error was larger than was trusted until then: "
        "predictions made before these may be off where they were nearly ties."
    )
    assert made_again({**told, "surprises": 0, "full_passes": 0}).endswith("made again in float32.")
    assert made_again({"worlds": 5000, "full_passes": 0}) == made_again({}) == ""
    found = read_filters(filter_tables)
    assert "In 7 measurements" in render_filters(replace(found, facts={**found.facts, "surprises": 7}))


def test_made_pictures_are_shown_where_there_are_any(text: str, tables: Path) -> None:
    assert 'class="made"' in text
    assert "by 2 steps of gradient ascent: what it asks for" in unescape(text)
    facts = json.loads((tables / "car.json").read_text())
    facts["look"]["maximise"]["failed"] = {SCRIPT: "why"}
    (tables / "car.json").write_text(json.dumps(facts))
    again = render_filters(read_filters(tables))
    assert f"(there is none for {SCRIPT})" in unescape(again)
    assert SCRIPT not in again


def test_older_folders(tables: Path) -> None:
    """Without what later versions write beside it."""
    changed(tables, "units.csv", lambda t: t[[name for name in t if not name.startswith("worst_")]])
    pictures = pd.read_parquet(tables / "patches.parquet").drop(columns="maximised")
    pictures.to_parquet(tables / "patches.parquet", index=False)
    facts = json.loads((tables / "car.json").read_text())
    del facts["compare"], facts["surprises"], facts["look"]["maximise"]
    (tables / "car.json").write_text(json.dumps(facts))
    text = render_filters(read_filters(tables))
    shown = embedded(text, "numbers-0")
    assert set(shown["worst_low"]) == {None}
    assert any(shown["harmed"])
    assert set(embedded(text, "pictures-0")["maximised"]) == {""}
    assert 'id="removal"' in text
    for words in ("Methods that look at images chose", "gradient ascent", 'class="made"'):
        assert words not in text
