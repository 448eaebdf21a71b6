from __future__ import annotations

from itertools import islice

import pytest
import torch

from prunescope.core.errors import PrunescopeError
from prunescope.data.augment import Augmentation
from prunescope.data.split import Normalisation, Split
from prunescope.data.training_batches import steps_per_epoch, training_batches

AUGMENT = Augmentation(crop_padding=2, flip=True, brightness=0.3)


def numbered(n: int, size: int = 4) -> Split:
    """Image i is filled with the value i and has the label i % 3."""
    images = torch.arange(n, dtype=torch.uint8).view(-1, 1, 1, 1).repeat(1, 2, size, size)
    return Split(
        images, torch.arange(n) % 3, [str(i) for i in range(n)], ("a", "b", "c"), Normalisation((0.2,), (0.5,))
    )


def epoch(split: Split, number: int = 0, seed: int = 0, **options) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return list(training_batches(split, batch_size=8, seed=seed, epoch=number, **options))


def test_an_epoch_shows_images_once_with_their_labels_and_normalised() -> None:
    batches = epoch(numbered(30))
    assert [len(y) for _, y in batches] == [8, 8, 8]
    x, y = torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])
    number = ((x[:, 0, 0, 0] * 0.5 + 0.2) * 255).round().long()
    assert len(number.unique()) == 24
    assert number.tolist() != sorted(number.tolist())
    assert torch.equal(y, number % 3)
    torch.testing.assert_close(x, (number.float() / 255 - 0.2).div(0.5).view(-1, 1, 1, 1).expand(-1, 2, 4, 4))
    assert batches[0][0].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("augment", [None, AUGMENT])
def test_any_batch_is_reached_without_the_ones_before(augment: Augmentation | None) -> None:
    split = numbered(50)
    whole = epoch(split, 3, augment=augment)
    for skip in range(len(whole) + 1):
        rest = epoch(split, 3, augment=augment, skip=skip)
        assert len(rest) == len(whole) - skip
        for (x, y), (x_whole, y_whole) in zip(rest, islice(whole, skip, None), strict=True):
            assert torch.equal(x, x_whole)
            assert torch.equal(y, y_whole)


def test_epochs_and_seeds_differ_in_order_and_augmentation() -> None:
    split = numbered(48)
    orders = {tuple(torch.cat([y for _, y in epoch(split, e, s)]).tolist()) for e in range(3) for s in range(3)}
    assert len(orders) == 9
    blank = Split(torch.full((8, 1, 6, 6), 9, dtype=torch.uint8), torch.zeros(8), [*"abcdefgh"], ("a",))
    pictures = {
        training_batch[0].numpy().tobytes()
        for e in range(4)
        for training_batch in epoch(blank, e, augment=Augmentation(crop_padding=3))
    }
    assert len(pictures) == 4


def test_without_change_of_batch_the_batches_of_one_epoch_are_augmented_differently() -> None:
    blank = Split(torch.full((16, 1, 6, 6), 9, dtype=torch.uint8), torch.zeros(16), [*"abcdefghijklmnop"], ("a",))
    first, second = epoch(blank, augment=Augmentation(crop_padding=3))
    assert not torch.equal(first[0], second[0])


def test_order_does_not_depend_on_augmentation_or_the_global_generator() -> None:
    split = numbered(40)
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    plain = [y.tolist() for _, y in epoch(split)]
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(2)
    assert [y.tolist() for _, y in epoch(split, augment=AUGMENT)] == plain


@pytest.mark.parametrize(("n", "steps", "length"), [(5, 1, 5), (8, 1, 8), (15, 1, 8), (16, 2, 8)])
def test_only_a_lonely_batch_may_be_short(n: int, steps: int, length: int) -> None:
    split = numbered(n)
    batches = epoch(split)
    assert len(batches) == steps == steps_per_epoch(split, 8)
    assert {len(y) for _, y in batches} == {length}


def test_no_images_and_no_batch_size_are_refused() -> None:
    with pytest.raises(PrunescopeError, match="without images"):
        epoch(numbered(0))
    with pytest.raises(PrunescopeError, match="batch_size"):
        steps_per_epoch(numbered(3), 0)
