"""The eight concepts against the published coding, row by row, and as the concept bank of another data set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prunescope.core.errors import PrunescopeError
from prunescope.data import load_data
from prunescope.data.decode import Decoding
from prunescope.data.derm7pt import CONCEPTS, Derm7pt, derm7pt_concepts, group
from prunescope.data.split import Normalisation

HEADER = "case_num,diagnosis,pigment_network,streaks,regression_structures,dots_and_globules,blue_whitish_veil,derm"
#: What is written in the table, and what it means for the eight concepts in the order of `CONCEPTS`:
#: BWV, RegularDG, IrregularDG, RegressionStructures, IrregularStreaks, RegularStreaks, Atypical-, TypicalNetwork.
ROWS = [
    ("melanoma (in situ)", "atypical,irregular,blue areas,irregular,present", [1, -1, 1, 1, 1, -1, 1, -1], 1),
    ("clark nevus", "typical,regular,absent,regular,absent", [0, 1, -1, 0, -1, 1, -1, 1], 0),
    ("basal cell carcinoma", "absent,absent,combinations,absent,present", [1, 0, 0, 1, 0, 0, 0, 0], 1),
    ("seborrheic keratosis", "absent,regular,white areas,absent,absent", [0, 0, 0, 1, -1, 1, 0, 0], 0),
]
REPEAT = 6


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PRUNESCOPE_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "derm7pt"
    (root / "meta").mkdir(parents=True)
    lines, random = [HEADER], np.random.default_rng(0)
    for i in range(REPEAT * len(ROWS)):
        diagnosis, values, _, _ = ROWS[i % len(ROWS)]
        file = f"{'AN'[i % 2]}l{i % 3}/Image{i}.{'JPG' if i % 2 else 'jpg'}"
        lines.append(f"{i},{diagnosis},{values},{file}")
        (root / "images" / file).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (12, 15, 3), np.uint8)).save(root / "images" / file, format="JPEG")
    (root / "meta" / "meta.csv").write_text("\n".join(lines) + "\n")
    for name, (start, stop) in {"train": (0, 12), "valid": (12, 16), "test": (16, 24)}.items():
        numbers = "\n".join(map(str, range(start, stop)))
        (root / "meta" / f"{name}_indexes.csv").write_text(f"indexes\n{numbers}\n")
    return root


def test_concepts_and_classes_of_every_image(root: Path) -> None:
    data = load_data({"name": "derm7pt", "root": root, "size": 8})
    assert [len(data[name]) for name in ("train", "val", "test")] == [12, 4, 8]
    assert data.classes == ("benign", "malignant")
    for split in (data.train, data.val, data.test):
        assert split.concept_names == tuple(CONCEPTS)
        for i, concepts, label in zip(range(len(split)), split.concepts, split.labels, strict=True):
            _, _, expected, malignant = ROWS[i % len(ROWS)]
            assert concepts.tolist() == expected
            assert label == malignant


def test_groups_of_diagnoses(root: Path) -> None:
    split = Derm7pt(root, target="group", size=8).load().train
    assert [split.classes[i] for i in split.labels[:4]] == ["melanoma", "nevus", "bcc", "sk"]
    assert [group(row[0]) for row in ROWS] == ["melanoma", "nevus", "bcc", "sk"]
    assert group("melanoma metastasis") == "melanoma"
    assert group("reed or spitz nevus") == "nevus"
    assert group("melanosis") == "misc"


def test_as_a_bank_it_is_train_and_val_seen_as_the_other_data_set(root: Path) -> None:
    normalisation = Normalisation((0.7, 0.5, 0.5), (0.1, 0.1, 0.1))
    bank = derm7pt_concepts(root, Decoding(8), normalisation)
    data = load_data({"name": "derm7pt", "root": root, "size": 8})
    assert bank.normalisation == normalisation
    assert bank.ids.tolist() == [*data.train.ids, *data.val.ids]
    assert bank.concepts.tolist() == [*data.train.concepts.tolist(), *data.val.concepts.tolist()]


def test_what_is_wrong_is_named(root: Path) -> None:
    index = root / "meta" / "valid_indexes.csv"
    index.write_text("indexes\n11\n12\n")
    with pytest.raises(PrunescopeError, match="a row stands in two of"):
        load_data(f"derm7pt:{root}")
    index.write_text("indexes\n24\n")
    with pytest.raises(PrunescopeError, match=r"valid_indexes\.csv names row 24, but meta\.csv has 24 rows"):
        load_data(f"derm7pt:{root}")
    index.write_text("index\n12\n")
    with pytest.raises(PrunescopeError, match="must have a column 'indexes'"):
        load_data(f"derm7pt:{root}")
    index.unlink()
    with pytest.raises(PrunescopeError, match=r"cannot read .*valid_indexes\.csv"):
        load_data(f"derm7pt:{root}")


def test_a_wrong_table_is_named(root: Path) -> None:
    path = root / "meta" / "meta.csv"
    path.write_text(path.read_text().replace("streaks", "strokes"))
    with pytest.raises(PrunescopeError, match=r"unknown column 'streaks'.*did you mean 'strokes'"):
        load_data(f"derm7pt:{root}")
    path.unlink()
    with pytest.raises(PrunescopeError, match=r"there is no .*meta\.csv"):
        load_data(f"derm7pt:{root}")
