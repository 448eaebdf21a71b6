from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from prunescope.core.errors import PrunescopeError
from prunescope.data.cub import Cub, majority
from prunescope.data.cub_files import words
from prunescope.data.load import load_data

CLASSES = ("Black_footed_Albatross", "Laysan_Albatross", "Sooty_Albatross")
ATTRIBUTES = ("has_bill_shape::curved_(up_or_down)", "has_wing_color::blue", "has_size::small", "has_eye_color::red")
PER_CLASS = 8  # images 1..5 of each class are official training images
Label = tuple[int, int]  # present, certainty


def write(root: Path, labels: dict[tuple[int, int], Label]) -> Path:
    """The official layout; an image of class c is number 100 * c + 1 .. 8 (numbers need not be consecutive)."""
    folder = root / "CUB_200_2011"
    (folder / "attributes").mkdir(parents=True)
    random = np.random.default_rng(0)
    images, of_class, split = [], [], []
    for c, name in enumerate(CLASSES, 1):
        (folder / "images" / f"{c:03}.{name}").mkdir(parents=True)
        for i in range(1, PER_CLASS + 1):
            number, file = 100 * c + i, f"{c:03}.{name}/{name}_{i:04}.png"
            pixels = random.integers(0, 255, (20, 24, 3), np.uint8)
            Image.fromarray(pixels).save(folder / "images" / file)
            images.append(f"{number} {file}")
            of_class.append(f"{number} {c}")
            split.append(f"{number} {int(i <= 5)}")
    (folder / "images.txt").write_text("\n".join(images) + "\n")
    (folder / "image_class_labels.txt").write_text("\n".join(of_class) + "\n")
    (folder / "train_test_split.txt").write_text("\n".join(split) + "\n")
    (folder / "classes.txt").write_text("".join(f"{c} {c:03}.{name}\n" for c, name in enumerate(CLASSES, 1)))
    (root / "attributes.txt").write_text("".join(f"{k} {name}\n" for k, name in enumerate(ATTRIBUTES, 1)))
    lines = [f"{i} {k} {present} {certainty} 3.5" for (i, k), (present, certainty) in labels.items()]
    (folder / "attributes" / "image_attribute_labels.txt").write_text("\n".join(lines) + "\n")
    return folder


def drawn(seed: int = 0) -> dict[tuple[int, int], Label]:
    random = np.random.default_rng(seed)
    return {
        (100 * c + i, k): (int(random.random() < 0.5), int(random.integers(1, 5)))
        for c in range(1, 4)
        for i in range(1, PER_CLASS + 1)
        for k in range(1, 5)
    }


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRUNESCOPE_CACHE", str(tmp_path / "cache"))


def number(image_id: str) -> int:
    """The official number of an image, from its path."""
    return 100 * int(image_id[:3]) + int(image_id[-8:-4])


def test_official_split_and_names(tmp_path: Path) -> None:
    write(tmp_path, drawn())
    data = load_data({"name": f"cub:{tmp_path}", "size": 16, "val_fraction": 0.2, "min_classes": 0})
    assert data.classes == ("Black footed Albatross", "Laysan Albatross", "Sooty Albatross")
    assert data.train.concept_names[0] == "bill shape: curved (up or down)"
    assert data.train.shape == (3, 16, 16)
    assert (len(data.train), len(data.val), len(data.test)) == (12, 3, 9)
    for name in ("train", "val", "test"):
        for image_id, label in zip(data[name].ids, data[name].labels.tolist(), strict=True):
            assert label == int(image_id[:3]) - 1
            assert (name == "test") == (number(image_id) % 100 > 5)
    assert Counter(data.val.labels.tolist()) == {0: 1, 1: 1, 2: 1}
    inner = Cub(tmp_path / "CUB_200_2011", size=16, val_fraction=0.2, min_classes=0).load()
    assert inner.fingerprint == data.fingerprint


@pytest.mark.parametrize("certainty", [1, 2, 3, 4])
def test_image_labels_are_those_of_the_file_and_unsure_ones_unknown(tmp_path: Path, certainty: int) -> None:
    labels = drawn()
    write(tmp_path, labels)
    data = Cub(tmp_path, size=8, min_certainty=certainty, min_classes=0, cache=False).load()
    for split in (data.train, data.val, data.test):
        assert split.concept_level == "image"
        assert split.concepts is not None
        for image_id, row in zip(split.ids, split.concepts.tolist(), strict=True):
            for k, value in enumerate(row, 1):
                present, sure = labels[number(image_id), k]
                assert value == (present if sure >= certainty else -1)


def test_class_labels_are_the_vote_of_training_images_only(tmp_path: Path) -> None:
    labels = drawn()
    folder = write(tmp_path, labels)
    source = Cub(folder, size=8, concepts="class", min_classes=0, cache=False)
    data = source.load()
    assert data.train.concepts is not None
    assert data.test.concepts is not None
    for image_id, row in zip(data.test.ids, data.test.concepts.tolist(), strict=True):
        for k, value in enumerate(row, 1):
            same = [number(other) for other in data.train.ids if other[:3] == image_id[:3]]
            votes = [labels[i, k][0] for i in same if labels[i, k][1] >= 2]
            assert value == int(sum(votes) > len(votes) / 2)
    assert data.test.concept_level == "class"
    for i in range(3):
        assert len(data.train.concepts[data.train.labels == i].unique(dim=0)) == 1
    turned = {key: (1 - p, c) if key[0] % 100 > 5 else (p, c) for key, (p, c) in labels.items()}
    again = Cub(write(tmp_path / "turned", turned), size=8, concepts="class", min_classes=0, cache=False).load()
    assert torch.equal(again.train.concepts, data.train.concepts)  # test images have no vote


def test_rare_attributes_are_left_out(tmp_path: Path) -> None:
    having = {1: {1, 2, 3}, 2: {1, 2}, 3: {1}, 4: set()}
    write(tmp_path, {(i, k): (int(i // 100 in having[k]), 4) for i, k in drawn()})
    for least, kept in ((0, 4), (1, 3), (2, 2), (3, 1)):
        for kind in ("image", "class"):
            data = Cub(tmp_path, size=8, concepts=kind, min_classes=least, cache=False).load()
            assert len(data.train.concept_names) == kept
            assert data.test.concepts is not None
            assert data.test.concepts.shape == (9, kept)
    with pytest.raises(PrunescopeError, match="no attribute is true for 10 species"):
        Cub(tmp_path, size=8, cache=False).load()


def test_lines_with_more_columns_count_as_the_others(tmp_path: Path) -> None:
    folder = write(tmp_path, drawn())
    path = folder / "attributes" / "image_attribute_labels.txt"
    before = Cub(tmp_path, size=8, min_classes=0, cache=False).load().fingerprint
    lines = path.read_text().splitlines()
    lines[0] += " "
    lines[7] = " ".join([*lines[7].split()[:4], "0", "0", "12.5"])
    lines[9] = " ".join([*lines[9].split()[:4], "0", "2.5"])
    path.write_text("\n".join(lines) + "\n")
    assert Cub(tmp_path, size=8, min_classes=0, cache=False).load().fingerprint == before


def test_a_label_that_is_not_in_the_file_is_unknown(tmp_path: Path) -> None:
    labels = {key: (1, 4) for key in drawn() if key != (101, 2)}
    write(tmp_path, labels)
    data = Cub(tmp_path, size=8, min_classes=0, cache=False).load()
    rows = {
        number(image_id): row
        for split in (data.train, data.val, data.test)
        for image_id, row in zip(split.ids, split.concepts.tolist(), strict=True)
    }
    assert rows[101] == [1, -1, 1, 1]
    assert rows[102] == [1, 1, 1, 1]


def test_without_concepts_their_files_are_not_needed(tmp_path: Path) -> None:
    folder = write(tmp_path, drawn())
    (folder / "attributes" / "image_attribute_labels.txt").unlink()
    assert Cub(tmp_path, size=8, concepts="none", cache=False).load().train.concepts is None
    with pytest.raises(PrunescopeError, match="concepts: none"):
        Cub(tmp_path, size=8, cache=False).load()


@given(st.integers(0, 2**32), st.integers(1, 12), st.integers(1, 3), st.integers(1, 4))
def test_majority_against_counting(seed: int, n: int, classes: int, k: int) -> None:
    random = np.random.default_rng(seed)
    seen = random.integers(-1, 2, (n, k)).astype(np.int8)
    labels = random.integers(0, classes, n)
    table = majority(seen, labels, classes)
    for c in range(classes):
        for column in range(k):
            votes = [v for v in seen[labels == c, column].tolist() if v >= 0]
            assert table[c, column] == int(votes.count(1) > votes.count(0))


@pytest.mark.parametrize(
    ("file", "line", "words_"),
    [
        ("attributes/image_attribute_labels.txt", "999 1 1 4 0", "unknown image 999"),
        ("attributes/image_attribute_labels.txt", "101 5 1 4 0", "unknown attribute 5"),
        ("attributes/image_attribute_labels.txt", "101 1 2 4 0", "unknown label 2"),
        ("attributes/image_attribute_labels.txt", "101 1 1 9 0", "unknown certainty 9"),
        ("attributes/image_attribute_labels.txt", "101 x 1 4 0", "expected numbers"),
        ("images.txt", "301", "expected `<new number> <text>`"),
        ("images.txt", "101 again.png", "line 25: expected"),
        ("images.txt", "999 001.Black_footed_Albatross/lost.png", "no line for 1 images, the first of them 999"),
        ("classes.txt", "one", "expected `<new number>"),
        ("train_test_split.txt", "101 yes", "expected"),
    ],
)
def test_damaged_tables_are_named_with_what_is_wrong(tmp_path: Path, file: str, line: str, words_: str) -> None:
    folder = write(tmp_path, drawn())
    with (folder / file).open("a") as out:
        out.write(line + "\n")
    with pytest.raises(PrunescopeError, match=words_) as error:
        Cub(tmp_path, size=8, min_classes=0, cache=False).load()
    assert Path(file).name in str(error.value) or "image_class_labels" in str(error.value)


def test_missing_files_and_wrong_options(tmp_path: Path) -> None:
    with pytest.raises(PrunescopeError, match=r"no images\.txt"):
        Cub(tmp_path).load()
    folder = write(tmp_path, drawn())
    lost = next((folder / "images").rglob("*_0003.png"))
    lost.unlink()
    with pytest.raises(PrunescopeError, match=lost.name):
        Cub(tmp_path, size=8, min_classes=0).load()
    (tmp_path / "attributes.txt").unlink()
    with pytest.raises(PrunescopeError, match=r"no attributes\.txt"):
        Cub(tmp_path, size=8).load()
    for option in ({"concepts": "species"}, {"min_certainty": 5}, {"min_certainty": 0}, {"min_classes": -1}):
        with pytest.raises(PrunescopeError, match="cub"):
            Cub(tmp_path, **option)
    with pytest.raises(PrunescopeError, match="size must be at least 1"):
        Cub(tmp_path, size=0)


def test_split_numbers_other_than_0_and_1_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, drawn()) / "train_test_split.txt"
    path.write_text(path.read_text().replace("103 1", "103 2"))
    with pytest.raises(PrunescopeError, match=r"train_test_split.txt: expected 0 .* got 2"):
        Cub(tmp_path, size=8, min_classes=0, cache=False).load()


def test_numbers_and_words(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("2 two words\n\n1 one\n")
    assert words(path) == {2: "two words", 1: "one"}
    path.write_text("")
    with pytest.raises(PrunescopeError, match="is empty"):
        words(path)
