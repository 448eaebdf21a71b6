from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import rotate as scipy_rotate
from torch import Tensor

from prunescope.core.compat import torchvision_module
from prunescope.core.errors import PrunescopeError
from prunescope.data.augment import Augmentation, crop, mirror, recolour, rotate

EVERYTHING = Augmentation(2, True, True, 20.0, 0.3, 0.3, 0.3)


def batch(n: int = 8, channels: int = 3, height: int = 10, width: int = 14, seed: int = 0) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randint(256, (n, channels, height, width), dtype=torch.uint8, generator=random)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@settings(deadline=None)
@given(st.integers(0, 3), st.integers(1, 5), st.integers(1, 6), st.integers(0, 9), st.data())
def test_crop_equals_padding_and_slicing_each_image(p: int, height: int, width: int, seed: int, data) -> None:
    images = batch(4, 2, height, width, seed)
    corners = st.lists(st.integers(0, 2 * p), min_size=4, max_size=4).map(torch.tensor)
    top, left = data.draw(corners), data.draw(corners)
    got = crop(images, top, left, p)
    for i in range(4):
        padded = F.pad(images[i], (p, p, p, p))
        assert torch.equal(got[i], padded[:, top[i] : top[i] + height, left[i] : left[i] + width])


def test_mirror_flips_the_named_images_only() -> None:
    images = batch(5)
    which = torch.tensor([True, False, True, False, False])
    for axis in (2, 3):
        naive = torch.stack([x.flip(axis - 1) if w else x for x, w in zip(images, which, strict=True)])
        assert torch.equal(mirror(images, which, axis), naive)
        assert torch.equal(mirror(mirror(images, which, axis), which, axis), images)


@pytest.mark.parametrize(("height", "width"), [(11, 11), (12, 12), (9, 15), (16, 10)])
def test_rotate_equals_scipy_image_by_image(height: int, width: int) -> None:
    images = batch(6, 3, height, width)
    degrees = torch.tensor([0.0, 10.0, -10.0, 33.0, -75.0, 150.0])
    got = rotate(images, degrees).numpy()
    for i, angle in enumerate(degrees.tolist()):
        for channel in range(3):
            plane = images[i, channel].numpy().astype(np.float64)
            expected = scipy_rotate(plane, angle, reshape=False, order=1, mode="reflect")
            np.testing.assert_allclose(got[i, channel], expected, atol=0.51)


def test_quarter_turns_are_exact_and_counter_clockwise() -> None:
    images = batch(3, 3, 12, 12)
    got = rotate(images, torch.tensor([90.0, 180.0, -90.0]))
    expected = torch.stack([torch.rot90(x, k, (1, 2)) for x, k in zip(images, (1, 2, 3), strict=True)])
    assert (got.int() - expected.int()).abs().max() <= 1


def test_recolour_equals_torchvision_image_by_image() -> None:
    tv = torchvision_module("torchvision.transforms.functional")
    images = batch(6)
    b, c, s = (torch.tensor(f) for f in ([1, 0.6, 1.4, 1, 1, 0.7], [1, 1, 0.5, 1.5, 1, 1.3], [1, 1, 1, 0.4, 1.6, 0.0]))
    got = recolour(images, b, c, s)
    for i in range(6):
        x = images[i].float() / 255
        x = tv.adjust_brightness(x, float(b[i]))
        x = tv.adjust_contrast(x, float(c[i]))
        x = tv.adjust_saturation(x, float(s[i]))
        np.testing.assert_allclose(got[i].numpy(), x.numpy() * 255, atol=0.6)
    assert torch.equal(got[0], images[0])


def test_grey_images_keep_their_saturation() -> None:
    images = batch(3, channels=1)
    ones = torch.ones(3)
    assert torch.equal(recolour(images, ones, ones, ones * 0.2), images)


def test_doing_nothing_returns_the_images_and_draws_nothing() -> None:
    images, random = batch(), generator()
    before = random.get_state()
    assert Augmentation()(images, random) is images
    assert torch.equal(random.get_state(), before)


@pytest.mark.parametrize(
    "augment",
    [
        EVERYTHING,
        Augmentation(crop_padding=3),
        Augmentation(flip=True),
        Augmentation(vertical_flip=True),
        Augmentation(rotation=30),
        Augmentation(brightness=0.5),
        Augmentation(contrast=0.5),
        Augmentation(saturation=0.5),
    ],
)
def test_each_image_gets_its_own_draw_from_the_generator_alone(augment: Augmentation) -> None:
    images = batch(1).repeat(32, 1, 1, 1)
    kept, state = images.clone(), torch.random.get_rng_state()
    first, again, other = (augment(images, generator(seed)) for seed in (0, 0, 1))
    assert first.dtype == torch.uint8
    assert first.shape == images.shape
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert len({image.numpy().tobytes() for image in first}) > 1
    assert torch.equal(images, kept)
    assert torch.equal(torch.random.get_rng_state(), state)


@settings(deadline=None)
@given(st.integers(0, 1000))
def test_crops_and_flips_invent_no_value_and_move_less_than_the_padding(seed: int) -> None:
    images = torch.arange(1, 31, dtype=torch.uint8).view(1, 1, 5, 6).repeat(8, 1, 1, 1)
    for image in Augmentation(crop_padding=2)(images, generator(seed)):
        known = image[image > 0]
        assert len(known.unique()) == len(known) >= (5 - 2) * (6 - 2)
        rows, columns = torch.nonzero(image[0], as_tuple=True)
        shift = (known.long() - 1) // 6 - rows, (known.long() - 1) % 6 - columns
        assert all(len(move.unique()) == 1 and int(move[0].abs()) <= 2 for move in shift)
    for image in Augmentation(flip=True, vertical_flip=True)(images, generator(seed)):
        assert torch.equal(image.flatten().sort().values, images[0].flatten())


def test_all_crops_and_flips_come_up_equally_often() -> None:
    images = torch.arange(1, 10, dtype=torch.uint8).view(1, 1, 3, 3).repeat(9000, 1, 1, 1)
    corners = Augmentation(crop_padding=1)(images, generator())[:, 0, 1, 1]  # the middle shows where the crop lies
    counts = torch.bincount(corners.long(), minlength=10)[1:]
    assert (counts - 1000).abs().max() < 150  # 5 standard deviations
    for augment, corner in [(Augmentation(flip=True), 3), (Augmentation(vertical_flip=True), 7)]:
        first = augment(images, generator())[:, 0, 0, 0]
        assert set(first.tolist()) == {1, corner}
        assert abs(int((first == corner).sum()) - 4500) < 240


@pytest.mark.parametrize("limit", [10.0, 45.0])
def test_rotations_and_factors_stay_within_their_limits(limit: float) -> None:
    images = torch.zeros(300, 1, 33, 33, dtype=torch.uint8)
    images[:, :, 16, 16:] = 255  # a hand of a clock that points to the right
    turned = Augmentation(rotation=limit)(images, generator())[:, 0].double().numpy()
    y, x = np.mgrid[16:-17:-1, -16:17]
    far = np.hypot(x, y) > 8
    weight = turned * (far & (np.hypot(x, y) < 14))
    angle = np.degrees(np.arctan2((weight * y).sum((1, 2)), (weight * x).sum((1, 2))))
    assert np.abs(angle).max() < limit + 1
    assert np.abs(angle).max() > 0.9 * limit
    assert abs(angle.mean()) < limit / 5


def test_brightness_factors_cover_their_range() -> None:
    images = torch.full((2000, 1, 1, 1), 100, dtype=torch.uint8)
    seen = Augmentation(brightness=0.4)(images, generator()).flatten().tolist()
    assert (min(seen), max(seen)) == (60, 140)


@pytest.mark.parametrize(
    "options", [{"crop_padding": -1}, {"rotation": 181}, {"brightness": -0.1}, {"contrast": 2}, {"saturation": 1.1}]
)
def test_impossible_options_are_refused(options: dict) -> None:
    with pytest.raises(PrunescopeError, match=next(iter(options))):
        Augmentation(**options)
