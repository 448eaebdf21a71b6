"""Curves beside loops and closed forms; imputation beside SciPy's sparse solver and pytorch-grad-cam's ROAD."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import lil_matrix
from scipy.sparse.linalg import spsolve
from torch import Tensor, nn

from prunescope.core.compat import torchvision_module
from prunescope.core.errors import PrunescopeError
from prunescope.core.seeds import torch_generator
from prunescope.engine.faithfulness import Protocol, blurred, faithfulness_curves, random_maps, ranks
from prunescope.engine.imputation import imputed
from prunescope.testing import tiny_data, tiny_network

SHARES = (0.1, 0.2, 0.5, 0.9)


def images(count: int = 6) -> tuple[Tensor, Tensor]:
    _, x, y = next(tiny_data().test.batches(count))
    return x.contiguous(), y


def by_equations(image: Tensor, missing: Tensor) -> Tensor:
    """Rong et al. (2022), equation 4: a system of one equation per missing pixel, solved by SciPy."""
    C, H, W = image.shape
    weights = {(i, j): (1 / 6 if 0 in (i, j) else 1 / 12) for i in (-1, 0, 1) for j in (-1, 0, 1) if (i, j) != (0, 0)}
    holes = [(i, j) for i in range(H) for j in range(W) if missing[i, j]]
    place = {where: n for n, where in enumerate(holes)}
    A, b = lil_matrix((len(holes), len(holes))), np.zeros((len(holes), C))
    for n, (i, j) in enumerate(holes):
        for (di, dj), w in weights.items():
            there = (i + di, j + dj)
            if 0 <= there[0] < H and 0 <= there[1] < W:
                A[n, n] += w
                if there in place:
                    A[n, place[there]] -= w
                else:
                    b[n] += w * image[:, there[0], there[1]].double().numpy()
    solved = spsolve(A.tocsr(), b).reshape(len(holes), C)
    result = image.clone()
    for n, (i, j) in enumerate(holes):
        result[:, i, j] = torch.from_numpy(solved[n]).to(image)
    return result


@pytest.mark.parametrize("size", [(8, 8), (5, 11), (24, 16)])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.95])
def test_imputation_solves_the_equations(size: tuple[int, int], share: float) -> None:
    generator = torch_generator(0, size, share)
    x = torch.randn(3, 3, *size, generator=generator)
    order = ranks(torch.rand(3, *size, generator=generator))
    missing = order < max(1, round(share * size[0] * size[1]))
    missing[1] = ranks(torch.arange(size[0] * size[1]).float().view(1, *size))[0] < int(missing[1].sum())  # one block
    found = imputed(x, missing)
    for image, gone, ours in zip(x, missing, found, strict=True):
        torch.testing.assert_close(ours, by_equations(image, gone), rtol=0, atol=1e-3)
        assert torch.equal(ours[:, ~gone], image[:, ~gone])


def test_imputation_of_no_hole_and_of_all() -> None:
    x = torch.randn(2, 3, 6, 6)
    assert torch.equal(imputed(x, torch.zeros(2, 6, 6, dtype=torch.bool)), x)
    missing = torch.zeros(2, 6, 6, dtype=torch.bool)
    missing[1] = True
    with pytest.raises(PrunescopeError, match="no pixel left"):
        imputed(x, missing)
    one = torch.ones(1, 6, 6, dtype=torch.bool)
    one[0, 2, 3] = False
    flat = imputed(x[:1], one)  # all follow the only pixel that is left
    torch.testing.assert_close(flat, x[:1, :, 2:3, 3:4].expand(1, 3, 6, 6), rtol=0, atol=1e-3)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 300))
def test_imputation_keeps_linear_pictures_and_bounds(seed: int) -> None:
    """A plane solves the equations inside; no value lies beyond those that are known; batches do not matter."""
    generator = torch_generator(seed)
    x = torch.rand(3, 2, 9, 9, generator=generator)
    missing = torch.rand(3, 9, 9, generator=generator) < 0.6
    missing[:, 0, 0] = False
    found = imputed(x, missing)
    for image, gone, ours in zip(x, missing, found, strict=True):
        for before, after in zip(image, ours, strict=True):
            assert before[~gone].min() - 1e-3 <= after.min()
            assert after.max() <= before[~gone].max() + 1e-3
        torch.testing.assert_close(imputed(image[None], gone[None])[0], ours, rtol=0, atol=1e-5)
    plane = torch.linspace(0, 1, 9)[None, None, :, None].expand(1, 1, 9, 9)
    hole = torch.zeros(1, 9, 9, dtype=torch.bool)
    hole[:, 2:7, 2:7] = True
    torch.testing.assert_close(imputed(plane.contiguous(), hole), plane, rtol=0, atol=1e-3)


def peer(module: str) -> Any:
    torchvision_module()
    return importlib.import_module(f"pytorch_grad_cam.{module}")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # it mixes tensors and arrays
def test_imputation_equal_to_pytorch_grad_cam_s() -> None:
    x, _ = images()
    missing = ranks(random_maps(6, (8, 8), torch_generator(3, "random maps"))) < 40
    impute = peer("metrics.road").NoisyLinearImputer(noise=0.0)
    for image, gone, ours in zip(x, missing, imputed(x, missing), strict=True):
        torch.testing.assert_close(ours, impute(image, (~gone).float()), rtol=0, atol=1e-3)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # it mixes tensors and arrays
def test_road_equal_to_pytorch_grad_cam_s(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its percentiles of 65 pixels take away 52, 39, 26 and 13 exactly."""
    model = tiny_network().eval()
    x = torch.randn(5, 3, 5, 13, generator=torch_generator(0))
    target, maps = torch.tensor([0, 1, 2, 0, 1]), random_maps(5, (5, 13), torch_generator(1, "random maps"))
    road, wanted = peer("metrics.road"), peer("utils.model_targets").ClassifierOutputSoftmaxTarget
    monkeypatch.setattr(road.NoisyLinearImputer.__init__, "__defaults__", (0.0, road.neighbors_weights))
    percentiles = [20, 40, 60, 80]
    found = road.ROADCombined(percentiles)(x, maps.numpy(), [wanted(int(k)) for k in target], model)
    with torch.no_grad():
        curves = faithfulness_curves(model, x, maps, target, Protocol(shares=(0.2, 0.4, 0.6, 0.8), noise=0.0))
    np.testing.assert_allclose(curves.areas()["road"].numpy(), found, atol=1e-4)


def by_loops(model: nn.Module, image: Tensor, by: Tensor, heat: Tensor, c: int, steps: int) -> list[float]:
    """Petsiuk et al. (2018), algorithm 1: pixel after pixel, hottest first, of equal ones the first."""
    H, W = heat.shape
    pixels = sorted(((i, j) for i in range(H) for j in range(W)), key=lambda where: -float(heat[where]))
    image, found = image.clone(), []
    for step in range(steps + 1):
        for i, j in pixels[: step * H * W // steps]:
            image[:, i, j] = by[:, i, j]
        found.append(float(model(image[None]).softmax(1)[0, c]))
    return found


@pytest.mark.parametrize("steps", [1, 7, 64])
def test_curves_equal_to_loops(steps: int) -> None:
    model, (x, target) = tiny_network().eval(), images()
    maps = (random_maps(6, (8, 8), torch_generator(0, "random maps")) * 5).round()  # with ties
    protocol = Protocol(steps=steps, shares=(), rows=5)
    with torch.no_grad():
        curves = faithfulness_curves(model, x, maps, target, protocol)
        for i, c in enumerate(target.tolist()):
            deletion = by_loops(model, x[i], torch.zeros_like(x[i]), maps[i], c, steps)
            insertion = by_loops(model, blurred(x[i : i + 1])[0], x[i], maps[i], c, steps)
            np.testing.assert_allclose(curves.deletion[i], deletion, rtol=1e-4, atol=1e-6)
            np.testing.assert_allclose(curves.insertion[i], insertion, rtol=1e-4, atol=1e-6)
            areas = curves.areas()
            assert float(areas["deletion"][i]) == pytest.approx(np.trapezoid(deletion, dx=1 / steps), abs=1e-5)
            assert float(areas["insertion"][i]) == pytest.approx(np.trapezoid(insertion, dx=1 / steps), abs=1e-5)
    assert "road" not in areas


def test_other_canvases_and_exact_counts() -> None:
    model, (x, target) = tiny_network().eval(), images()
    maps = random_maps(6, (8, 8), torch_generator(0, "random maps"))
    with torch.no_grad():
        curves = faithfulness_curves(model, x, maps, target, Protocol(steps=3, deletion="blur", insertion="mean"))
        own, grey = (model(v).softmax(1).gather(1, target[:, None])[:, 0] for v in (x, torch.zeros_like(x)))
        soft = model(blurred(x)).softmax(1).gather(1, target[:, None])[:, 0]
    torch.testing.assert_close(curves.deletion[:, 0], own)
    torch.testing.assert_close(curves.deletion[:, -1], soft)
    torch.testing.assert_close(curves.insertion[:, 0], grey)
    torch.testing.assert_close(curves.insertion[:, -1], own)
    assert Protocol(steps=3).counts(64) == [0, 21, 42, 64]
    assert Protocol(shares=SHARES).taken(64) == [6, 13, 32, 58]
    assert Protocol(shares=(0.001, 0.999)).taken(9) == [1, 8]


class OnePixel(nn.Module):
    """Sure of class 1 as far as one pixel is bright."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, 8, 8) -> (B, 2)."""
        return torch.stack([torch.zeros(len(x)), 20 * x[:, 0, 2, 3] - 10], 1)


def test_the_pixel_that_counts_is_found() -> None:
    """A map of the one pixel that matters is as faithful as can be, its reverse as unfaithful."""
    x = torch.zeros(1, 1, 8, 8)
    x[0, 0, 2, 3] = 1
    good = torch.full((1, 8, 8), 0.1)
    good[0, 2, 3] = 1
    bad = 1.1 - good
    protocol, target = Protocol(steps=64, insertion="mean", shares=(0.1, 0.5), noise=0.0), torch.tensor([1])
    found = {
        name: {k: float(v) for k, v in faithfulness_curves(OnePixel(), x, m, target, protocol).areas().items()}
        for name, m in (("good", good), ("bad", bad))
    }
    assert found["good"]["deletion"] == pytest.approx(0.5 / 64, abs=1e-3)
    assert found["bad"]["deletion"] == pytest.approx(1 - 0.5 / 64, abs=1e-3)
    assert found["good"]["insertion"] == pytest.approx(1 - 0.5 / 64, abs=1e-3)
    assert found["bad"]["insertion"] == pytest.approx(0.5 / 64, abs=1e-3)
    assert found["good"]["road"] == pytest.approx(0.5, abs=1e-3)
    assert found["bad"]["road"] == pytest.approx(-0.5, abs=1e-3)


def test_blank_maps_have_no_order_and_batches_do_not_matter() -> None:
    model, (x, target) = tiny_network().eval(), images()
    maps = random_maps(6, (4, 4), torch_generator(0, "random maps"))
    maps[1], maps[4] = 0, float("nan")
    protocol = Protocol(steps=4, shares=SHARES)
    whole = faithfulness_curves(model, x, maps, target, protocol)
    for name in ("deletion", "insertion", "morf", "lerf"):
        assert torch.isnan(getattr(whole, name)).all(1).tolist() == [False, True, False, False, True, False]
        parts = torch.cat([
            getattr(faithfulness_curves(model, x[i : i + 1], maps[i : i + 1], target[i : i + 1], protocol), name)
            for i in range(6)
        ])  # fmt: skip
        torch.testing.assert_close(getattr(whole, name), parts, rtol=1e-4, atol=1e-5, equal_nan=True)


def test_blurring_keeps_what_is_even_and_evens_the_rest() -> None:
    torch.testing.assert_close(blurred(torch.full((1, 2, 40, 24), 3.0)), torch.full((1, 2, 40, 24), 3.0))
    x = torch.randn(2, 3, 32, 32, generator=torch_generator(0))
    assert float(blurred(x).std()) < 0.3 * float(x.std())
    assert blurred(torch.randn(1, 1, 2, 2)).shape == (1, 1, 2, 2)


@pytest.mark.parametrize("options", [{"steps": 0}, {"rows": -1}, {"noise": -1.0}, {"shares": (0.0, 0.5)}])
def test_bad_protocols_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(PrunescopeError, match="faithfulness"):
        Protocol(**options)
