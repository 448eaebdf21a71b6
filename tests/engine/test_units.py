"""Which layers have units, and their mean over positions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from prunescope.core.compat import torchvision_module
from prunescope.core.errors import PrunescopeError
from prunescope.engine.sweep import Needs, Pass, sweep
from prunescope.engine.units import pooled_units, unit_layers
from prunescope.models.zoo import build_model
from prunescope.testing.samples import tiny_data, tiny_network

LayerNorm2d = torchvision_module("torchvision.models.convnext").LayerNorm2d


@pytest.mark.parametrize(
    ("module", "shape", "axis"),
    [
        (nn.Conv2d(3, 5, 1), (2, 3, 5, 5), 1),
        (nn.Conv1d(3, 5, 1), (2, 3, 4), 1),
        (nn.Conv3d(3, 5, 1), (2, 3, 2, 4, 4), 1),
        (nn.BatchNorm2d(3), (2, 3, 4, 4), 1),
        (nn.BatchNorm1d(3), (2, 3), 1),
        (nn.GroupNorm(1, 3), (2, 3, 4, 4), 1),
        (nn.Linear(4, 5), (2, 4), 1),
        (nn.Linear(4, 5), (2, 7, 4), 2),
        (nn.Linear(4, 5), (2, 7, 5, 4), 3),
        (nn.LayerNorm(4), (2, 7, 4), 2),
        (nn.LayerNorm(4), (2, 4, 7, 4), 3),
        (LayerNorm2d(4), (2, 4, 4, 4), 1),
    ],
)
def test_units_are_averaged_over_every_other_axis(module: nn.Module, shape: tuple[int, ...], axis: int) -> None:
    output = module(torch.randn(shape, generator=torch.Generator().manual_seed(0)))
    found = pooled_units(module, output, "it")
    for image in range(len(output)):
        for unit in range(output.shape[axis]):
            expected = output[image].select(axis - 1, unit).mean()
            torch.testing.assert_close(found[image, unit], expected.detach())
    assert found.shape == (2, output.shape[axis])


@pytest.mark.parametrize("shape", [(3, 4, 5, 7), (3, 4, 6), (3, 4), (3, 4, 5, 2, 3)])
def test_other_ways_to_make_one_number_of_positions(shape: tuple[int, ...]) -> None:
    output = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    largest, middle = (pooled_units(nn.ReLU(), output, "it", pool) for pool in ("max", "centre"))
    places = [size // 2 for size in shape[2:]]
    for image in range(shape[0]):
        for unit in range(shape[1]):
            assert largest[image, unit] == output[image, unit].max()
            assert middle[image, unit] == output[image, unit][tuple(places)]


@pytest.mark.parametrize("pool", ["mean", "max", "centre"])
def test_what_is_kept_is_not_overwritten_by_what_follows(pool: str) -> None:
    """A linear layer's vector, and a map's centre, share memory with the output that an in-place ReLU overwrites."""
    with torch.random.fork_rng(devices=[]):
        model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(True), nn.Flatten(), nn.Linear(216, 9), nn.ReLU(True))
    model.append(nn.Linear(9, 3))
    seen: list[Tensor] = []

    class Keeps:
        needs = Needs(layers=(f"0:{pool}", f"3:{pool}"), splits=("val",))

        def update(self, batch: Pass) -> None:
            seen.extend(batch.activations[name] for name in self.needs.layers)

        def finish(self) -> None: ...

    sweep(model, {"val": tiny_data().val}, [Keeps()])  # type: ignore[list-item]
    assert (seen[1] < 0).any()
    if pool != "max":
        assert (seen[0] < 0).any()


def test_layers_that_run_by_kind_and_name() -> None:
    found = unit_layers(tiny_network())
    assert found == {"conv1": "conv", "norm": "norm", "conv2": "conv", "head": "linear"}
    assert list(unit_layers(tiny_network(), ["conv*"])) == ["conv1", "conv2"]
    assert list(unit_layers(tiny_network(), kinds=["linear", "norm"])) == ["norm", "head"]
    names = unit_layers(build_model("torchvision:googlenet", classes=10, channels=3, seed=0), kinds=["conv"])
    assert len(names) == 57
    assert not any(name.startswith("aux") for name in names)


def test_a_transformer_s_attention_is_no_layer_of_its_own() -> None:
    class Untraceable(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
            self.head = nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            tokens = self.block(x.flatten(2).transpose(1, 2)[:, :, :1].expand(-1, -1, 8))
            return self.head(tokens.mean(1)) if x.sum() == x.sum() else tokens

    found = unit_layers(Untraceable().train())
    assert "block.self_attn.out_proj" not in found
    assert {"block.linear1", "block.norm1", "head"} <= set(found)


def test_bad_names_are_refused() -> None:
    with pytest.raises(PrunescopeError, match="unknown kind of layer 'convolution'"):
        unit_layers(tiny_network(), kinds=["convolution"])  # type: ignore[list-item]
    with pytest.raises(PrunescopeError, match="layers: 'conv9' matches no"):
        unit_layers(tiny_network(), ["conv9"])
    with pytest.raises(PrunescopeError, match="Sequential has no layer of kind norm that runs"):
        unit_layers(nn.Sequential(nn.Linear(2, 2)), kinds=["norm"])
    with pytest.raises(PrunescopeError, match=r"layer 'it' gives tuple"):
        pooled_units(nn.ReLU(), (torch.ones(2, 2),), "it")


@pytest.mark.parametrize("inplace", [False, True])
def test_the_sweep_pools_before_anything_overwrites(inplace: bool) -> None:
    class Both:
        needs = Needs(layers=("conv2:pooled", "conv2", "head:pooled"), splits=("val",))

        def update(self, batch: Pass) -> None:
            assert (batch.activations["conv2"] < 0).any()
            torch.testing.assert_close(batch.activations["conv2:pooled"], batch.activations["conv2"].mean((2, 3)))
            torch.testing.assert_close(batch.activations["head:pooled"], batch.logits)

        def finish(self) -> None: ...

    sweep(tiny_network(inplace=inplace), {"val": tiny_data().val}, [Both()])  # type: ignore[list-item]


def test_there_are_no_gradients_towards_a_mean() -> None:
    class Wants:
        needs = Needs(layers=("conv2:pooled",), gradients=("conv2:pooled",), splits=("val",))

    with pytest.raises(PrunescopeError, match="no gradients towards 'conv2:pooled'"):
        sweep(tiny_network(), {"val": tiny_data().val}, [Wants()])  # type: ignore[list-item]
