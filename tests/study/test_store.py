"""Cells are whole or absent; damage is found; two runs do not share a folder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from prunescope.core.errors import PrunescopeError, PrunescopeWarning
from prunescope.core.files import at_work
from prunescope.core.types import Record
from prunescope.study.cell import Cell
from prunescope.study.records import load_record, save_record
from prunescope.study.store import Store

PARENT = Cell("data", {"data": {"name": "shapes"}}, {}, "data")
CELL = Cell("train", {"seed": 0}, {"data": PARENT}, "dense seed 0")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "study")
    with store.writing(CELL, {"seconds": 1.5}) as folder:
        (folder / "weights.bin").write_bytes(b"weights")
    return store


def test_a_written_cell_is_done_and_tells_what_it_is(store: Store) -> None:
    assert store.has(CELL)
    assert store.intact(CELL)
    facts = store.facts(CELL)
    assert facts["params"] == {"seed": 0}
    assert facts["parents"] == {"data": PARENT.folder}
    assert store.provenance(CELL) == {"seconds": 1.5}
    assert not store.has(PARENT)


def test_an_interrupted_cell_is_not_there(store: Store) -> None:
    other = Cell("train", {"seed": 1}, {"data": PARENT}, "dense seed 1")
    with pytest.raises(KeyboardInterrupt), store.writing(other, {}) as folder:  # noqa: PT012
        (folder / "weights.bin").write_bytes(b"half")
        raise KeyboardInterrupt
    assert not store.has(other)
    assert len(list(store.cells.iterdir())) == 1


@pytest.mark.parametrize("damage", ["truncate", "flip", "remove", "no facts"])
def test_damage_is_found_by_checksum_and_removed_with_a_warning(store: Store, damage: str) -> None:
    file = store.path(CELL) / "weights.bin"
    if damage == "truncate":
        file.write_bytes(b"weig")
    elif damage == "flip":
        file.write_bytes(b"weightz")
    elif damage == "remove":
        file.unlink()
    else:
        (store.path(CELL) / "cell.json").write_text("{")
    with pytest.warns(PrunescopeWarning, match="damaged"):
        assert store.drop_damaged(CELL)
    assert not store.has(CELL)


def test_a_whole_cell_is_not_dropped(store: Store) -> None:
    assert not store.drop_damaged(CELL)
    assert store.has(CELL)


def test_failures_are_remembered_until_success(store: Store) -> None:
    other = Cell("train", {"seed": 1}, {"data": PARENT}, "dense seed 1")
    store.fail(other, "loss is NaN")
    assert store.failures() == {other.folder: "dense seed 1: loss is NaN"}
    with store.writing(other, {}) as folder:
        (folder / "a").write_text("a")
    assert store.failures() == {}


def test_scratch_goes_when_the_cell_is_done(store: Store) -> None:
    other = Cell("train", {"seed": 1}, {"data": PARENT}, "dense seed 1")
    for part in (0, 1):
        store.scratch(other, part).write_text("state")
    with store.writing(other, {}):
        pass
    assert not store.scratch(other).exists()
    assert not store.scratch(other, 1).exists()


def test_one_run_at_a_time(store: Store) -> None:
    with at_work(store.root), pytest.raises(PrunescopeError, match="another run"), at_work(store.root):
        pass
    with at_work(store.root):
        pass


def test_tidy_removes_half_written_files_and_states_of_cells_that_are_done(store: Store) -> None:
    doing = Cell("train", {"seed": 1}, {"data": PARENT}, "dense seed 1")
    store.scratch(CELL).write_bytes(b"killed between the rename and this file's removal")
    store.scratch(doing).write_bytes(b"to go on from")
    strays = [store.scratch(doing).with_name(".x.0.state.1234.tmp"), store.root / ".study.yaml.1234.tmp"]
    for stray in strays:
        stray.write_bytes(b"half")
    store.tidy()
    assert [path for path in (store.scratch(CELL), *strays) if path.exists()] == []
    assert store.scratch(doing).is_file()
    assert store.intact(CELL)


def test_tidy_removes_half_written_folders_only(store: Store) -> None:
    (store.cells / ".train-abc.123.tmp").mkdir()
    store.tidy()
    assert [p.name for p in store.cells.iterdir()] == [CELL.folder]


def test_missing_facts_say_what_to_do(store: Store) -> None:
    with pytest.raises(PrunescopeError, match="run the study first"):
        store.facts(PARENT)


def test_records_survive_and_equal_records_give_equal_bytes(tmp_path: Path) -> None:
    record = Record(
        "p", {"a": 0.5, "nan": float("nan")}, {"image.x": np.arange(2, dtype=np.float16), "m": np.eye(2)},
        ids=np.array(["ä", "b"]), info={"classes": ["x"]},
    )  # fmt: skip
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        save_record(record, tmp_path / name)
    back = load_record(tmp_path / "one")
    assert back.metrics["a"] == 0.5
    assert np.isnan(back.metrics["nan"])
    assert back.arrays["image.x"].dtype == np.float16
    assert back.ids is not None
    assert back.ids.tolist() == ["ä", "b"]
    assert back.info == {"classes": ["x"]}
    for file in ("record.npz", "record.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_a_damaged_record_is_a_clear_error(tmp_path: Path) -> None:
    save_record(Record("p"), tmp_path)
    (tmp_path / "record.npz").write_bytes(b"PK\x03\x04 not really")
    with pytest.raises(PrunescopeError, match="cannot read the record"):
        load_record(tmp_path)


def test_a_pickled_array_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "record.npz", evil=np.array([{"a": 1}], dtype=object))
    (tmp_path / "record.json").write_text(json.dumps({"probe": "p", "metrics": {}, "info": {}}))
    with pytest.raises(PrunescopeError, match="cannot read the record"):
        load_record(tmp_path)
