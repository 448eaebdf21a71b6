"""Correlations gathered batch by batch beside numpy's on all maps at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from prunescope.core.errors import PrunescopeError
from prunescope.data.split import Split
from prunescope.engine import correlations as module
from prunescope.engine.correlations import Correlations, channel_correlations
from prunescope.engine.sweep import sweep


def data(n: int = 23) -> Split:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (n, 3, 8, 8), generator=generator, dtype=torch.uint8)
    return Split(images, torch.zeros(n, dtype=torch.int64), np.array([str(i) for i in range(n)]), ("a", "b"))


class Net(nn.Module):
    """Maps, tokens and vectors; channel 0 of the convolution is twice there, channel 2 dead, channel 3 constant."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu, self.tokens, self.fc = nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Linear(5, 4), nn.Linear(4, 2)
        with torch.no_grad():
            self.conv.weight[1] = 2 * self.conv.weight[0]
            self.conv.bias[:2] = 1000.0  # large and steady: its digits must not cancel
            self.conv.weight[3], self.conv.bias[3] = 0.0, 0.1
            self.conv.bias[2] = -1e6

    def forward(self, x: Tensor) -> Tensor:
        maps = self.relu(self.conv(x))
        return self.fc(self.tokens(maps.flatten(2).transpose(1, 2)).mean(1))


def network() -> Net:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Net()


def whole(split: Split) -> dict[str, np.ndarray]:
    """{layer: values (channels, images and places)}, of everything at once."""
    net = network()
    with torch.no_grad():
        maps = net.conv(split.normalisation(split.images[:]))
        tokens = net.tokens(maps.relu().flatten(2).transpose(1, 2))
        found = {"conv": maps, "relu": maps.relu(), "tokens": tokens.transpose(1, 2), "fc": net.fc(tokens.mean(1))}
    return {name: value.transpose(0, 1).flatten(1).double().numpy() for name, value in found.items()}


LAYERS = ("conv", "relu", "tokens", "fc")


@pytest.mark.parametrize("batch_size", [1, 7, 100])
@pytest.mark.parametrize("piece", [1, 1 << 22])
def test_correlations_equal_numpys(batch_size: int, piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PIECE", piece)
    found = channel_correlations(network(), data(), LAYERS, batch_size=batch_size)
    assert list(found) == list(LAYERS)
    for layer, values in whole(data()).items():
        varied = np.ptp(values, axis=1) > 0
        table = found[layer]
        assert np.isnan(table[~varied]).all()
        assert np.isnan(table[:, ~varied]).all()
        np.testing.assert_allclose(table[np.ix_(varied, varied)], np.corrcoef(values[varied]), atol=2e-5)
        assert (np.diagonal(table)[varied] == 1).all()
    assert np.isnan(np.diagonal(found["conv"])).tolist() == [False, False, False, True, False]
    assert np.isnan(np.diagonal(found["relu"])).tolist() == [False, False, True, True, False]
    assert found["conv"][0, 1] == pytest.approx(1, abs=1e-5)


def test_constant_channels_are_known_by_their_values_not_by_a_rounded_variance(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def look(n: int, sums: np.ndarray, products: np.ndarray, constant: np.ndarray) -> np.ndarray:
        seen.append((n, constant.tolist()))
        return products

    monkeypatch.setattr(module, "correlations", look)
    channel_correlations(network(), data(), ("conv", "relu"), batch_size=7)
    places = 23 * 6 * 6
    assert seen == [(places, [False, False, False, True, False]), (places, [False, False, True, True, False])]


def test_it_takes_part_in_a_pass_of_others_and_leaves_the_network_alone() -> None:
    net = network()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    first, second = Correlations(("conv",)), Correlations(("fc:input", "conv"))
    records = sweep(net, {"test": data()}, [first, second], batch_size=5)
    np.testing.assert_array_equal(records[0].arrays["correlation.conv"], records[1].arrays["correlation.conv"])
    assert sorted(records[1].arrays) == ["correlation.conv", "correlation.fc:input"]
    assert records[1].arrays["correlation.fc:input"].shape == (4, 4)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_values_that_are_no_numbers_and_shapes_without_channels_are_refused() -> None:
    net = network()
    with torch.no_grad():
        net.fc.bias[1] = torch.inf
    with pytest.raises(PrunescopeError, match="layer 'fc' gives values that are not finite"):
        channel_correlations(net, data(), ["conv", "fc"])
    odd = nn.Sequential(nn.Unflatten(1, (3, 1)), nn.Flatten(1, 2), nn.Conv2d(3, 2, 8), nn.Flatten())
    with pytest.raises(PrunescopeError, match=r"layer '0' gives \(23, 3, 1, 8, 8\)"):
        channel_correlations(odd, data(), ["0"])
