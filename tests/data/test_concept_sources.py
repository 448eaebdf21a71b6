"""Tables and folders of concepts say what they say, whatever the order of columns, or name what is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from prunescope.core.errors import PrunescopeError
from prunescope.data.concept_sources import class_table, concept_folders
from prunescope.data.decode import Decoding
from prunescope.data.split import Normalisation


def table(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "table.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_columns_are_found_by_name(tmp_path: Path) -> None:
    path = table(tmp_path, 'concept,b,a,reason\nfur,0,1,"hairy, mostly"\n\nwings,1,-1,\nlegs,,1,none\n')
    names, labels = class_table(path, ("a", "b"))
    assert names == ("fur", "wings", "legs")
    assert labels.dtype == torch.int8
    assert labels.tolist() == [[1, -1, 1], [0, 1, -1]]


def test_spreadsheets_marks_and_blanks_do_not_matter(tmp_path: Path) -> None:
    path = table(tmp_path, "\ufeffconcept, a ,b\nfur , 1, 0\n")
    assert class_table(path, ("a", "b"))[0] == ("fur",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("concept,a,c\nfur,1,0\n", "unknown column 'b'"),
        ("concept,a,b\nfur,1,yes\n", "'fur' of 'b' must be 1, 0, -1 or empty, got 'yes'"),
        ("concept,a,b\nfur,1,0\nfur,1,0\n", "'fur' is named twice"),
        ("concept,a,b\n", "has no concepts"),
        ("", "unknown column 'a'"),
    ],
)
def test_wrong_tables_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(PrunescopeError, match=message):
        class_table(table(tmp_path, text), ("a", "b"))


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(PrunescopeError, match=r"nothing\.csv"):
        class_table(tmp_path / "nothing.csv", ("a",))


@pytest.fixture
def bank(tmp_path: Path) -> Path:
    for name, grey in (("dark", 10), ("bright", 240)):
        for kind, value in (("positive", grey), ("negative", 250 - grey)):
            folder = tmp_path / "bank" / name / kind
            folder.mkdir(parents=True)
            for i in range(2):
                Image.fromarray(np.full((6, 6, 3), value + i, np.uint8)).save(folder / f"{i}.png")
    return tmp_path / "bank"


def test_images_are_labelled_for_their_own_concept_only(bank: Path) -> None:
    normalisation = Normalisation((0.1, 0.2, 0.3), (1.0, 1.0, 1.0))
    split = concept_folders(bank, Decoding(4), normalisation, cache=False)
    assert split.concept_names == split.classes == ("bright", "dark")
    assert split.normalisation == normalisation
    assert split.shape == (3, 4, 4)
    for image, label, place, concepts in zip(split.images[:], split.labels, split.ids, split.concepts, strict=True):
        name, kind, _ = place.split("/")
        assert split.classes[label] == name
        assert concepts.tolist() == [int(kind == "positive") if own == name else -1 for own in split.classes]
        assert (int(image[0, 0, 0]) < 100) == ((name == "dark") == (kind == "positive"))


def test_grey_networks_get_grey_examples(bank: Path) -> None:
    assert concept_folders(bank, Decoding(4, 1), Normalisation(), cache=False).shape == (1, 4, 4)


def test_incomplete_banks_are_refused(bank: Path) -> None:
    for file in (bank / "dark" / "negative").iterdir():
        file.unlink()
    with pytest.raises(PrunescopeError, match=r"no images in .*dark/negative"):
        concept_folders(bank, Decoding(4), Normalisation(), cache=False)
    with pytest.raises(PrunescopeError, match="no folders NAME/positive"):
        concept_folders(bank / "dark" / "positive", Decoding(4), Normalisation())
    with pytest.raises(PrunescopeError, match="there is no folder"):
        concept_folders(bank / "nothing", Decoding(4), Normalisation())
