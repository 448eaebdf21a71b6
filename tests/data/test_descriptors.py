"""Descriptors of drawn lesions against what was drawn, closed forms, OpenCV and a search of all thresholds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunescope.data.descriptors import DESCRIPTORS, NAMES, binarise, describe, describe_images, lab, shape
from prunescope.data.segmentation import otsu, segment

SIDE = 96
SKIN = (225, 175, 160)
BROWN = (110, 65, 50)


def ellipse(height: float, width: float, angle: float = 0.0, side: int = SIDE) -> np.ndarray:
    """Mask of an ellipse with these half axes, turned by `angle` (radians) about the middle."""
    y, x = np.indices((side, side)) - (side - 1) / 2
    u, v = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    return (u / width) ** 2 + (v / height) ** 2 <= 1


def painted(mask: np.ndarray, inside: tuple[int, ...] = BROWN, outside: tuple[int, ...] = SKIN) -> np.ndarray:
    image = np.where(mask, np.reshape(inside, (3, 1, 1)), np.reshape(outside, (3, 1, 1))).astype(float)
    return (image + np.random.default_rng(0).normal(0, 2, image.shape)).clip(0, 255).astype(np.uint8)


def value(image: np.ndarray, name: str) -> float:
    return describe(image)[[d.name for d in DESCRIPTORS].index(name)]


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


@pytest.mark.parametrize("radius", [12, 20, 30, 40])
def test_a_disc_is_symmetric_smooth_and_round(radius: float) -> None:
    asymmetry, irregular, eccentricity, size = shape(ellipse(radius, radius))
    assert asymmetry < 0.03
    assert irregular < 0.05
    assert eccentricity < 0.1
    assert size == pytest.approx(np.pi * radius**2 / SIDE**2, rel=0.02)


@given(st.floats(0, np.pi), st.floats(0.3, 0.8))
def test_an_ellipse_has_its_eccentricity_at_every_angle(angle: float, ratio: float) -> None:
    asymmetry, irregular, eccentricity, _ = shape(ellipse(36 * ratio, 36, angle))
    assert eccentricity == pytest.approx(np.sqrt(1 - ratio**2), abs=0.02)
    assert asymmetry < 0.12  # pixels at the outline
    a, b = 36, 36 * ratio
    h = ((a - b) / (a + b)) ** 2
    perimeter = np.pi * (a + b) * (1 + 3 * h / (10 + np.sqrt(4 - 3 * h)))  # Ramanujan
    assert irregular == pytest.approx(1 - 4 * np.pi * np.pi * a * b / perimeter**2, abs=0.04)


def test_what_is_cut_off_makes_a_lesion_asymmetric_and_notches_make_it_irregular() -> None:
    disc = ellipse(30, 30)
    y, x = np.indices(disc.shape) - (SIDE - 1) / 2
    bite = disc & ~((x > 0) & (y > 0))
    star = np.hypot(x, y) < 30 + 6 * np.sin(9 * np.arctan2(y, x))
    assert shape(bite)[0] > 0.2 > 0.05 > shape(disc)[0]
    assert shape(star)[1] > 0.3 > 0.05 > shape(disc)[1]


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_turning_and_mirroring_change_no_shape(turns: int) -> None:
    blob = ellipse(20, 33, 0.4) | np.roll(ellipse(12, 12), (14, 20), (0, 1))
    for other in (np.rot90(blob, turns), blob[:, ::-1]):
        assert shape(other) == pytest.approx(shape(blob), abs=0.02)


@pytest.mark.parametrize("angle", [0.0, 0.7])
def test_the_lesion_is_found(angle: float) -> None:
    mask = ellipse(18, 28, angle)
    found = segment(painted(mask))
    assert found is not None
    assert iou(found.lesion, mask) > 0.85
    assert not (found.skin & mask).any()


def test_holes_hairs_and_the_black_edge_of_the_lens_do_not_mislead() -> None:
    mask, lens = ellipse(22, 22), ellipse(47, 47)
    image = painted(mask & ~ellipse(7, 7), inside=(185, 130, 115))
    image[:, :, 30] = 40  # a hair from top to bottom
    image[:, ~lens] = 5
    found = segment(image)
    assert found is not None
    assert iou(found.lesion, mask) > 0.8
    assert found.lesion[SIDE // 2, SIDE // 2]
    assert not found.skin[~lens].any()


def test_a_lesion_that_touches_the_edge_of_the_lens_ends_there() -> None:
    lens = ellipse(47, 47)
    image = painted(np.roll(ellipse(24, 24), (18, 18), (0, 1)))
    image[:, ~lens] = 5
    found = segment(image)
    assert found is not None
    assert not (found.lesion & ~lens).any()


def test_the_edge_of_the_image_counts_as_border() -> None:
    y, x = np.indices((SIDE, SIDE))
    half_disc = np.hypot(y - (SIDE - 1) / 2, x + 0.5) <= 35
    assert shape(half_disc)[1] == pytest.approx(1 - 2 * np.pi**2 / (np.pi + 2) ** 2, abs=0.03)


def test_bare_skin_has_no_values() -> None:
    uniform = np.full((3, SIDE, SIDE), 200, np.uint8)
    assert segment(uniform) is None
    assert np.isnan(describe(uniform)).all()


@given(st.lists(st.integers(0, 255), min_size=2, max_size=60))
def test_otsu_is_the_best_of_all_thresholds(values: list[int]) -> None:
    array = np.array(values, np.uint8)

    def between(threshold: int) -> float:
        low, high = array[array <= threshold].astype(float), array[array > threshold].astype(float)
        return len(low) * len(high) * (low.mean() - high.mean()) ** 2 if len(low) and len(high) else 0.0

    best = max(between(threshold) for threshold in range(256))
    assert between(otsu(array)) == pytest.approx(best)


def test_lab_is_opencvs() -> None:
    cv2 = pytest.importorskip("cv2")
    colours = np.random.default_rng(0).integers(0, 256, (50, 50, 3), np.uint8)
    expected = cv2.cvtColor(colours.astype(np.float32) / 255, cv2.COLOR_RGB2Lab)
    assert np.abs(lab(colours.transpose(2, 0, 1)).transpose(1, 2, 0) - expected).max() < 0.5


def test_colours_are_seen() -> None:
    mask = ellipse(28, 28)
    plain = painted(mask)
    half = np.where(np.arange(SIDE) < SIDE // 2, painted(mask), painted(mask, (25, 20, 20)))
    assert value(plain, "many colours") < 1.1
    assert value(half, "many colours") == pytest.approx(2, abs=0.3)
    assert value(half, "colour variegated") > 3 * value(plain, "colour variegated")
    assert value(half, "colour asymmetric") > 3 * value(plain, "colour asymmetric")
    assert value(painted(mask, (95, 105, 130)), "blue-white area") > 0.9
    assert value(plain, "blue-white area") < 0.05
    assert value(painted(mask, (180, 120, 150)), "blue-white area") < 0.05  # bluish, but hardly darker than the skin
    assert value(painted(mask, (60, 35, 30)), "dark") > value(plain, "dark") > 20
    assert value(painted(mask, (190, 80, 80)), "red") > value(plain, "red") + 10


def test_lightness_of_the_skin_is_that_of_the_skin() -> None:
    image = painted(ellipse(20, 20))
    expected = float(lab(np.array(SKIN, np.uint8))[0])
    assert value(image, "skin light") == pytest.approx(expected, abs=1)


def test_hair_structure_and_soft_borders_are_seen() -> None:
    from scipy import ndimage

    mask = ellipse(24, 24)
    plain = painted(mask)
    hairy = plain.copy()
    hairy[:, 4::16, :] = 60
    assert value(hairy, "hair") > value(plain, "hair") + 0.03
    dotted = plain.copy()
    dotted[:, ::4, ::4] = np.where(mask[::4, ::4], 30, dotted[:, ::4, ::4])
    assert value(dotted, "fine structure") > 1.5 * value(plain, "fine structure")
    soft = ndimage.gaussian_filter(plain, (0, 5, 5))
    assert value(soft, "border sharp") < 0.8 * value(plain, "border sharp")


def test_many_images_are_described_in_order() -> None:
    images = np.stack([painted(ellipse(radius, 24)) for radius in (10, 16, 24)])
    table = describe_images(images)
    assert table.dtype == np.float32
    assert table == pytest.approx(np.array([describe(image) for image in images]), rel=1e-6)
    assert table[:, 2].tolist() == sorted(table[:, 2], reverse=True)


def test_thresholds_come_from_the_training_rows_only() -> None:
    values = np.random.default_rng(0).normal(size=(400, len(NAMES))).astype(np.float32)
    values[7, 3] = np.nan
    train = np.arange(0, 400, 2)
    labels, thresholds = binarise(values, train)
    changed = values.copy()
    changed[1::2] += 100
    assert binarise(changed, train)[1] == thresholds
    assert labels[7, 3] == -1
    assert list(thresholds) == list(NAMES)
    shares = (labels[::2] == 1).float().mean(0).numpy()
    assert shares == pytest.approx([1 - d.quantile for d in DESCRIPTORS], abs=0.01)
