"""Both layouts of CIFAR hold the same images, and our concept table can tell the classes apart."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from prunescope.core.compat import torchvision_module
from prunescope.core.errors import PrunescopeError
from prunescope.data import load_data

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
PER_CLASS = {"train": 6, "test": 2}


def pictures(part: str, classes: int = 10) -> tuple[np.ndarray, list[int]]:
    """Images (N, 32, 32, 3) whose red channel is the class."""
    n = PER_CLASS[part] * classes
    pixels = np.random.default_rng(len(part)).integers(0, 256, (n, 32, 32, 3), np.uint8)
    labels = [i % classes for i in range(n)]
    pixels[..., 0] = np.array(labels, np.uint8)[:, None, None]
    return pixels, labels


def as_folders(root: Path) -> Path:
    for part in PER_CLASS:
        for i, (image, label) in enumerate(zip(*pictures(part), strict=True)):
            folder = root / part / CLASSES[label]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / f"{i:04}.png")
    return root


def as_pickles(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """torchvision's `cifar-10-batches-py`, with check sums to match."""
    reader = torchvision_module("torchvision.datasets").CIFAR10
    folder = root / reader.base_folder
    folder.mkdir(parents=True)

    def put(name: str, content: dict[str, Any]) -> list[str]:
        data = pickle.dumps(content)
        (folder / name).write_bytes(data)
        return [name, hashlib.md5(data).hexdigest()]

    def batch(part: str) -> dict[str, Any]:
        pixels, labels = pictures(part)
        return {"data": pixels.transpose(0, 3, 1, 2).reshape(len(labels), -1), "labels": labels}

    monkeypatch.setattr(reader, "train_list", [put("data_batch_1", batch("train"))])
    monkeypatch.setattr(reader, "test_list", [put("test_batch", batch("test"))])
    name, md5 = put("batches.meta", {"label_names": CLASSES})
    monkeypatch.setattr(reader, "meta", {"filename": name, "key": "label_names", "md5": md5})
    return root


@pytest.fixture(params=["folders", "pickles"])
def root(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PRUNESCOPE_CACHE", str(tmp_path / "cache"))
    if request.param == "folders":
        return as_folders(tmp_path / "cifar")
    return as_pickles(tmp_path / "cifar", monkeypatch)


def test_every_image_is_there_once_with_its_class(root: Path) -> None:
    data = load_data({"name": "cifar10", "root": root, "val_fraction": 1 / 6})
    assert data.name == "cifar10"
    assert data.classes == tuple(CLASSES)
    assert [len(data[name]) for name in ("train", "val", "test")] == [50, 10, 20]
    assert torch.bincount(data.val.labels).tolist() == [1] * 10
    for name in ("train", "val", "test"):
        split = data[name]
        assert split.shape == (3, 32, 32)
        assert torch.equal(split.images[:][:, 0, 0, 0].long(), split.labels)
    found = torch.cat([data.train.images[:], data.val.images[:]]).numpy()
    expected = pictures("train")[0].transpose(0, 3, 1, 2)
    assert sorted(image.tobytes() for image in found) == sorted(image.tobytes() for image in expected)


def test_concepts_are_those_of_the_class(root: Path) -> None:
    split = load_data({"name": "cifar10", "root": root}).test
    assert split.concept_level == "class"
    wings = split.concepts[:, split.concept_names.index("wings")].bool()
    assert {CLASSES[i] for i in split.labels[wings]} == {"airplane", "bird"}


def test_the_table_has_distinct_concepts_that_tell_the_classes_apart(root: Path) -> None:
    split = load_data({"name": "cifar10", "root": root}).test
    table = torch.stack([split.concepts[split.labels == c][0] for c in range(10)])
    assert len(split.concept_names) >= 20
    assert ((table == 0) | (table == 1)).all()
    assert 2 <= int(table.sum(0).min()) <= int(table.sum(0).max()) <= 8
    columns = [tuple(column.tolist()) for column in table.T]
    assert len({min(c, tuple(1 - v for v in c)) for c in columns}) == len(
        columns
    )  # none is another one, or its reverse
    assert len(set(map(tuple, table.tolist()))) == 10


def test_an_empty_folder_says_how_to_fetch(tmp_path: Path) -> None:
    for name in ("cifar10", "cifar100"):
        with pytest.raises(PrunescopeError, match=rf"{name}: .*download: true"):
            load_data(f"{name}:{tmp_path}")
