"""Labels of pixels: kept compactly, taken along by subsets, read from PNGs and COCO files."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torch import Tensor

from prunescope.core.errors import PrunescopeError
from prunescope.data.coco import counts_of, mask_of, polygon, run_lengths
from prunescope.data.load import load_data
from prunescope.data.segments import Segments
from prunescope.data.shapes import Shapes
from prunescope.data.split import Dataset, Split

SHAPES = {"train": 100, "val": 64, "test": 70, "size": 32}


def some(n: int = 9, k: int = 12, seed: int = 0) -> Tensor:
    return torch.rand(n, k, 5, 4, generator=torch.Generator().manual_seed(seed)) < 0.3


def names(k: int) -> tuple[str, ...]:
    return tuple(f"c{i}" for i in range(k))


# -- the type


@pytest.mark.parametrize("k", [1, 8, 12])
def test_masks_come_back_as_they_went_in(k: int) -> None:
    masks = some(k=k)
    segments = Segments.of(masks, names(k))
    assert torch.equal(segments[:], masks)
    assert torch.equal(segments[torch.tensor([3, 1])], masks[[3, 1]])
    assert torch.equal(segments.pixels(), masks.sum((0, 2, 3)))
    assert torch.equal(segments.areas(), masks.sum((2, 3)))
    assert segments.labelled() == 9 * 20
    assert len(segments.coded.table) == len({tuple(row) for row in masks.movedim(1, 3).reshape(-1, k).tolist()})


def test_the_smallest_type_that_holds_all_sets_is_used() -> None:
    assert Segments.of(some(k=3), names(3)).coded.codes.dtype == torch.uint8
    many = torch.rand(40, 12, 8, 8, generator=torch.Generator().manual_seed(1)) < 0.5
    segments = Segments.of(many, names(12))
    assert segments.coded.codes.dtype == torch.int16
    assert torch.equal(segments[:], many)


def test_subsets_of_subsets_are_taken_without_reading_and_all_is_read_once() -> None:
    calls = []
    inner = Segments.of(some(), names(12))

    def make() -> Any:
        calls.append(1)
        return inner.coded

    segments = replace(inner, make=make)
    first, second = segments.subset(torch.tensor([4, 0, 2])), segments.subset(torch.tensor([8]))
    again = first.subset(torch.tensor([2, 1]))
    assert len(first) == 3
    assert not calls
    assert torch.equal(again[:], some()[[2, 0]])
    assert torch.equal(second[:], some()[[8]])
    assert torch.equal(first[:], some()[[4, 0, 2]])
    assert len(calls) == 1


def test_a_split_takes_its_labels_along_and_names_them_in_its_fingerprint() -> None:
    split = Split(
        torch.zeros(9, 1, 5, 4, dtype=torch.uint8), torch.arange(9) % 2, np.arange(9).astype(str), ("a", "b"),
        segments=Segments.of(some(), names(12)),
    )  # fmt: skip
    part = split.subset([5, 1])
    assert part.segments is not None
    assert torch.equal(part.segments[:], some()[[5, 1]])
    bare = replace(split, segments=None)
    assert bare.fingerprint == "3f09b44028e64065"  # as before there were such labels
    changed = some()
    changed[0, 0, 0, 0] ^= True
    prints = {
        bare.fingerprint, split.fingerprint, replace(split, segments=Segments.of(changed, names(12))).fingerprint,
        replace(split, segments=Segments.of(some(), names(12)[::-1])).fingerprint,
    }  # fmt: skip
    assert len(prints) == 4
    assert replace(split, segments=Segments.of(some(), names(12))).fingerprint == split.fingerprint


def test_labels_of_another_size_or_number_are_refused() -> None:
    images, labels, ids = torch.zeros(9, 1, 5, 5, dtype=torch.uint8), torch.arange(9) % 2, np.arange(9).astype(str)
    with pytest.raises(PrunescopeError, match="segments label 5 x 4 pixels, but images have 5 x 5"):
        Split(images, labels, ids, ("a", "b"), segments=Segments.of(some(), names(12)))
    with pytest.raises(PrunescopeError, match="9 images cannot have 8 segments"):
        Split(images, labels, ids, ("a", "b"), segments=Segments.of(torch.ones(8, 1, 5, 5, dtype=torch.bool), ["x"]))
    with pytest.raises(PrunescopeError, match=r"shape \(9, 12, 5, 4\), but there are 2 names"):
        Segments.of(some(), ["a", "b"])
    with pytest.raises(PrunescopeError, match="concept 'a' twice"):
        Segments.of(some(k=2), ["a", "a"])
    with pytest.raises(PrunescopeError, match="2 concepts, but 1 categories"):
        Segments.of(some(k=2), ["a", "b"], ["x"])


# -- shapes


def test_drawn_labels_agree_with_the_images_and_their_concepts() -> None:
    data = Shapes(**SHAPES).load()
    split = data.test
    assert split.segments is not None
    assert split.masks is not None
    assert split.concepts is not None
    masks, known = split.segments[:], split.segments.names
    shown = dict(zip(known, masks.unbind(1), strict=True))
    assert torch.equal(shown["object"], split.masks)
    for name in ("circle", "star", "striped", "plain", "red", "yellow"):  # of the object, the others are distractors
        here = (shown[name] & split.masks).flatten(1)
        labelled = split.concepts[:, split.concept_names.index(name)].bool()
        assert torch.equal(here.any(1), labelled)
        assert torch.equal(here[labelled], split.masks.flatten(1)[labelled])
    tagged = split.concepts[:, split.concept_names.index("corner tag")].bool()
    assert torch.equal(shown["corner tag"].flatten(1).any(1), tagged)
    corner = split.images[:].amin(1) > 240
    assert torch.equal(shown["corner tag"][tagged], (shown["corner tag"] & corner)[tagged])
    for category, count in (("background", 1), ("thing", 1), ("shape", 1), ("colour", 1), ("texture", 1)):
        of = masks[:, [own == category for own in split.segments.categories]].sum(1)
        assert int(of.max()) == count
    total = masks[:, [own in ("background", "thing", "tag") for own in split.segments.categories]].sum(1)
    assert bool((total == 1).all())


def test_red_pixels_are_red() -> None:
    data = Shapes(**{**SHAPES, "size": 64}).load().train
    assert data.segments is not None
    masks = dict(zip(data.segments.names, data.segments[:].unbind(1), strict=True))
    red, green, blue = data.images[:].float().unbind(1)
    plain = masks["plain"]
    inner = -torch.nn.functional.max_pool2d(-plain.float()[:, None], 5, 1, 2)[:, 0] > 0
    for name, found in (("red", red - green), ("blue", blue - red), ("green", green - red)):
        assert float(found[masks[name] & inner].median()) > 60


def test_drawing_them_changes_no_fingerprint_and_more_images_change_none() -> None:
    small, large = Shapes(**SHAPES).load(), Shapes(**{**SHAPES, "test": 140}).load()
    assert small.test.segments is not None
    assert large.test.segments is not None
    assert torch.equal(small.test.segments[:], large.test.segments[:70])
    assert replace(small.test, segments=None).fingerprint == small.test.fingerprint
    assert Shapes(seed=1, train=64, val=32, test=32, size=16).load().fingerprint == "20460a0cd429a895"
    again: Dataset = pickle.loads(pickle.dumps(small))
    assert again.test.segments is not None
    assert torch.equal(again.test.segments[:], small.test.segments[:])


# -- files

COUNTS = {"cat": 5, "dog": 5}
NAMES = ("background", "fur", "ear,part", "tail,part")


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """12 x 20 images in folders of classes, and PNGs with a palette; two rows are not labelled."""
    random = np.random.default_rng(0)
    for label, (name, count) in enumerate(COUNTS.items()):
        for place in ("images", "labels"):
            (tmp_path / place / name).mkdir(parents=True)
        for i in range(count):
            pixels = random.integers(0, 256, (12, 20, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{i}.png")
            values = random.integers(0, 3 + label, (12, 20), dtype=np.uint8)
            values[:2] = 255
            Image.fromarray(values).save(tmp_path / "labels" / name / f"{i}.png")
    (tmp_path / "labels" / "names.txt").write_text("\n".join(NAMES) + "\n")
    return tmp_path


def load(pets: Path, **options: object) -> Dataset:
    return load_data({
        "name": "folder", "root": pets / "images", "segments": pets / "labels", "size": 12, "cache": False, **options,
    })  # fmt: skip


def test_a_folder_of_pngs_labels_the_pixels_of_a_folder_of_classes(pets: Path) -> None:
    data = load(pets)
    segments = data.train.segments
    assert segments is not None
    assert segments.names == ("fur", "ear", "tail")
    assert segments.categories == ("object", "part", "part")
    for row, file in enumerate(data.train.ids.tolist()):
        values = np.asarray(Image.open(pets / "labels" / file))[:, 4:16]  # the middle
        for k in range(3):
            np.testing.assert_array_equal(segments[:][row, k].numpy(), values == k + 1)
    assert segments.labelled() == len(data.train) * 10 * 12


def test_labels_are_cut_and_resized_as_their_images_are(pets: Path) -> None:
    """An image in which every pixel's value is its label stays so: to the nearest pixel, in blocks of 4."""
    for folder in ("images", "labels"):
        for path in (pets / folder).rglob("*.png"):
            path.unlink()
    random = np.random.default_rng(1)
    for name, count in COUNTS.items():
        for i in range(count):
            blocks = random.integers(0, 4, (3, 5), dtype=np.uint8).repeat(12, 0).repeat(12, 1)
            Image.fromarray(blocks * 60).save(pets / "images" / name / f"{i}.png")
            Image.fromarray(blocks).save(pets / "labels" / name / f"{i}.png")
    data = load(pets, size=9, channels=1)
    assert data.train.segments is not None
    seen = data.train.images[:][:, 0]
    for k in range(3):
        masks = data.train.segments[:][:, k]
        inside = masks[:, 1::3, 1::3]  # the middles of blocks, far from what resizing mixes
        assert torch.equal(inside, (seen[:, 1::3, 1::3].float() / 60).round() == k + 1)
    half = load(pets, size=7)
    assert half.train.segments is not None
    values = Image.open(pets / "labels" / str(half.train.ids[0]))
    expected = np.asarray(ImageOps.fit(values, (7, 7), Image.Resampling.NEAREST))
    for k in range(3):
        np.testing.assert_array_equal(half.train.segments[:][0, k].numpy(), expected == k + 1)


def test_palettes_and_flat_folders_are_read_alike(pets: Path) -> None:
    segments = load(pets).train.segments
    assert segments is not None
    before = segments[:]
    flat = pets / "flat"
    flat.mkdir()
    for path in (pets / "images").rglob("*.png"):
        path.rename(path.with_name(f"{path.parent.name}{path.name}"))
    for path in (pets / "labels").rglob("*.png"):
        coloured = Image.fromarray(np.asarray(Image.open(path)))
        coloured.putpalette(np.random.default_rng(0).integers(0, 256, 768, dtype=np.uint8).tolist())
        assert coloured.mode == "P"
        coloured.save(flat / f"{path.parent.name}{path.name}")
    after = load(pets, segments=flat, segment_names=pets / "labels" / "names.txt")
    assert after.train.segments is not None
    assert torch.equal(before, after.train.segments[:])


def test_changed_labels_change_the_fingerprint(pets: Path) -> None:
    bare = load(pets, segments=None).fingerprint
    before = load(pets).fingerprint
    path = next((pets / "labels").rglob("*.png"))
    values = np.asarray(Image.open(path)).copy()
    values[5, 10] = (values[5, 10] + 1) % 3
    Image.fromarray(values).save(path)
    assert len({bare, before, load(pets).fingerprint}) == 3


def spoil(pets: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    path = pets / "labels" / "cat" / "0.png"
    Image.fromarray(change(np.asarray(Image.open(path)).copy())).save(path)


def masks_of(data: Dataset) -> None:
    assert data.train.segments is not None
    data.train.segments[:]


def test_bad_label_files_are_named(pets: Path) -> None:
    spoil(pets, lambda values: values[:, :19])
    with pytest.raises(PrunescopeError, match=r"0.png labels 19 x 12 pixels, but image .*0.png has 20 x 12"):
        masks_of(load(pets))
    spoil(pets, lambda _: np.full((12, 20), 7, np.uint8))
    with pytest.raises(PrunescopeError, match=r"0.png has the value 7, but there are 4 names"):
        masks_of(load(pets))
    spoil(pets, lambda values: np.stack([values] * 3, -1))
    with pytest.raises(PrunescopeError, match="palette or grey PNG, got mode RGB"):
        masks_of(load(pets))
    (pets / "labels" / "cat" / "0.png").write_bytes(b"no picture")
    with pytest.raises(PrunescopeError, match="cannot read labels of pixels"):
        masks_of(load(pets))
    (pets / "labels" / "cat" / "0.png").unlink()
    with pytest.raises(PrunescopeError, match=r"1 images have no PNG in .*: cat/0.png"):
        load(pets)
    with pytest.raises(PrunescopeError, match="no folder and no COCO file"):
        load(pets, segments=pets / "nowhere")
    with pytest.raises(PrunescopeError, match="segment_names needs segments"):
        load(pets, segments=None, segment_names=pets / "labels" / "names.txt")
    (pets / "labels" / "names.txt").write_text("\n")
    with pytest.raises(PrunescopeError, match="names no concept"):
        load(pets)


# -- COCO


def rle(mask: np.ndarray) -> list[int]:
    """Lengths of runs, column by column, by a loop."""
    counts, value = [0], False
    for pixel in mask.T.ravel().tolist():
        if pixel != value:
            counts.append(0)
            value = pixel
        counts[-1] += 1
    return counts


def text_of(counts: list[int]) -> str:
    """COCO's text of run lengths, as its own library writes it."""
    made = ""
    for i, count in enumerate(counts):
        x = count - counts[i - 2] if i > 2 else count
        more = True
        while more:
            bits = x & 0x1F
            x >>= 5
            more = x != -1 if bits & 0x10 else x != 0
            made += chr((bits | 0x20 if more else bits) + 48)
    return made


@pytest.mark.parametrize("seed", range(6))
def test_run_lengths_in_both_ways_are_the_mask(seed: int) -> None:
    random = np.random.default_rng(seed)
    mask = np.zeros((37, 53), bool)
    for _ in range(3):
        top, left = random.integers(0, 30, 2)
        mask[top : top + random.integers(1, 30), left : left + random.integers(1, 30)] ^= True
    mask[0, 0] = seed % 2
    counts = rle(mask)
    assert counts_of(text_of(counts)) == counts
    np.testing.assert_array_equal(run_lengths(counts, 37, 53), mask)
    np.testing.assert_array_equal(mask_of({"size": [37, 53], "counts": text_of(counts)}, 37, 53), mask)


def inside(points: np.ndarray, x: float, y: float) -> bool:
    """Ray casting, one point and one edge at a time."""
    found = False
    for (x1, y1), (x2, y2) in zip(points, np.roll(points, -1, axis=0), strict=True):
        if (y1 <= y) != (y2 <= y) and x1 + (y - y1) / (y2 - y1) * (x2 - x1) <= x:
            found = not found
    return found


@pytest.mark.parametrize("seed", range(6))
def test_polygons_are_the_pixels_whose_middle_lies_within(seed: int) -> None:
    random = np.random.default_rng(seed)
    points = random.uniform(-3, 20, (random.integers(3, 9), 2))
    expected = [[inside(points, x + 0.5, y + 0.5) for x in range(18)] for y in range(13)]
    np.testing.assert_array_equal(polygon(points, 13, 18), expected)


@pytest.fixture
def coco(pets: Path) -> Path:
    """Polygons, run lengths in both ways and an image without instances."""
    square, mask = [4, 2, 16, 2, 16, 6, 4, 6], np.zeros((12, 20), bool)
    mask[6:9, 5:9] = True
    images, notes = [], []
    for number, path in enumerate(sorted((pets / "images").rglob("*.png"))):
        images.append({"id": number, "file_name": f"{path.parent.name}/{path.name}", "width": 20, "height": 12})
        if number == 0:
            continue
        notes += [
            {"image_id": number, "category_id": 17, "segmentation": [square, [4, 10, 8, 10, 8, 12, 4, 12]]},
            {"image_id": number, "category_id": 3, "segmentation": {"size": [12, 20], "counts": rle(mask)}},
            {"image_id": number, "category_id": 3, "segmentation": [[15, 0, 20, 0, 20, 12, 15, 12]]},
        ]
    kinds = [{"id": 3, "name": "ball", "supercategory": "toy"}, {"id": 17, "name": "cat", "supercategory": "animal"}]
    path = pets / "instances.json"
    path.write_text(json.dumps({"images": images, "annotations": notes, "categories": kinds}))
    return path


def test_coco_labels_the_pixels_of_a_folder_of_classes(pets: Path, coco: Path) -> None:
    data = load(pets, segments=coco)
    segments = data.train.segments
    assert segments is not None
    assert segments.names == ("ball", "cat")
    assert segments.categories == ("toy", "animal")
    ball, cat = np.zeros((12, 20), bool), np.zeros((12, 20), bool)
    cat[2:6, 4:16] = cat[10:, 4:8] = ball[6:9, 5:9] = ball[:, 15:] = True
    everything = {file: segments[:][i] for i, file in enumerate(data.train.ids.tolist())}
    assert len(everything) >= 2
    for file, masks in everything.items():
        empty = file == "cat/0.png"
        for found, expected in zip(masks.numpy(), (ball, cat), strict=True):
            np.testing.assert_array_equal(found, expected[:, 4:16] & (not empty))
    assert segments.labelled() == len(data.train) * 144


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda told: told.pop("categories"), "it has no 'categories'"),
        (lambda told: told["images"].pop(), "has no image 'dog/4.png'"),
        (lambda told: told["images"][1].update(width=21), "labels 21 x 12 pixels, but image"),
        (lambda told: told["annotations"][0].update(category_id=99), "it has no 99"),
        (lambda told: told["annotations"][1]["segmentation"].update(counts=[5]), "run lengths of 5 pixels"),
        (lambda told: told["annotations"][1]["segmentation"].update(size=[20, 12]), r"size \[20, 12\]"),
        (lambda told: told["annotations"][0].update(segmentation=[[1, 2, 3]]), "neither polygons nor run lengths"),
    ],
)
def test_bad_coco_files_are_named(pets: Path, coco: Path, change: Callable[[Any], object], told: str) -> None:
    content = json.loads(coco.read_text())
    change(content)
    coco.write_text(json.dumps(content))
    with pytest.raises(PrunescopeError, match=told):
        masks_of(load(pets, segments=coco))


def test_a_file_that_is_no_coco_file_is_named(pets: Path) -> None:
    (pets / "x.json").write_text("[1, 2")
    with pytest.raises(PrunescopeError, match=r"x.json is no COCO file of instances, it cannot be read"):
        load(pets, segments=pets / "x.json")
    with pytest.raises(PrunescopeError, match="names its categories itself"):
        load(pets, segments=pets / "x.json", segment_names=pets / "labels" / "names.txt")


# -- images without classes


def test_without_classes_the_largest_concept_is_the_class(pets: Path) -> None:
    for path in (pets / "labels").rglob("*.png"):
        values = np.zeros((12, 20), np.uint8)
        values[:8] = 1 + (path.parent.name == "dog")
        values[9:, :3] = 3
        Image.fromarray(values).save(path)
    spoil(pets, lambda values: np.zeros_like(values))
    spec = {"name": "segmented", "root": pets / "images", "segments": pets / "labels", "size": 12, "cache": False}
    data = load_data({**spec, "fewest": 4, "test_fraction": 0.3})
    assert data.classes == ("fur", "ear")
    assert data.info["left_out"] == 1
    assert sum(len(data[name]) for name in ("train", "val", "test")) == 9
    for name in ("train", "val", "test"):
        split = data[name]
        assert split.segments is not None
        areas = split.segments.areas()
        assert areas.argmax(1).tolist() == split.labels.tolist()
        assert [file.startswith("dog") for file in split.ids.tolist()] == split.labels.bool().tolist()
    with pytest.raises(PrunescopeError, match="fewer than two concepts are the largest of 6 images"):
        load_data({**spec, "fewest": 6})
    (pets / "labels" / "cat" / "0.png").unlink()
    assert load_data({**spec, "fewest": 4, "test_fraction": 0.3}).info["left_out"] == 0
    for options, told in (({"fewest": 2}, "at least 3"), ({"root": pets / "nowhere"}, "there is no folder")):
        with pytest.raises(PrunescopeError, match=told):
            load_data({**spec, **options})
    with pytest.raises(PrunescopeError, match=re.escape("has labels in")):
        load_data({**spec, "segments": pets / "flat"})


def test_masks_of_another_size_are_refused() -> None:
    images, labels = torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.zeros(2)
    masks = torch.zeros(2, 4, 5, dtype=torch.bool)
    with pytest.raises(PrunescopeError, match="masks label 4 x 5 pixels, but images have 4 x 4"):
        Split(images, labels, np.array(["a", "b"]), ("one",), masks=masks)
