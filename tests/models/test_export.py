from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from prunescope.core.compat import torchvision_module
from prunescope.core.errors import PrunescopeError
from prunescope.core.mask import Mask
from prunescope.models.export import export_onnx, export_program
from prunescope.models.layers import prunable
from prunescope.models.zoo import build_model
from prunescope.testing import Snapshot, tiny_network
from prunescope.testing.snapshot import prepare

SHAPE = (3, 16, 16)
Export = Callable[..., float]
BOTH = pytest.mark.parametrize("export", [export_program, export_onnx])


def vit() -> nn.Module:
    kind = torchvision_module("torchvision.models.vision_transformer").VisionTransformer
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: nn.Module = kind(16, 8, 2, 2, 32, 64, num_classes=4)
        nn.init.normal_(model.heads.head.weight)  # type: ignore[union-attr, arg-type]
    return model


def network(name: str) -> nn.Module:
    return vit() if name == "vit" else build_model(name, classes=4, channels=3, seed=0)


def images(count: int) -> Tensor:
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(7))


def run(path: Path, x: Tensor) -> Tensor:
    """What the file gives, read as another program would."""
    if path.suffix == ".onnx":
        onnx.checker.check_model(onnx.load(path))
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        return torch.from_numpy(session.run(None, {"images": x.numpy()})[0])
    found = torch.export.load(path).module()(x)
    assert isinstance(found, Tensor)
    return found


@pytest.mark.parametrize("name", ["resnet8", "small_cnn", "vit"])
@pytest.mark.parametrize(("export", "suffix"), [(export_program, "pt2"), (export_onnx, "onnx")])
def test_files_do_what_the_network_does_at_any_batch_size(
    name: str, export: Export, suffix: str, tmp_path: Path
) -> None:
    model = network(name)
    parameters = dict(model.named_parameters())
    Mask({n: parameters[n].abs() > parameters[n].abs().median() for n in prunable(model)}).apply_(model)
    path = tmp_path / f"net.{suffix}"
    told = export(model, SHAPE, path, images=images(3))
    assert told <= 1e-4
    model.eval()
    for count in (1, 5):
        expected = model(images(count)).detach()
        assert expected.std() > 1e-3
        np.testing.assert_allclose(run(path, images(count)), expected, rtol=1e-4, atol=1e-5)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@BOTH
def test_the_network_is_left_alone(export: Export, tmp_path: Path) -> None:
    model = prepare(tiny_network())
    before = Snapshot(model)
    export(model, (3, 8, 8), tmp_path / "net")
    assert not before.differences()


class Counts(nn.Module):
    """Every call gives more than the one before: what an exporter has seen is not what comes next."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = [0]

    def __deepcopy__(self, memo: object) -> Counts:
        return self

    def forward(self, x: Tensor) -> Tensor:
        self.calls[0] += 1
        return x.mean((2, 3)) + self.calls[0]


class Branches(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3)) if x.sum() > 0 else x.amax((2, 3))


class FixedBatch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3)) + torch.zeros(2, 3)


class NotFinite(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3)) * float("nan")


@BOTH
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Counts, "Counts cannot be exported to .*differs from the network by"),
        (Branches, "Branches cannot be exported to (ONNX|torch.export): "),
        (FixedBatch, "FixedBatch cannot be exported"),
        (NotFinite, "differs from the network by nan on 5 images"),
    ],
)
def test_what_does_something_else_is_not_kept(
    export: Export, kind: type[nn.Module], message: str, tmp_path: Path
) -> None:
    (tmp_path / "net").write_text("old")
    with pytest.raises(PrunescopeError, match=message):
        export(kind(), SHAPE, tmp_path / "net")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("net", "old")]


@BOTH
def test_the_tolerance_is_what_is_asked_for(export: Export, tmp_path: Path) -> None:
    with pytest.raises(PrunescopeError, match=r"by \d.* on 5 images; allowed: -"):
        export(network("resnet8"), SHAPE, tmp_path / "net", tolerance=-1)


@pytest.mark.parametrize("shape", [(0, *SHAPE), (2, 3, 8, 8), SHAPE])
def test_images_of_another_shape_are_refused(shape: tuple[int, ...], tmp_path: Path) -> None:
    with pytest.raises(PrunescopeError, match=r"images \(N, 3, 16, 16\), got"):
        export_program(network("small_cnn"), SHAPE, tmp_path / "net", images=torch.zeros(shape))


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_missing_packages_are_named(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else found(name))
    with pytest.raises(PrunescopeError, match=rf"needs the package '{package}'.*prunescope\[onnx\]"):
        export_onnx(network("small_cnn"), SHAPE, tmp_path / "net")
