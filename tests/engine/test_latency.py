from __future__ import annotations

import gc
import time
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from prunescope.core.errors import PrunescopeError
from prunescope.engine import latency
from prunescope.engine.latency import Latency, compare_latency, latency_ratio, noise
from prunescope.testing import Snapshot, tiny_network
from prunescope.testing.snapshot import prepare


class Clock:
    """A machine on which time passes only inside networks."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.slowness = 0.0, 1.0
        monkeypatch.setattr(latency.time, "perf_counter", lambda: self.now)

    def network(self, seconds: float, then: Callable[[Tensor], None] = lambda x: None) -> nn.Module:
        clock = self

        class Network(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                clock.now += seconds * clock.slowness
                then(x)
                return x

        return Network()


def test_networks_take_turns_and_warm_up_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, order = Clock(monkeypatch), list[str]()
    models = {name: clock.network(1, lambda _, name=name: order.append(name)) for name in "abc"}  # type: ignore[misc]
    found = compare_latency(models, (1, 2, 2), repeats=6, warmup=2)
    assert "".join(order) == "abc" * 8
    assert {name: len(times.seconds) for name, times in found.items()} == {"a": 6, "b": 6, "c": 6}


def test_a_machine_that_slows_down_does_not_change_the_ratio(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)

    def slower(_: Tensor) -> None:
        clock.slowness *= 1.5

    models = {"pruned": clock.network(1.0), "dense": clock.network(3.0, slower)}
    found = compare_latency(models, (1, 2, 2), repeats=11, warmup=0)
    times = 1.5 ** np.arange(11)
    np.testing.assert_allclose(found["pruned"].seconds, times)
    np.testing.assert_allclose(found["dense"].seconds, 3 * times)
    assert found["pruned"].median.value == pytest.approx(1.5**5)
    ratio = latency_ratio(found["dense"], found["pruned"])
    np.testing.assert_allclose((ratio.value, ratio.low, ratio.high), 3)


def test_real_time_passes() -> None:
    class Sleeper(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            time.sleep(0.005)
            return x

    found = compare_latency({"it": Sleeper(), "nothing": nn.Identity()}, (1, 2, 2), repeats=6)
    assert 0.005 <= found["it"].median.low <= found["it"].median.value
    assert latency_ratio(found["it"], found["nothing"]).low > 2


@pytest.mark.parametrize("channels_last", [False, True])
def test_what_a_network_sees(channels_last: bool) -> None:
    seen = []

    class Curious(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            modes = (self.training, torch.is_inference_mode_enabled(), gc.isenabled())
            seen.append((x, self.weight.stride(), modes))
            return super().forward(x)

    model = Curious(3, 8, 3)
    strides = model.weight.stride()
    found = compare_latency({"it": model}, (3, 6, 6), batch_size=4, repeats=6, channels_last=channels_last)["it"]
    x, inside, modes = seen[-1]
    assert torch.equal(x, noise((3, 6, 6), 4))
    assert x.is_contiguous(memory_format=torch.channels_last) == channels_last
    assert (inside == strides) == (not channels_last)
    assert not channels_last or inside[1] == 1
    assert modes == (False, True, False)
    assert (model.training, model.weight.stride(), gc.isenabled()) == (True, strides, True)
    assert (found.batch_size, found.threads, found.device) == (4, torch.get_num_threads(), "cpu")


@pytest.mark.parametrize("channels", [3, 4], ids=["", "error"])
def test_the_network_is_left_alone(channels: int) -> None:
    model = prepare(tiny_network())
    before = Snapshot(model)
    try:
        compare_latency({"it": model, "again": model}, (channels, 8, 8), repeats=6)
    except RuntimeError:
        assert channels == 4
    assert not before.differences()
    assert gc.isenabled()


@pytest.mark.parametrize("options", [{"repeats": 5}, {"warmup": -1}, {"batch_size": 0}])
def test_too_little_is_refused(options: dict[str, int]) -> None:
    with pytest.raises(PrunescopeError, match="at least 6 repeats"):
        compare_latency({"it": nn.Identity()}, (1, 2, 2), **options)  # type: ignore[arg-type]


def test_only_one_comparison_gives_a_ratio() -> None:
    one = Latency(np.ones(6), 1, 1, "cpu")
    for other in (Latency(np.ones(7), 1, 1, "cpu"), Latency(np.ones(6), 64, 1, "cpu")):
        with pytest.raises(PrunescopeError, match="one comparison"):
            latency_ratio(one, other)
