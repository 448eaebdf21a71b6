"""Files become the pixels that are in them, at one size, and a broken one is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prunescope.core.errors import PrunescopeError
from prunescope.data import decode as module
from prunescope.data.decode import Decoding, decode


def saved(path: Path, pixels: np.ndarray, **options: object) -> Path:
    Image.fromarray(pixels).save(path, **options)
    return path


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize("suffix", ["png", "bmp", "webp"])
def test_lossless_files_of_the_right_size_keep_every_pixel(tmp_path: Path, suffix: str) -> None:
    pixels = noise(9, 9, 3)
    path = saved(tmp_path / f"a.{suffix}", pixels, **({"lossless": True} if suffix == "webp" else {}))
    assert np.array_equal(Decoding(9)(path), pixels.transpose(2, 0, 1))


def test_order_is_kept_over_many_threads(tmp_path: Path) -> None:
    paths = [saved(tmp_path / f"{i}.png", np.full((4, 4, 3), i, np.uint8)) for i in range(100)]
    decoded = decode(paths, Decoding(4))
    assert decoded.shape == (100, 3, 4, 4)
    assert decoded[:, 0, 0, 0].tolist() == list(range(100))


@pytest.mark.parametrize(("height", "width"), [(20, 60), (60, 20)])
def test_the_centre_is_cut_out(tmp_path: Path, height: int, width: int) -> None:
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[max(0, height // 2 - 12) : height // 2 + 12, max(0, width // 2 - 12) : width // 2 + 12] = 255
    assert (Decoding(10)(saved(tmp_path / "a.png", pixels)) == 255).all()


@pytest.mark.parametrize("shape", [(300, 300, 3), (300, 700, 3), (700, 300, 3)])
def test_large_jpegs_look_like_torchvision_resized_them(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    y, x = np.ogrid[: shape[0], : shape[1]]
    smooth = np.stack([(127 + 100 * np.sin(x / 90) * np.cos(y / 70))] * 3, 2).astype(np.uint8)
    path = saved(tmp_path / "a.jpg", smooth, quality=95)
    from prunescope.core.compat import torchvision_module

    transforms = torchvision_module("torchvision.transforms")
    with Image.open(path) as image:
        expected = np.asarray(transforms.Compose([transforms.Resize(24), transforms.CenterCrop(24)])(image))
    assert np.abs(Decoding(24)(path).transpose(1, 2, 0).astype(int) - expected).max() <= 4


def test_grey_values_are_luminance(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", np.full((5, 5, 3), (255, 0, 0), np.uint8))
    grey = Decoding(5, channels=1)(path)
    assert grey.shape == (1, 5, 5)
    assert set(grey.ravel().tolist()) == {76}  # 0.299 * 255


def test_16_bit_grey_is_scaled_not_clipped(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", np.array([[0, 257], [65535, 30000]], np.uint16))
    assert Decoding(2, channels=1)(path)[0].tolist() == [[0, 1], [255, 116]]
    assert Decoding(2)(path).shape == (3, 2, 2)


def test_palette_with_transparency_has_its_colours(tmp_path: Path) -> None:
    image = Image.fromarray(np.full((3, 3, 3), (10, 200, 30), np.uint8)).convert("P", palette=Image.Palette.ADAPTIVE)
    image.save(tmp_path / "a.png", transparency=b"\x80")  # bytes: Pillow itself warns about these
    assert Decoding(3)(tmp_path / "a.png")[:, 1, 1].tolist() == [10, 200, 30]


def test_a_turned_photograph_stands_upright(tmp_path: Path) -> None:
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:4] = 255  # bright on top as stored; orientation 6: the camera was turned, top is the right side
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = Decoding(8)(saved(tmp_path / "a.png", pixels, exif=exif))
    assert (upright[:, :, 4:] == 255).all()
    assert (upright[:, :, :4] == 0).all()


@pytest.mark.parametrize("damage", ["cut", "text", "missing", "empty"])
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_a_broken_file_is_named(tmp_path: Path, damage: str, suffix: str) -> None:
    good = [saved(tmp_path / f"good{i}.{suffix}", noise(40, 40, 3)) for i in range(3)]
    bad = saved(tmp_path / f"bad.{suffix}", noise(40, 40, 3))
    whole = bad.read_bytes()
    if damage == "missing":
        bad.unlink()
    else:
        bad.write_bytes({"cut": whole[: len(whole) // 2], "text": b"not an image", "empty": b""}[damage])
    with pytest.raises(PrunescopeError, match=rf"cannot read image .*bad\.{suffix}"):
        decode([*good, bad], Decoding(16))


@pytest.mark.parametrize(("size", "channels"), [(0, 3), (8, 2)])
def test_impossible_sizes_are_refused(size: int, channels: int) -> None:
    with pytest.raises(PrunescopeError, match="must be"):
        Decoding(size, channels)


def test_a_bar_is_drawn_for_long_work_on_a_terminal_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [saved(tmp_path / f"{i}.png", noise(2, 2, 3)) for i in range(5)]
    decode(paths, Decoding(2))
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    decode(paths, Decoding(2))
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(module, "_LONG", 4)
    monkeypatch.setenv("FORCE_COLOR", "1")
    decode(paths, Decoding(2))
    assert "decoding images" in capsys.readouterr().err
