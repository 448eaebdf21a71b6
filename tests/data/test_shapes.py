from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_dilation, binary_erosion

from prunescope.core.errors import PrunescopeError
from prunescope.data.drawing import draw
from prunescope.data.duplicates import find_duplicates
from prunescope.data.shapes import CLASSES, CONCEPTS, CUE, RULE, Shapes, sample
from prunescope.data.split import Dataset, Split


@pytest.fixture(scope="module")
def data() -> Dataset:
    return Shapes(train=512, val=100, test=256, size=48).load()


def concept(split: Split, name: str) -> np.ndarray:
    assert split.concepts is not None
    return split.concepts[:, split.concept_names.index(name)].numpy().astype(bool)


def test_the_stated_rule_gives_the_labels(data: Dataset) -> None:
    rules = dict(part.split(" = ") for part in RULE.split("; "))
    assert tuple(rules) == data.classes == CLASSES
    for split in (data.train, data.val, data.test):
        known = {name: concept(split, name) for name in split.concept_names}
        for label, rule in enumerate(rules.values()):
            expression = re.sub(r"\bor\b", "|", re.sub(r"\band\b", "&", rule))
            np.testing.assert_array_equal(eval(expression, {}, known), split.labels.numpy() == label)


def test_causes_in_info_say_the_same_as_the_rule(data: Dataset) -> None:
    info = json.loads(json.dumps(data.info))
    for label, name in enumerate(data.classes):
        holds = [np.any([concept(data.test, c) for c in group], 0) for group in info["causes"][name]]
        np.testing.assert_array_equal(np.all(holds, 0), data.test.labels.numpy() == label)
    named = info["causal_concepts"] + info["spurious_concepts"] + info["irrelevant_concepts"]
    assert sorted(named) == sorted(CONCEPTS)
    assert info["spurious_concepts"] == [CUE]
    assert len(CONCEPTS) >= 12


def test_exactly_one_of_each_kind_holds(data: Dataset) -> None:
    kinds = [
        ("circle", "square", "triangle", "star"),
        ("plain", "striped", "dotted"),
        ("red", "green", "blue", "yellow"),
        ("cloudy background", "tiled background", "lined background"),
    ]
    for names in kinds:
        assert (sum(concept(data.train, name).astype(int) for name in names) == 1).all()


def test_classes_are_balanced_and_every_concept_is_common_enough_to_learn(data: Dataset) -> None:
    assert torch.bincount(data.train.labels).tolist() == [128] * 4
    assert data.train.concepts is not None
    share = data.train.concepts.double().mean(0)
    assert float(share.min()) > 0.15
    assert float(share.max()) < 0.85


def test_what_does_not_cause_the_class_is_independent_of_it() -> None:
    labels, _, facts = sample(3, 0.0, n=4096)
    for name in Shapes()._info()["irrelevant_concepts"] + [CUE]:
        present = facts[:, CONCEPTS.index(name)]
        share = [present[labels == k].mean() for k in range(4)]
        assert max(share) - min(share) < 0.08, name


@pytest.mark.parametrize("strength", [-1.0, -0.5, 0.0, 0.6, 1.0])
def test_cue_strength_is_the_correlation_of_the_tag_with_patterned_classes(strength: float) -> None:
    _, _, facts = sample(0, strength, n=8192)
    tag, plain = facts[:, CONCEPTS.index(CUE)], facts[:, CONCEPTS.index("plain")]
    assert np.corrcoef(tag, 1 - plain)[0, 1] == pytest.approx(strength, abs=0.03)
    assert (tag == 1 - plain).mean() == pytest.approx((1 + strength) / 2, abs=0.015)


def test_the_cue_misleads_in_train_and_val_and_says_nothing_in_test() -> None:
    data = Shapes(train=128, val=64, test=512, size=16, cue_strength=1.0).load()
    for split in (data.train, data.val):
        np.testing.assert_array_equal(concept(split, CUE), ~concept(split, "plain"))
    assert abs(np.corrcoef(concept(data.test, CUE), concept(data.test, "plain"))[0, 1]) < 0.1


@pytest.mark.parametrize("size", [16, 32, 64])
def test_masks_are_the_pixels_that_change_with_the_object(size: int) -> None:
    _, scenes, _ = sample(1, 0.5, n=48)
    images, masks = draw(scenes, size)
    other = replace(scenes, objects=replace(scenes.objects, colour=(scenes.objects.colour + 1) % 4))
    changed = (draw(other, size)[0] != images).any(1)
    near = binary_dilation(masks, np.ones((1, 3, 3), bool))
    assert (changed & ~near).sum() < 0.01 * masks.sum()  # tips, thinner than a pixel
    assert not (changed & ~binary_dilation(masks, np.ones((1, 3, 3), bool), iterations=2)).any()
    assert (changed & masks).sum() > 0.98 * masks.sum()


def test_the_tag_changes_only_its_corner_and_never_touches_the_object() -> None:
    _, scenes, facts = sample(2, 0.5, n=256)
    images, masks = draw(scenes, 32)
    changed = (draw(replace(scenes, tag=~scenes.tag), 32)[0] != images).any(1)
    assert changed[:, -4:, -4:].all()
    assert not changed[:, :-5].any()
    assert not changed[:, :, :-5].any()
    assert not (changed & masks).any()
    corner = images[:, :, -4:, -4:].min(axis=(1, 2, 3)) > 240
    np.testing.assert_array_equal(corner, facts[:, CONCEPTS.index(CUE)].astype(bool))


def test_masks_lie_where_the_position_concepts_say_and_are_as_large_as_the_size_says(data: Dataset) -> None:
    assert data.train.masks is not None
    masks = data.train.masks.numpy()
    middle = (48 - 1) / 2
    columns, rows = masks.any(1) * np.arange(48), masks.any(2) * np.arange(48)
    weight = masks.sum((1, 2))
    x = (masks.sum(1) * np.arange(48)).sum(1) / weight
    y = (masks.sum(2) * np.arange(48)).sum(1) / weight
    np.testing.assert_array_equal(x < middle, concept(data.train, "left"))
    np.testing.assert_array_equal(y < middle, concept(data.train, "top"))
    assert columns.max() < 48 - 1  # no object is cut off
    assert rows.max() < 48 - 1
    large = concept(data.train, "large")
    for shape in ("circle", "square", "triangle", "star"):
        here = concept(data.train, shape)
        assert weight[here & large].min() > 1.4 * weight[here & ~large].max()


def test_pixels_of_plain_objects_have_the_colour_that_is_named(data: Dataset) -> None:
    assert data.train.masks is not None
    images, masks = data.train.images[:].numpy(), data.train.masks.numpy()
    plain = concept(data.train, "plain")
    for i in np.flatnonzero(plain):
        red, green, blue = images[i][:, masks[i]].astype(float).mean(1)
        seen = "blue" if blue > max(red, green) else "yellow" if min(red, green) > 2 * blue else None
        seen = seen or ("red" if red > green else "green")
        assert concept(data.train, seen)[i]


def test_patterned_objects_have_two_tones_and_plain_ones_one(data: Dataset) -> None:
    assert data.train.masks is not None
    images, masks = data.train.images[:].numpy().astype(float), data.train.masks.numpy()
    inner = binary_erosion(masks, np.ones((1, 3, 3), bool), iterations=2)
    spread = np.array([np.ptp(images[i][:, inner[i]], axis=1).max() if inner[i].any() else np.nan for i in range(512)])
    plain = concept(data.train, "plain")
    assert np.nanmedian(spread[~plain]) > 2 * np.nanmax(spread[plain])


def test_equal_seeds_give_equal_pixels_and_other_seeds_others() -> None:
    small = {"train": 70, "val": 8, "test": 8, "size": 16}
    a, b, c = Shapes(**small).load(), Shapes(**small).load(), Shapes(**small, seed=1).load()
    assert a.fingerprint == b.fingerprint != c.fingerprint
    longer = Shapes(**{**small, "train": 140}).load()
    assert torch.equal(longer.train.images[:70], a.train.images[:])
    assert torch.equal(longer.train.labels[:70], a.train.labels)
    assert longer.val.ids.tolist() == a.val.ids.tolist()
    assert a.train.ids[12] == "shapes-train-00012"


def test_drawing_leaves_the_global_generators_alone() -> None:
    torch_before, numpy_before = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    Shapes(train=4, val=4, test=4, size=16).load()
    assert torch.equal(torch.random.get_rng_state(), torch_before)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_before)  # noqa: NPY002


def test_splits_share_no_image_and_one_normalisation(data: Dataset) -> None:
    assert find_duplicates(data) == []
    assert data.train.normalisation == data.val.normalisation == data.test.normalisation
    assert data.train.shape == (3, 48, 48)


@pytest.mark.parametrize(
    "options", [{"train": 0}, {"size": 8}, {"size": 1000}, {"cue_strength": 1.5}, {"test_cue_strength": -2}]
)
def test_impossible_options_are_refused(options: dict) -> None:
    with pytest.raises(PrunescopeError, match=next(iter(options))):
        Shapes(**options)
