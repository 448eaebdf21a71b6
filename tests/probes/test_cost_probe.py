from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import nn

from prunescope.core.errors import PrunescopeError
from prunescope.core.types import Record
from prunescope.engine import latency
from prunescope.engine.cost import footprint
from prunescope.models.shrink import shrink
from prunescope.probes import cost
from prunescope.probes.base import measure, probe
from prunescope.testing import tiny_data, tiny_network

SHAPE = (3, 8, 8)


def record(model: nn.Module | None = None, **options: Any) -> Record:
    return measure(model or tiny_network(), {"it": probe("cost", **options)}, tiny_data())["it"]


def test_it_records_the_footprint_and_reads_no_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prunescope.data.split.Split.batches", None)
    found = footprint(tiny_network(), SHAPE, batch_sizes=(1, 7))
    assert record(batch_sizes=[1, 7]).metrics == {
        "parameters": found.parameters, "nonzero": found.nonzero, "flops": found.flops.total,
        "flops_nonzero": found.flops.nonzero, "file_bytes": found.file_bytes, "packed_bytes": found.packed_bytes,
        "memory.1": found.memory[1], "memory.7": found.memory[7],
    }  # fmt: skip


def test_times_are_there_only_if_asked_for() -> None:
    assert "timing" not in record().info
    found = record(latency=True, repeats=6, batch_sizes=[2])
    assert found.metrics["latency.2.low"] <= found.metrics["latency.2"] <= found.metrics["latency.2.high"]
    assert found.info["timing"] == {
        "repeats": 6, "layout": "channels last", "threads": torch.get_num_threads(), "device": "cpu",
    }  # fmt: skip


def test_times_are_milliseconds_and_the_smaller_network_is_timed_beside(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(latency.time, "perf_counter", lambda: clock[0])

    class Slow(nn.Conv2d):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            clock[0] += 0.001 * self.out_channels * len(x)
            return super().forward(x)

    asked: list[Sequence[int]] = []

    def halved(model: nn.Module, shape: Sequence[int]) -> nn.Module:
        asked.append(tuple(shape))
        return Slow(3, 4, 1)

    monkeypatch.setattr(cost, "shrunk", halved)
    metrics = record(Slow(3, 8, 1), latency=True, repeats=6, batch_sizes=[1, 5]).metrics
    assert asked == [SHAPE]
    assert metrics["latency.1"] == pytest.approx(8)
    assert [metrics[f"latency.5{end}"] for end in ("", ".low", ".high")] == pytest.approx([40, 40, 40])
    assert metrics["shrunk.latency.5"] == pytest.approx(20)
    assert [metrics[f"speedup.5{end}"] for end in ("", ".low", ".high")] == pytest.approx([2, 2, 2])
    assert (metrics["parameters"], metrics["shrunk.parameters"]) == (32, 16)
    assert (metrics["flops"], metrics["shrunk.flops"]) == (2 * 64 * 24, 2 * 64 * 12)
    assert metrics["shrunk.memory.5"] < metrics["memory.5"]
    assert {name.removeprefix("shrunk.") for name in metrics if name.startswith("shrunk.")} == {
        name for name in metrics if not name.startswith(("shrunk.", "speedup."))
    }


def test_a_network_without_its_idle_channels_is_measured_beside() -> None:
    model = tiny_network()
    assert record(model).info["removal"] == "none"
    with torch.no_grad():
        model.conv2.weight[:, [1, 4]] = 0  # type: ignore[union-attr, operator, index]
        model.head.weight[:, 3] = 0  # type: ignore[union-attr, operator, index]
    found, small = record(model), shrink(model, SHAPE)
    assert small.removed == 3
    assert found.info["removal"] == "channels"
    assert (
        found.metrics["shrunk.parameters"] == footprint(small.network, SHAPE).parameters < found.metrics["parameters"]
    )
    assert found.metrics["shrunk.flops"] == footprint(small.network, SHAPE).flops.total < found.metrics["flops"]


def test_a_network_that_cannot_be_followed_is_measured_as_it_is() -> None:
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = tiny_network()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x if float(x.sum()) > 0 else -x)

    found = record(Branching())
    assert found.info["removal"].startswith("not known: Branching does not run")
    assert not any(name.startswith("shrunk") for name in found.metrics)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"repeats": 5}, "at least 6"), ({"batch_sizes": []}, "from 1"), ({"batch_sizes": [1, 0]}, "from 1")],
)
def test_options_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(PrunescopeError, match=message):
        probe("cost", **options)
