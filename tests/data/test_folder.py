"""Folders of classes become splits that share no image and keep the classes' shares."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from prunescope.core.errors import PrunescopeError
from prunescope.data import load_data
from prunescope.data.partition import partition

COUNTS = {"cat": 20, "dog": 30, "emu": 10}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRUNESCOPE_CACHE", str(tmp_path / "cache"))


def write(root: Path, parts: tuple[str, ...] = ("",), counts: dict[str, int] = COUNTS) -> Path:
    """The red channel of an image tells its class, everything else is noise."""
    random = np.random.default_rng(len(parts))
    for part in parts:
        for label, (name, count) in enumerate(counts.items()):
            folder = root / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = random.integers(0, 256, (10, 12, 3), np.uint8)
                pixels[..., 0] = label
                Image.fromarray(pixels).save(folder / f"{i:03}.{('png', 'bmp')[i % 2]}")
    return root


def assert_whole(data, parts: int, counts: dict[str, int] = COUNTS) -> None:  # type: ignore[no-untyped-def]
    ids = [str(name) for split in (data.train, data.val, data.test) for name in split.ids]
    assert len(set(ids)) == len(ids) == parts * sum(counts.values())
    for split in (data.train, data.val, data.test):
        assert torch.equal(split.images[:][:, 0, 0, 0].long(), split.labels)
        assert [name.split("/")[-2] for name in split.ids] == [data.classes[i] for i in split.labels]


def test_plain_folders_are_split_by_shares(tmp_path: Path) -> None:
    data = load_data({"name": "folder", "root": write(tmp_path / "pets"), "size": 8})
    assert data.name == "pets"
    assert data.classes == ("cat", "dog", "emu")
    assert data.train.shape == (3, 8, 8)
    assert_whole(data, 1)
    assert torch.bincount(data.test.labels).tolist() == [4, 6, 2]
    assert torch.bincount(data.val.labels).tolist() == [2, 3, 1]


def test_folders_of_splits_are_kept(tmp_path: Path) -> None:
    data = load_data({"name": "folder", "root": write(tmp_path / "pets", ("train", "val", "test")), "size": 8})
    assert_whole(data, 3)
    for name in ("train", "val", "test"):
        assert {place.split("/")[0] for place in data[name].ids} == {name}


def test_only_val_is_split_off_when_there_is_a_test_folder(tmp_path: Path) -> None:
    root = write(tmp_path / "pets", ("train", "test"))
    first, second = (load_data({"name": "folder", "root": root, "size": 8, "seed": seed}) for seed in (0, 1))
    assert_whole(first, 2)
    assert Counter(place.split("/")[0] for place in first.val.ids) == {"train": 6}
    assert first.test.ids.tolist() == second.test.ids.tolist()
    assert first.val.ids.tolist() != second.val.ids.tolist()


@pytest.mark.parametrize("storage", ["memmap", "stream"])
def test_storage_does_not_change_the_data(tmp_path: Path, storage: str) -> None:
    root = write(tmp_path / "pets")
    config = {"name": "folder", "root": root, "size": 8}
    reference = load_data(config)
    other = load_data({**config, "storage": storage})
    assert other.fingerprint == reference.fingerprint
    assert load_data({**config, "seed": 3}).fingerprint != reference.fingerprint


def test_tables_and_folders_of_concepts(tmp_path: Path) -> None:
    root = write(tmp_path / "pets")
    (tmp_path / "table.csv").write_text("concept,cat,dog,emu\nfur,1,1,0\nwings,0,0,1\n")
    write(tmp_path / "bank", ("stripes",), {"positive": 3, "negative": 4})
    data = load_data(
        {
            "name": "folder",
            "root": root,
            "size": 8,
            "concept_table": tmp_path / "table.csv",
            "concepts": tmp_path / "bank",
        }
    )
    assert data.train.concept_names == ("fur", "wings")
    assert data.train.concept_level == "class"
    assert data.test.concepts.tolist() == [[int(i < 2), int(i == 2)] for i in data.test.labels]
    assert data.concept_bank.concepts[:, 0].tolist().count(1) == 3
    assert data.concept_bank.normalisation == data.train.normalisation


def test_grey(tmp_path: Path) -> None:
    data = load_data({"name": "folder", "root": write(tmp_path / "pets"), "size": 8, "channels": 1})
    assert data.train.shape == (1, 8, 8)
    assert len(data.train.normalisation.mean) == 1


def test_hidden_files_and_files_that_are_no_images_do_not_count(tmp_path: Path) -> None:
    root = write(tmp_path / "pets")
    (root / "cat" / "notes.txt").write_text("a")
    (root / "cat" / "._000.png").write_bytes(b"a")
    (root / ".thumbnails").mkdir()
    assert_whole(load_data({"name": "folder", "root": root, "size": 8}), 1)


def broken(root: Path, kind: str) -> Path:
    write(root, ("train", "test") if kind in ("test only", "no test", "other class") else ("",))
    if kind == "empty class":
        (root / "fox").mkdir()
    if kind == "test only":
        (root / "train").rename(root / "training")
    if kind == "no test":
        (root / "test").rename(root / "val")
    if kind == "other class":
        (root / "test" / "emu").rename(root / "test" / "eel")
    if kind == "broken image":
        (root / "emu" / "002.png").write_bytes(b"broken")
    return root


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("empty class", r"no images \(\.jpg.*fox"),
        ("test only", "has test, but train and test are both needed"),
        ("no test", "has train, val, but train and test"),
        ("other class", "class 'eel' is only in .*test"),
        ("broken image", r"cannot read image .*emu/002\.png"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, kind: str, message: str) -> None:
    with pytest.raises(PrunescopeError, match=message):
        load_data({"name": "folder", "root": broken(tmp_path / "pets", kind), "size": 8})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"val_fraction": 0.0}, "above 0"),
        ({"val_fraction": 0.5, "test_fraction": 0.5}, "less than 1"),
        ({"size": 0}, "at least 1 pixel"),
        ({"storage": "disk"}, "storage"),
    ],
)
def test_impossible_options_are_refused(tmp_path: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(PrunescopeError, match=message):
        load_data({"name": "folder", "root": write(tmp_path / "pets"), "size": 8, **options})


def test_classes_too_small_to_split_and_missing_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(PrunescopeError, match="there is no folder"):
        load_data(f"folder:{tmp_path / 'nothing'}")
    with pytest.raises(PrunescopeError, match=r"3 parts need as many images of every class, got 'emu' \(2\)"):
        load_data(f"folder:{write(tmp_path / 'pets', counts={**COUNTS, 'emu': 2})}")


@pytest.mark.parametrize("seed", range(5))
def test_groups_stay_together_and_every_part_has_every_class(seed: int) -> None:
    random = np.random.default_rng(seed)
    owner = random.integers(0, 60, 200)  # images of 60 lesions
    label_of = random.integers(0, 3, 60)
    labels = torch.from_numpy(label_of[owner])
    parts = partition(
        labels, (0.2, 0.1), seed=seed, where="test", classes="abc", groups=np.array([f"L{i}" for i in owner])
    )
    assert sorted(torch.cat(parts).tolist()) == list(range(200))
    owners = [set(owner[part.numpy()].tolist()) for part in parts]
    assert not (owners[0] & owners[1] | owners[0] & owners[2] | owners[1] & owners[2])
    assert len(owners[1]) == round(0.2 * len(set(owner.tolist())))
    assert all(labels[part].unique().tolist() == [0, 1, 2] for part in parts)


def test_the_test_part_does_not_depend_on_the_share_of_val() -> None:
    labels = torch.arange(100) % 4
    (_, first, _), (_, second, _) = (
        partition(labels, (0.2, val), seed=0, where="test", classes="abcd") for val in (0.1, 0.3)
    )
    assert torch.equal(first, second)
