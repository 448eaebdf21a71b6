"""What filters see: planted filters, and every number beside a loop over filters and images."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prunescope.core.errors import PrunescopeError
from prunescope.core.seeds import numpy_generator
from prunescope.data.split import Normalisation, Split
from prunescope.engine.sees.look import Look, what_filters_see
from prunescope.engine.sees.patches import OUTSIDE, frame_of, kernel_tiles, patches
from prunescope.engine.sees.views import LayerView
from prunescope.engine.upto import output_of
from prunescope.metrics.selectivity import (
    class_selectivity,
    class_selectivity_of_means,
    grey,
    selectivity,
)
from prunescope.models.receptive import receptive_fields
from prunescope.testing.snapshot import Snapshot

RGB = Normalisation((0.5, 0.45, 0.4), (0.2, 0.25, 0.3))


def images(n: int = 12, channels: int = 3, side: int = 14, *, equal: bool = False) -> Split:
    """Smooth random colours, so that shapes are larger than a pixel."""
    generator = torch.Generator().manual_seed(n)
    coarse = torch.rand(n, 1 if equal else channels, side // 2, side // 2, generator=generator)
    pixels = (F.interpolate(coarse, (side, side)) * 255).byte().expand(-1, channels, -1, -1).contiguous()
    labels = torch.randint(4, (n,), generator=generator)
    return Split(
        pixels,
        labels,
        np.arange(n).astype(str),
        ("a", "b", "c", "d", "none"),
        RGB if channels == 3 else Normalisation(),
    )


def network(channels: int = 3) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return nn.Sequential(
            nn.Conv2d(channels, 6, 3, stride=2, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2, ceil_mode=True),
            nn.Conv2d(6, 5, 2, padding=1), nn.BatchNorm2d(5), nn.ReLU(), nn.Flatten(), nn.LazyLinear(5),
        )  # fmt: skip


@pytest.fixture(scope="module")
def model() -> nn.Sequential:
    made = network()
    made(torch.zeros(2, 3, 14, 14))  # the lazy layer takes its size
    with torch.no_grad():
        made[0].weight[4] = 0  # dead
    return made


def activation(model: nn.Module, layer: str, split: Split, pixels: Any) -> Tensor:
    """(C, h, w) of one image (3, H, W) in 0..255, by a full forward pass."""
    kept: list[Tensor] = []
    handle = model.get_submodule(layer).register_forward_hook(lambda *call: kept.append(call[2].clone()))
    model.eval()
    with torch.no_grad():
        model(split.normalisation(torch.as_tensor(np.asarray(pixels, dtype=np.float32))[None]))
    handle.remove()
    return kept[0][0]


def looked(model: nn.Module, split: Split, **options: Any) -> dict[str, LayerView]:
    layers = options.pop("layers", None)
    return {view.layer: view for view in what_filters_see(model, split, layers, options=Look(**options))}


@pytest.mark.parametrize("batch_size", [4, 64])
def test_every_number_beside_a_loop(model: nn.Sequential, batch_size: int) -> None:
    split, k = images(), 4
    views = looked(model, split, layers=["0", "4"], k=k, shuffles=2, seed=7, batch_size=batch_size)
    fields = receptive_fields(model, split.shape, ["0", "4"])
    everything = {layer: [activation(model, layer, split, image) for image in split.images] for layer in views}
    border = 0
    for layer, view in views.items():
        for index in range(len(view.boxes)):
            maps = torch.stack([item[index] for item in everything[layer]])
            if layer == "0" and index == 4:
                assert view.extremes.dead[4]
                continue
            order = sorted(range(len(split)), key=lambda i: (-maps[i].max().item(), i))[:k]
            before, grown, mixed, labels = [], [], [[], []], []  # type: ignore[var-annotated]
            for rank, image in enumerate(order):
                row, column = divmod(int(maps[image].argmax()), maps.shape[2])
                box = fields[layer][row, column].tolist()
                assert view.extremes.top.images[index, rank] == image
                assert view.boxes[index, rank].tolist() == box
                border += box[0] == 0
                window = np.s_[:, box[0] : box[1] + 1, box[2] : box[3] + 1]
                pixels = split.images[image].numpy().astype(np.float64)
                crop = np.moveaxis(pixels[window], 0, -1)
                plain = pixels.copy()
                plain[window] = np.moveaxis(grey(crop / 255) * 255, -1, 0)
                grown.append(activation(model, layer, split, plain)[index, row, column].item())
                for turn in range(2):
                    generator = numpy_generator(7, "shuffle", layer, index * k + rank, turn)
                    moved, flat = pixels.copy(), crop.reshape(-1, 3)
                    moved[window] = np.moveaxis(flat[generator.permutation(len(flat))].reshape(crop.shape), -1, 0)
                    mixed[turn].append(activation(model, layer, split, moved)[index, row, column].item())
                before.append(maps[image, row, column].item())
                labels.append(int(split.labels[image]))
            w, v = np.array([before]), np.array([grown])
            close = lambda got, want: np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)  # noqa: E731
            close(view.colour[index], selectivity(w, v)[0])
            close(view.colour_ivet[index], selectivity(w, v, "ivet")[0])
            close(view.shape[index], np.mean([selectivity(w, np.array([m]))[0] for m in mixed]))
            close(view.shape_ivet[index], np.mean([selectivity(w, np.array([m]), "ivet")[0] for m in mixed]))
            assert view.labels[index].tolist() == labels
            close(view.classes[index], class_selectivity(w, np.array([labels]), 0.5)[0])
            means = [maps[split.labels == c].relu().mean().item() for c in range(4)]  # the fifth class has no images
            close(view.classes_of_means[index], class_selectivity_of_means(np.array([means]))[0])
    assert border > 3


def planted(split: Split) -> nn.Sequential:
    """Red against green, an edge in light, light, nothing; images are as in `images`."""
    conv = nn.Conv2d(3, 4, 4)
    with torch.no_grad():
        conv.weight.zero_()
        conv.bias.zero_()
        conv.weight[0, 0], conv.weight[0, 1] = 1, -1
        conv.weight[1, :, :, :2], conv.weight[1, :, :, 2:] = 1, -1
        conv.weight[2] = 1
        conv.weight *= torch.tensor(split.normalisation.std)[None, :, None, None]
    return nn.Sequential(conv, nn.ReLU(), nn.Flatten(), nn.LazyLinear(5))


def test_planted_filters_are_told_apart() -> None:
    split = images(30)
    split = Split(split.images, split.labels, split.ids, split.classes, Normalisation((0.0,) * 3, RGB.std))
    net = planted(split)
    net(torch.zeros(1, 3, 14, 14))
    view = looked(net, split)["0"]
    colour, edge, light, nothing = range(4)
    assert view.chroma is not None
    np.testing.assert_allclose(view.chroma, [1, 0, 0, np.nan], atol=1e-12)
    assert view.colour[colour] == pytest.approx(1, abs=1e-5)
    assert view.colour_selective.tolist() == [True, False, False, False]
    assert view.shape[edge] > 0.5
    assert view.shape[light] == pytest.approx(0, abs=1e-5)  # a sum over the crop knows no order
    assert view.shape[colour] == pytest.approx(0, abs=1e-5)
    assert np.isnan(
        [view.colour[nothing], view.shape[nothing], view.classes[nothing], view.classes_of_means[nothing]]
    ).all()
    assert view.base_rate == (1, 3)
    assert sum(view.colour_counts().values()) == 3
    assert view.colour_counts()["high"] == 1


def test_grey_images_have_no_colour(model: nn.Sequential) -> None:
    for view in looked(model, images(equal=True)).values():
        assert np.nanmax(np.abs(view.colour)) < 1e-4
        assert np.nanmax(np.abs(view.colour_ivet)) < 1e-4
        assert np.isfinite(view.colour).sum() > 3


def test_one_channel_has_no_colour_index() -> None:
    net = network(1)
    net(torch.zeros(2, 1, 14, 14))
    view = looked(net, images(channels=1), layers=["0"])["0"]
    assert np.isnan(view.colour).all()
    assert np.isfinite(view.shape).all()
    assert view.patches.shape == (6, 9, 64, 64, 3)
    assert (view.patches[..., 0] == view.patches[..., 2]).all()
    assert view.kernels is None


def test_first_layer_kernels_only(model: nn.Sequential) -> None:
    views = looked(model, images(), shuffles=0)
    assert views["3"].kernels is None
    assert views["3"].chroma is None
    assert np.isnan(views["0"].shape).all()
    assert views["0"].kernels is not None
    assert views["0"].kernels.shape == (6, 3, 3, 3)
    behind = nn.Sequential(nn.Conv2d(3, 3, 2), nn.Conv2d(3, 4, 3))
    views = looked(nn.Sequential(behind, nn.Flatten(), nn.Linear(4 * 11 * 11, 5)), images(), shuffles=0, k=1)
    assert views["0.0"].kernels is not None
    assert views["0.1"].kernels is None  # it reads three channels, but not the image's


def test_what_lies_behind_the_layer_runs_in_the_first_pass_only(model: nn.Sequential) -> None:
    ran = []
    handle = model[3].register_forward_hook(lambda *call: ran.append(len(call[1][0])))
    looked(model, images(), layers=["0"], batch_size=5)
    handle.remove()
    assert ran == [4, 5, 5, 2]  # four on their way through the receptive fields


def test_progress_counts_images(model: nn.Sequential) -> None:
    seen: list[int] = []
    list(what_filters_see(model, images(), ["0", "3"], options=Look(k=2, batch_size=5), on_batch=seen.append))
    assert sum(seen) == 12 + 2 * 6 + 2 * 5
    assert max(seen) == 5


def test_the_network_is_left_as_it_was_and_seeds_decide(model: nn.Sequential) -> None:
    model.train()
    before = Snapshot(model)
    one, again, other = (looked(model, images(), layers=["3"], seed=seed)["3"] for seed in (0, 0, 1))
    assert before.differences() == []
    assert one.shape.tolist() == again.shape.tolist() != other.shape.tolist()
    assert one.colour.tolist() == other.colour.tolist()


def test_patches_lie_in_their_frame() -> None:
    image = torch.arange(3 * 5 * 5, dtype=torch.uint8).view(1, 3, 5, 5).repeat(4, 1, 1, 1)
    boxes = torch.tensor([[1, 3, 1, 3], [0, 1, 1, 3], [3, 4, 4, 4], [2, 1, 5, 4]])
    found = patches(image, boxes, 3, 3)
    whole = image[0].permute(1, 2, 0).numpy()
    assert (found[0] == whole[1:4, 1:4]).all()
    assert (found[1, 1:] == whole[:2, 1:4]).all()  # cut at the top: it lies at the bottom of the frame
    assert (found[1, 0] == OUTSIDE).all()
    assert (found[2, :2, :1] == whole[3:, 4:]).all()
    assert (found[2, 2] == OUTSIDE).all()
    assert (found[2, :, 1:] == OUTSIDE).all()
    assert (found[3] == OUTSIDE).all()  # sees nothing
    assert (patches(image, boxes, 3, 6)[0, ::2, 1::2] == found[0]).all()
    assert patches(image, boxes, 3, 2).shape == (4, 2, 2, 3)
    assert frame_of(boxes[None]) == 3


def test_kernel_tiles() -> None:
    kernels = np.zeros((3, 3, 1, 2))
    kernels[0, :, 0, 0] = [0.2, 0.2, 0.2]
    kernels[1, :, 0, 1] = [-5.0, 0, 0]
    tiles = kernel_tiles(kernels, (0.2, 0.4, 0.1))
    assert tiles.tolist() == [[[[191, 159, 255], [128] * 3]], [[[128] * 3, [0, 128, 128]]], [[[128] * 3, [128] * 3]]]


def test_top_classes() -> None:
    split = images(12)
    net = network()
    net(torch.zeros(2, 3, 14, 14))
    view = looked(net, split, layers=["0"], k=12)["0"]
    counts = np.bincount(split.labels.numpy(), minlength=4)
    expected = sorted(((int(c), int(n)) for c, n in enumerate(counts)), key=lambda item: (-item[1], item[0]))
    assert view.top_classes(4) == [expected] * 6
    assert view.top_classes(1) == [expected[:1]] * 6


def test_what_cannot_be_looked_at_is_refused(model: nn.Sequential) -> None:
    with pytest.raises(PrunescopeError, match="grey or RGB images, got 2 channels"):
        looked(model, images(channels=2))
    with pytest.raises(PrunescopeError, match="the split has none"):
        looked(model, images().subset([]))
    with pytest.raises(PrunescopeError, match="unknown layer '9'"):
        looked(model, images(), layers=["9"])
    idle = nn.Module()
    idle.rests, idle.forward = nn.ReLU(), lambda x: x  # type: ignore[method-assign]
    with pytest.raises(PrunescopeError, match="layer 'rests' does not run"):
        output_of(idle, "rests", torch.zeros(1))
    with pytest.raises(PrunescopeError, match="gives a tuple, not a tensor"):
        output_of(nn.Sequential(nn.LSTM(2, 2)), "0", torch.zeros(1, 1, 2))


def test_a_network_that_catches_exceptions_is_stopped_too() -> None:
    class Careful(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 1)

        def forward(self, x: Tensor) -> Tensor:
            try:
                x = self.one(x)
            except Exception:
                x = x + 1
            return self.two(x)

    net, x = Careful(), torch.rand(2, 1, 3, 3)
    net.two.register_forward_hook(lambda *_: pytest.fail("it went on"))
    assert torch.equal(output_of(net, "one", x), net.one(x))
    assert not net.one._forward_hooks


def test_kernels_of_images_that_are_normed_by_one_number(model: nn.Sequential) -> None:
    split = images()
    views = {}
    for count in (1, 3):
        normed = Split(
            split.images, split.labels, split.ids, split.classes, Normalisation((0.5,) * count, (0.2,) * count)
        )
        (views[count],) = what_filters_see(model, normed, ["0"], options=Look(k=3, shuffles=0))
    one, three = views[1], views[3]
    assert one.chroma is not None
    assert three.chroma is not None
    assert one.kernels is not None
    assert three.kernels is not None
    np.testing.assert_allclose(one.chroma, three.chroma)
    assert np.array_equal(one.kernels, three.kernels)
