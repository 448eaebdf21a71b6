from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

from prunescope.core.mask import Mask
from prunescope.engine.cost import cost, footprint
from prunescope.engine.flops import Flops
from prunescope.engine.memory import peak_memory
from prunescope.models.layers import prunable
from prunescope.models.packed import save_packed
from prunescope.models.zoo import build_model
from prunescope.testing import Snapshot, tiny_network
from prunescope.testing.snapshot import prepare


def test_a_footprint_by_hand(tmp_path: Path) -> None:
    model = tiny_network()
    model.conv1.weight.data[0] = 0
    found = footprint(model, (3, 8, 8), batch_sizes=(1, 5))
    weights = 6 * 3 * 9 + 8 * 6 * 9 + 3 * 8
    assert (found.parameters, found.nonzero) == (weights + 12 + 8 + 3, weights - 27 + 12 + 8)  # zero biases of the head
    products = (64 * 6 * 27, 16 * 8 * 54, 24)
    assert found.flops == Flops(2 * sum(products), 2 * (sum(products) - 64 * 27))
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    save_file(state, tmp_path / "plain")
    save_packed(state, Mask.of_zeros(model, prunable(model)), tmp_path / "packed")
    assert found.file_bytes == (tmp_path / "plain").stat().st_size
    assert found.packed_bytes == (tmp_path / "packed").stat().st_size
    assert found.memory == {n: peak_memory(model, torch.zeros(n, 3, 8, 8)) for n in (1, 5)}


def test_a_masked_network_is_smaller_on_disk_and_nowhere_else() -> None:
    model = build_model("resnet20", classes=10, channels=3, seed=0)
    dense = footprint(model, (3, 32, 32))
    parameters = dict(model.named_parameters())
    generator = torch.Generator().manual_seed(0)
    Mask({n: torch.rand(parameters[n].shape, generator=generator) < 0.1 for n in prunable(model)}).apply_(model)
    pruned = footprint(model, (3, 32, 32))
    assert pruned.memory == dense.memory
    assert pruned.flops.total == dense.flops.total
    assert (pruned.parameters, pruned.file_bytes) == (dense.parameters, dense.file_bytes)
    assert pruned.packed_bytes < 0.2 * dense.packed_bytes
    assert pruned.nonzero < 0.2 * dense.nonzero


def test_cost_is_the_footprint_and_the_times() -> None:
    model = prepare(tiny_network())
    before = Snapshot(model)
    found = cost(model, (3, 8, 8), batch_sizes=(1, 3), repeats=7)
    assert found.footprint == footprint(model, (3, 8, 8), batch_sizes=(1, 3))
    assert {size: (times.batch_size, len(times.seconds)) for size, times in found.latency.items()} == {
        1: (1, 7), 3: (3, 7),
    }  # fmt: skip
    assert not before.differences()


def test_a_batch_takes_longer_than_an_image() -> None:
    found = cost(build_model("small_cnn", classes=4, channels=3, seed=0), (3, 32, 32), repeats=6)
    assert found.latency[64].median.low > found.latency[1].median.high
    assert found.footprint.memory[64] > found.footprint.memory[1]
