from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from prunescope.core.errors import PrunescopeError
from prunescope.data.split import Dataset, Normalisation, Split


def make(n: int = 6, seed: int = 0) -> Split:
    random = torch.Generator().manual_seed(seed)
    return Split(
        images=torch.randint(256, (n, 3, 4, 6), dtype=torch.uint8, generator=random),
        labels=torch.arange(n) % 2,
        ids=np.array([f"i{k}" for k in range(n)]),
        classes=("cat", "dog"),
        concepts=torch.randint(-1, 2, (n, 3), generator=random).to(torch.int8),
        concept_names=("a", "b", "c"),
        masks=torch.rand(n, 4, 6, generator=random) < 0.5,
    )


@pytest.mark.parametrize("chunked", [False, True])
def test_normalisation_is_measured_per_channel_like_torch_does_it(chunked: bool) -> None:
    images = torch.randint(256, (700 if chunked else 5, 3, 4, 6), dtype=torch.uint8)
    images[:, 1] //= 3
    measured = Normalisation.of(images)
    sample = images.double().div(255).transpose(0, 1).reshape(3, -1)
    np.testing.assert_allclose(measured.mean, sample.mean(1), atol=1e-6)
    np.testing.assert_allclose(measured.std, sample.std(1), atol=1e-6)
    normal = Normalisation(tuple(sample.mean(1).tolist()), tuple(sample.std(1).tolist()))(images)
    assert normal.dtype == torch.float32
    torch.testing.assert_close(normal.transpose(0, 1).reshape(3, -1).mean(1), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(normal.transpose(0, 1).reshape(3, -1).std(1), torch.ones(3), atol=1e-4, rtol=0)


def test_normalisation_of_a_constant_channel_does_not_divide_by_zero() -> None:
    images = torch.full((4, 1, 2, 2), 7, dtype=torch.uint8)
    assert torch.isfinite(Normalisation.of(images)(images)).all()


def test_normalisation_looks_at_evenly_spaced_images_only() -> None:
    images = torch.zeros(11, 1, 2, 2, dtype=torch.uint8)
    images[[0, 5, 10]] = 255
    assert Normalisation.of(images, limit=3).mean == (1.0,)


def test_subset_takes_everything_along_in_the_order_asked_for() -> None:
    split = make()
    part = split.subset([4, 0])
    assert part.ids.tolist() == ["i4", "i0"]
    assert part.concepts is not None
    assert part.masks is not None
    for got, whole in [(part.images, split.images), (part.labels, split.labels), (part.concepts, split.concepts)]:
        assert torch.equal(got[0], whole[4])
        assert torch.equal(got[1], whole[0])
    assert torch.equal(part.masks[0], split.masks[4])
    assert part.normalisation == split.normalisation


def test_batches_are_in_order_normalised_and_complete() -> None:
    split = make(7)
    batches = list(split.batches(3))
    assert [len(y) for _, _, y in batches] == [3, 3, 1]
    assert torch.cat([index for index, _, _ in batches]).tolist() == list(range(7))
    torch.testing.assert_close(torch.cat([x for _, x, _ in batches]), split.normalisation(split.images[:]))
    assert torch.equal(torch.cat([y for _, _, y in batches]), split.labels)


def _flipped(tensor: torch.Tensor) -> torch.Tensor:
    changed = tensor.clone().flatten()
    changed[-1] = changed[-1] == 0
    return changed.view(tensor.shape)


def test_fingerprint_changes_with_any_change_and_only_then() -> None:
    split = make()
    changes = [
        {"images": _flipped(split.images)},
        {"images": split.images.reshape(6, 3, 6, 4), "masks": None},
        {"labels": _flipped(split.labels)},
        {"ids": np.array(["i9", *split.ids[1:]])},
        {"classes": ("cat", "cow")},
        {"concepts": _flipped(split.concepts)},
        {"concepts": None, "concept_names": ()},
        {"concept_names": ("a", "b", "d")},
        {"concept_level": "class"},
        {"masks": _flipped(split.masks)},
        {"masks": None},
        {"normalisation": Normalisation((0.4,), (0.25,))},
    ]
    prints = [replace(split, **change).fingerprint for change in changes]  # type: ignore[arg-type]
    assert len({split.fingerprint, *prints}) == len(changes) + 1
    assert make().fingerprint == split.fingerprint
    assert split.subset(range(6)).fingerprint == split.fingerprint


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"labels": torch.zeros(5)}, "6 images cannot have 5 labels"),
        ({"ids": np.array(["a"])}, "1 ids"),
        ({"labels": torch.tensor([0, 1, 2, 0, 1, 0])}, "labels range over 0..2, but there are 2 classes"),
        ({"labels": torch.tensor([0, 1, -1, 0, 1, 0])}, "-1"),
        ({"concept_names": ("a",)}, "1 names"),
        ({"masks": torch.zeros(2, 4, 6, dtype=torch.bool)}, "2 masks"),
    ],
)
def test_contradictions_are_refused(change: dict, words: str) -> None:
    with pytest.raises(PrunescopeError, match=words):
        replace(make(), **change)


def test_dataset_gives_splits_by_name_and_one_fingerprint() -> None:
    train, val, test = make(6, 1), make(6, 2), make(6, 3)
    data = Dataset("d", train, val, test)
    assert [data[name] for name in ("train", "val", "test")] == [train, val, test]
    assert data.classes == ("cat", "dog")
    with pytest.raises(PrunescopeError, match="no split 'concepts'"):
        data["concepts"]
    others = [Dataset("d", val, train, test), Dataset("d", train, val, val), Dataset("d", train, val, test, make(2))]
    assert len({data.fingerprint, *(other.fingerprint for other in others)}) == 4
