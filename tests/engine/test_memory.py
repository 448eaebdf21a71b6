from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from prunescope.core.errors import PrunescopeError
from prunescope.engine.memory import peak_allocated, peak_memory
from prunescope.models.zoo import build_model
from prunescope.testing import Snapshot, tiny_network
from prunescope.testing.snapshot import prepare

X = torch.zeros(1, 3, 10, 10)  # 1200 bytes


def own(model: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))


def test_a_chain_by_hand() -> None:
    """The ReLU is the worst moment: the images, its input and its output."""
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 2, 1))
    assert peak_memory(model, X) == own(model) + 4 * 100 * (3 + 8 + 8)
    inplace = nn.Sequential(model[0], nn.ReLU(inplace=True), model[2])
    assert peak_memory(inplace, X) == own(model) + 4 * 100 * (3 + 8 + 2)


class Residual(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        kept = x + 1
        for _ in range(5):
            x = x * 2  # the one before is freed
        return x + kept


def test_what_is_still_needed_is_counted_and_what_is_freed_is_not() -> None:
    assert peak_memory(Residual(), X) == 4 * 1200  # images, `kept`, and two of the chain


class Views(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(100))
        self.tied = self.weight

    def forward(self, x: Tensor) -> Tensor:
        return x.view(3, 100).t()[:, :2].reshape(-1)[:50].add_(self.weight[:50]).unsqueeze(0)


def test_views_and_tied_weights_are_counted_once() -> None:
    assert peak_memory(Views(), X) == 400 + 1200 + 2 * 100 * 4  # `reshape` copies


def test_memory_is_the_same_again_and_grows_with_the_batch() -> None:
    model = build_model("resnet20", classes=10, channels=3, seed=0)
    found = [peak_memory(model, torch.zeros(n, 3, 32, 32)) for n in (1, 2, 3, 1)]
    assert found[0] == found[3]
    assert found[2] - found[1] == found[1] - found[0]
    assert found[1] - found[0] > 3 * 16 * 32 * 32 * 4  # at least a block's input, and what is added to it


@pytest.mark.parametrize("channels", [3, 4], ids=["", "error"])
def test_the_network_is_left_alone(channels: int) -> None:
    model = prepare(tiny_network())
    before = Snapshot(model)
    try:
        peak_memory(model, torch.zeros(2, channels, 8, 8))
    except RuntimeError:
        assert channels == 4
    assert not before.differences()


def test_the_allocator_is_asked_on_cuda_only() -> None:
    with pytest.raises(PrunescopeError, match="on cpu: use peak_memory"):
        peak_allocated(nn.ReLU(), X)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_the_allocator_hands_out_at_least_what_is_alive() -> None:
    model = build_model("resnet20", classes=10, channels=3, seed=0).cuda()
    x = torch.zeros(8, 3, 32, 32, device="cuda")
    assert peak_allocated(model, x) >= peak_memory(model, x)
