"""Images are decoded once; whatever is wrong with what was kept, the right images come back."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from prunescope.core.errors import PrunescopeError
from prunescope.data import cache as module
from prunescope.data.cache import ChosenImages, StreamedImages, cached_array, choose, fingerprint, load_images
from prunescope.data.decode import Decoding

N = 7
DECODING = Decoding(6)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("PRUNESCOPE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "images").mkdir()
    for i in range(N):
        pixels = np.random.default_rng(i).integers(0, 256, (9, 8, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{i}.png")
    return [f"{i}.png" for i in range(N)]


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one at every call of `decode`."""
    calls: list[int] = []
    original = module.decode

    def counted(paths, *rest):  # type: ignore[no-untyped-def]
        calls.append(len(paths))
        return original(paths, *rest)

    monkeypatch.setattr(module, "decode", counted)
    return calls


def kept(tmp_path: Path) -> Path:
    (found,) = (tmp_path / "cache").glob("images-*.npy")
    return found


INDICES = [slice(2, 5), slice(None), slice(0, 0), torch.tensor([6, 0, 0, 3]), torch.tensor([], dtype=torch.int64)]


@pytest.mark.parametrize("index", INDICES, ids=str)
def test_memory_memmap_and_stream_are_the_same_images(tmp_path: Path, files: list[str], index: object) -> None:
    root = tmp_path / "images"
    reference = load_images(root, files, DECODING, cache=False)
    for storage in ("memory", "memmap", "stream", "auto"):
        images = load_images(root, files, DECODING, storage=storage)  # type: ignore[arg-type]
        assert len(images) == N
        assert tuple(images.shape) == (N, 3, 6, 6)
        assert torch.equal(images[index], reference[index])
        order = torch.tensor([5, 1, 2, 4, 0])
        part = choose(images, order)
        assert tuple(part.shape) == (5, 3, 6, 6)
        assert len(part) == 5
        assert torch.equal(part[torch.tensor([1, 3])], reference[torch.tensor([1, 4])])
        assert torch.equal(part[1:], reference[order[1:]])


def test_only_what_is_in_memory_is_copied(tmp_path: Path, files: list[str]) -> None:
    root, order = tmp_path / "images", torch.tensor([3, 1])
    parts = {
        storage: choose(load_images(root, files, DECODING, storage=storage), order)  # type: ignore[arg-type]
        for storage in ("memory", "memmap", "stream")
    }
    kinds = {storage: type(part) for storage, part in parts.items()}
    assert kinds == {"memory": torch.Tensor, "memmap": ChosenImages, "stream": StreamedImages}


def test_decoded_once(tmp_path: Path, files: list[str], decoded: list[int]) -> None:
    for storage in ("memory", "memmap", "auto"):
        load_images(tmp_path / "images", files, DECODING, storage=storage)  # type: ignore[arg-type]
    assert decoded == [N]


def test_writing_into_mapped_images_does_not_change_the_file(tmp_path: Path, files: list[str]) -> None:
    first = load_images(tmp_path / "images", files, DECODING, storage="memmap")
    first[0:1].zero_()
    first[torch.tensor([0])].zero_()
    assert first[0:1].any()
    again = load_images(tmp_path / "images", files, DECODING, storage="memory")
    assert again[0:1].any()


@pytest.mark.parametrize("storage", ["memory", "memmap"])
@pytest.mark.parametrize("damage", ["empty", "head", "half", "one byte", "longer", "text", "other shape"])
def test_a_damaged_cache_is_made_again(
    tmp_path: Path, files: list[str], decoded: list[int], storage: str, damage: str
) -> None:
    expected = load_images(tmp_path / "images", files, DECODING)[:]
    path = kept(tmp_path)
    whole = path.read_bytes()
    if damage == "other shape":
        np.save(path, np.zeros((N, 3, 5, 6), np.uint8))
    else:
        path.write_bytes(
            {
                "empty": b"",
                "head": whole[:40],
                "half": whole[: len(whole) // 2],
                "one byte": whole[:-1],
                "longer": whole + b"0",
                "text": b"not an array",
            }[damage]
        )
    again = load_images(tmp_path / "images", files, DECODING, storage=storage)  # type: ignore[arg-type]
    assert torch.equal(again[:], expected)
    assert decoded == [N, N]
    assert path.read_bytes() == whole


def test_a_flipped_bit_is_found_when_all_is_read(tmp_path: Path, files: list[str]) -> None:
    expected = load_images(tmp_path / "images", files, DECODING)
    content = bytearray(kept(tmp_path).read_bytes())
    content[300] ^= 1
    kept(tmp_path).write_bytes(content)
    assert torch.equal(load_images(tmp_path / "images", files, DECODING, storage="memory")[:], expected[:])


def test_every_option_and_change_of_a_file_counts(tmp_path: Path, files: list[str]) -> None:
    root = tmp_path / "images"
    keys = {fingerprint(root, files, 1), fingerprint(root, files, 2), fingerprint(root, files[::-1], 1)}
    os.utime(root / files[0], ns=(1, 1))
    keys.add(fingerprint(root, files, 1))
    with (root / files[0]).open("ab") as file:
        file.write(b"0")
    os.utime(root / files[0], ns=(1, 1))
    keys.add(fingerprint(root, files, 1))
    assert len(keys) == 5


def test_a_changed_image_is_decoded_again(tmp_path: Path, files: list[str]) -> None:
    before = load_images(tmp_path / "images", files, DECODING)[:]
    Image.fromarray(np.zeros((9, 8, 3), np.uint8)).save(tmp_path / "images" / "3.png")
    after = load_images(tmp_path / "images", files, DECODING)[:]
    assert not after[3].any()
    assert torch.equal(after[:3], before[:3])


def test_a_broken_image_leaves_nothing_behind(tmp_path: Path, files: list[str]) -> None:
    (tmp_path / "images" / "3.png").write_bytes(b"broken")
    with pytest.raises(PrunescopeError, match=r"3\.png"):
        load_images(tmp_path / "images", files, DECODING)
    assert not [path for path in (tmp_path / "cache").iterdir() if path.suffix != ".lock"]


def test_of_several_at_once_one_decodes(tmp_path: Path, files: list[str], decoded: list[int]) -> None:
    with ThreadPoolExecutor(4) as pool:
        loads = [pool.submit(load_images, tmp_path / "images", files, DECODING) for _ in range(4)]
        images = [load.result()[:] for load in loads]
    assert decoded == [N]
    assert all(torch.equal(images[0], other) for other in images)


def test_no_cache_writes_nothing(tmp_path: Path, files: list[str]) -> None:
    load_images(tmp_path / "images", files, DECODING, cache=False)
    load_images(tmp_path / "images", files, DECODING, storage="stream")
    assert not (tmp_path / "cache").exists()
    with pytest.raises(PrunescopeError, match="memmap needs the cache"):
        load_images(tmp_path / "images", files, DECODING, storage="memmap", cache=False)


def test_large_sets_are_mapped(tmp_path: Path, files: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SMALL", 100)
    images = load_images(tmp_path / "images", files, DECODING)
    assert isinstance(choose(images, torch.tensor([0])), ChosenImages)


def test_a_folder_that_cannot_be_written_is_an_error_with_a_way_out(
    tmp_path: Path, files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("PRUNESCOPE_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(PrunescopeError, match=r"PRUNESCOPE_CACHE.*cache: false"):
        load_images(tmp_path / "images", files, DECODING)


def test_unknown_storage_and_missing_files_are_named(tmp_path: Path, files: list[str]) -> None:
    with pytest.raises(PrunescopeError, match="did you mean 'memmap'"):
        load_images(tmp_path, files, DECODING, storage="memmapp")  # type: ignore[arg-type]
    with pytest.raises(PrunescopeError, match=r"nothing\.png"):
        load_images(tmp_path, ["nothing.png"], DECODING)


def test_arrays_of_other_types_are_kept_too(tmp_path: Path) -> None:
    def fill(out: np.ndarray) -> None:
        out[:] = np.arange(6, dtype=np.float32).reshape(3, 2)
        out[1, 1] = np.nan

    path = tmp_path / "table.npy"
    first = cached_array(path, (3, 2), fill, dtype="float32")
    second = cached_array(path, (3, 2), lambda out: pytest.fail("made twice"), dtype="float32")
    assert np.array_equal(first, second, equal_nan=True)


def test_the_folder_is_the_environments_or_in_the_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRUNESCOPE_CACHE", "/somewhere")
    assert module.cache_folder() == Path("/somewhere")
    monkeypatch.delenv("PRUNESCOPE_CACHE")
    assert module.cache_folder() == Path.home() / ".cache" / "prunescope"
