"""Values at any nodes, in every world, beside full runs; and no more is run than they need."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from ablation_nets import NETS, SHAPE, Volume
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, fx, nn

from prunescope.core.errors import PrunescopeError
from prunescope.data.split import Split
from prunescope.engine.ablation import partway as module
from prunescope.engine.ablation.capture import capture
from prunescope.engine.ablation.chunk import Chunk
from prunescope.engine.ablation.partway import Partway, call_of, chunks, stage_of
from prunescope.engine.ablation.plan import Plan
from prunescope.engine.ablation.replay import Stage
from prunescope.engine.ablation.scene import Unfollowed
from prunescope.engine.ablation.worlds import Worlds
from random_nets import lively, networks

IMAGES = 3


def staged(model: nn.Module, seed: int = 0) -> tuple[Stage, Chunk]:
    stage = Stage(capture(model.double(), SHAPE, fold=False))
    images = torch.randn(IMAGES, *SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    with torch.no_grad():
        return stage, Chunk.of(stage, images)


def tensors(stage: Stage) -> list[fx.Node]:
    return [node for node in stage.traced.graph.nodes if node.meta["images"] and node.meta["leads"]]


def assert_values_are_those_of_full_runs(stage: Stage, chunk: Chunk, wanted: list[fx.Node]) -> None:
    before = {node: value.clone() for node, value in chunk.base.items() if isinstance(value, Tensor)}
    partway = Partway(stage, wanted)
    chosen = {layer: list(range(min(count, 3))) for layer, count in stage.channels.items()}
    seen: list[tuple[str, int]] = []
    with torch.no_grad():
        for rows, layer, worlds in partway.worlds(chosen, chunk):
            seen += [(layer, run[0]) for run in worlds.runs]
            assert rows.stop == len(seen)
            found = partway.without(layer, worlds, chunk)
            full = stage.run(chunk.images[worlds.image], stage.without(layer, worlds))
            assert set(found) == set(wanted)
            for node, value in found.items():
                torch.testing.assert_close(value, full[node], rtol=0, atol=1e-10)
    assert seen == [(layer, channel) for layer, channels in chosen.items() for channel in channels]
    assert all(torch.equal(chunk.base[node], value) for node, value in before.items())


@pytest.mark.parametrize("kind", NETS, ids=lambda kind: kind.__name__)
def test_values_of_each_node_alone_are_those_of_full_runs(kind: Any) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        stage, chunk = staged(lively(kind()))
    for node in tensors(stage):
        assert_values_are_those_of_full_runs(stage, chunk, [node])


@given(model=networks(), data=st.data())
@settings(max_examples=40, deadline=None, derandomize=True)
def test_values_of_any_nodes_together_are_those_of_full_runs(model: nn.Module, data: st.DataObject) -> None:
    """What is wanted must not be written over by what runs after it."""
    stage, chunk = staged(model)
    assert_values_are_those_of_full_runs(
        stage, chunk, data.draw(st.lists(st.sampled_from(tensors(stage)), min_size=1, max_size=5, unique=True))
    )


def chain() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return lively(nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.ReLU(), nn.Conv2d(5, 6, 3), nn.Flatten(),
            nn.Linear(24, 2),
        ))  # fmt: skip


def test_only_what_lies_on_the_way_runs() -> None:
    stage, chunk = staged(chain())
    node = call_of(stage.traced, "2")
    plan = Plan(stage.traced, stage.readings["0"], stage.own, [node])
    assert [item.name for item in plan.nodes] == ["gate", "_2"]
    assert plan.largest == 4 * 6 * 6
    for layer in ("2", "4"):  # read behind the node: nothing to run, and the value is the whole network's
        plan = Plan(stage.traced, stage.readings[layer], stage.own, [node])
        assert (plan.nodes, plan.largest) == ([], 0)
        partway = Partway(stage, [node])
        found = partway.without(layer, Worlds.grid(torch.tensor([1]), IMAGES), chunk)
        assert torch.equal(found[node], chunk.base[node])
    assert torch.equal(partway.whole(chunk)[node], chunk.base[node])


def test_what_cannot_be_followed_runs_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    stage, chunk = staged(chain())

    def refuses(*_: object) -> None:
        raise Unfollowed("no")

    node, worlds = call_of(stage.traced, "4"), Worlds.grid(torch.tensor([0, 2]), IMAGES)
    expected = Partway(stage, [node]).without("0", worlds, chunk)[node]
    monkeypatch.setattr(Stage, "replayed", refuses)
    torch.testing.assert_close(Partway(stage, [node]).without("0", worlds, chunk)[node], expected)
    monkeypatch.setattr(Stage, "run", refuses)
    with pytest.raises(PrunescopeError, match="what layer '0' gives cannot be told apart by image: no"):
        Partway(stage, [node]).without("0", worlds, chunk)


def test_units_come_in_tiles_and_images_in_chunks_that_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    stage, chunk = staged(chain())
    partway = Partway(stage, [call_of(stage.traced, "4")])
    largest = 8 * IMAGES * 4 * 6 * 6  # bytes of what layer 0 gives, where it is read

    def runs(**limits: int) -> list[int]:
        monkeypatch.setattr(module, "TILE", limits["tile"])
        found = partway.worlds({"0": [0, 1, 2, 3], "2": []}, chunk, limits.get("beside", 0))
        return [len(worlds.runs) for _, _, worlds in found]

    assert runs(tile=1) == [1, 1, 1, 1]
    assert runs(tile=3 * largest) == [2, 2]
    assert runs(tile=4 * largest) == [4]
    assert runs(tile=4 * largest, beside=4 * 4 * 6 * 6) == [1, 1, 1, 1]
    pixels = torch.zeros(7, *SHAPE, dtype=torch.uint8)
    split = Split(pixels, torch.zeros(7, dtype=torch.int64), np.arange(7).astype(str), ("a", "b"))
    with torch.no_grad():
        assert [len(index) for index, _ in chunks(stage, split, "cpu")] == [7]
        monkeypatch.setattr(module, "IMAGES", 3)
        assert [len(index) for index, _ in chunks(stage, split, "cpu")] == [3, 3, 1]
        monkeypatch.setattr(module, "MEMORY", 1)
        assert [len(index) for index, _ in chunks(stage, split, "cpu")] == [1] * 7


def test_networks_of_volumes_are_staged() -> None:
    assert "one" in stage_of(lively(Volume()), SHAPE, "cpu").channels
