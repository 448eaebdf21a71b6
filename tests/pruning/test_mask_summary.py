"""The per-layer table against loops."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prunescope.core.mask import Mask
from prunescope.pruning.summary import collapsed, layer_table

shapes = st.sampled_from([(4, 3, 2, 2), (5, 1, 3, 3), (6, 7), (1, 1), (4, 2, 3)])


@given(shapes, st.floats(0, 1), st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_rows_count_what_loops_count(shape: tuple[int, ...], density: float, seed: int) -> None:
    kept = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < density
    (row,) = layer_table(Mask({"layer.weight": kept}))
    dead_outputs = sum(1 for o in range(shape[0]) if not kept[o].any())
    dead_inputs = sum(1 for i in range(shape[1]) if not any(kept[o, i].any() for o in range(shape[0])))
    assert (row["layer"], row["shape"], row["total"]) == ("layer.weight", shape, kept.numel())
    assert row["kept"] == sum(1 for value in kept.flatten().tolist() if value)
    assert row["density"] == row["kept"] / row["total"]
    assert (row["outputs"], row["dead_outputs"]) == (shape[0], dead_outputs)
    assert (row["inputs"], row["dead_inputs"]) == (shape[1], dead_inputs)


def test_scales_and_biases_have_outputs_only() -> None:
    (row,) = layer_table(Mask({"norm.weight": torch.tensor([True, False, True])}))
    assert (row["outputs"], row["dead_outputs"], row["inputs"], row["dead_inputs"]) == (3, 1, 0, 0)


def test_rows_follow_the_mask() -> None:
    mask = Mask({name: torch.ones(2, 2, dtype=torch.bool) for name in ("z", "a", "m")})
    assert [row["layer"] for row in layer_table(mask)] == ["z", "a", "m"]


@given(st.dictionaries(st.text(max_size=3), st.tuples(st.sampled_from([0.0, 0.2, 1.0]), st.floats(0, 1))))
def test_a_layer_has_collapsed_when_nothing_of_it_is_live(layers: dict[str, tuple[float, float]]) -> None:
    nominal = {name: density for name, (density, _) in layers.items()}
    live = {name: density * share for name, (density, share) in layers.items()}
    found = collapsed(nominal, live)
    assert list(found) == [name for name in layers if live[name] == 0]
    assert {name for name, how in found.items() if how == "empty"} == {n for n, d in nominal.items() if d == 0}
    assert set(collapsed(nominal, {})) == {n for n, d in nominal.items() if d == 0}  # not known: not claimed
