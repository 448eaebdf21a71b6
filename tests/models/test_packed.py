from __future__ import annotations

import json
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save, save_file
from torch import Tensor

from prunescope.core.errors import PrunescopeError
from prunescope.core.mask import Mask
from prunescope.models.checkpoint import Checkpoint
from prunescope.models.layers import prunable
from prunescope.models.packed import entropy_bound, load_packed, pack, save_packed
from prunescope.models.zoo import build_model


def pruned(density: float = 0.1) -> tuple[dict[str, Tensor], Mask]:
    model = build_model("resnet20", classes=10, channels=3, seed=0)
    generator = torch.Generator().manual_seed(0)
    parameters = dict(model.named_parameters())
    mask = Mask({n: torch.rand(parameters[n].shape, generator=generator) < density for n in prunable(model)})
    mask.apply_(model)
    return dict(Checkpoint.of(model).weights), mask


def bits(tensor: Tensor) -> bytes:
    return tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()


def assert_same(weights: dict[str, Tensor], mask: Mask, path: Path) -> None:
    found, found_mask = load_packed(path)
    assert found_mask == mask  # order and shapes too
    assert list(found) == list(weights)
    for name, tensor in weights.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape)
        assert bits(found[name]) == bits(tensor)


def test_round_trip_of_a_network(tmp_path: Path) -> None:
    weights, mask = pruned()
    save_packed(weights, mask, tmp_path / "net.safetensors")
    assert_same(weights, mask, tmp_path / "net.safetensors")
    other = build_model("resnet20", classes=10, channels=3, seed=7)
    Checkpoint(*load_packed(tmp_path / "net.safetensors")).into(other)
    assert torch.equal(other.state_dict()["conv1.weight"], weights["conv1.weight"])
    assert (tmp_path / "net.safetensors").read_bytes() == pack(weights, mask)
    assert [path.name for path in tmp_path.iterdir()] == ["net.safetensors"]


@pytest.mark.parametrize("density", [0.02, 0.1, 0.3, 0.5, 0.8])
def test_its_size_is_near_the_bound(density: float) -> None:
    weights, mask = pruned(density)
    others = sum(tensor.nbytes for name, tensor in weights.items() if name not in mask)
    bound = entropy_bound(mask) + others
    assert bound <= len(pack(weights, mask)) <= 1.005 * bound + 2000  # names and shapes
    assert len(pack(weights, mask)) < len(save(weights)) * (density + 0.05)


def test_bound_is_the_formula() -> None:
    mask = Mask({"a": torch.arange(8) < 2, "b": torch.ones(3, 5, dtype=torch.bool), "c": torch.zeros(0).bool()})
    entropy = 8 * (-0.25 * math.log2(0.25) - 0.75 * math.log2(0.75))
    assert entropy_bound(mask, 0) == pytest.approx(entropy / 8)
    assert entropy_bound(mask) == pytest.approx((entropy + 32 * 17) / 8)
    assert entropy_bound(mask, 16) == pytest.approx((entropy + 16 * 17) / 8)
    assert entropy_bound(Mask({})) == 0


def test_awkward_tensors(tmp_path: Path) -> None:
    nan = torch.tensor([0x7FC12345, -0x80000000, 0, 0x7F800000], dtype=torch.int32).view(torch.float32)
    weights = {
        "nan": nan.clone(), "scalar": torch.tensor(3.5), "cut": torch.zeros(2, 3), "full": torch.randn(4, 1, 2),
        "empty": torch.zeros(0, 5), "half": torch.tensor([1.5, 0.0]).bfloat16(), "count": torch.tensor(7),
        "kept/scalar": torch.tensor([True, False]), "turned": torch.arange(6.0).view(2, 3).t(),
        "gone": torch.tensor(0.0),
    }  # fmt: skip
    mask = Mask({
        "gone": torch.tensor(False), "scalar": torch.tensor(True), "nan": torch.tensor([True, True, False, True]),
        "cut": torch.zeros(2, 3, dtype=torch.bool), "full": torch.ones(4, 1, 2, dtype=torch.bool),
        "empty": torch.zeros(0, 5, dtype=torch.bool), "half": torch.tensor([True, False]),
        "turned": torch.ones(3, 2, dtype=torch.bool),
    })  # fmt: skip
    save_packed(weights, mask, tmp_path / "x")
    assert_same(weights, mask, tmp_path / "x")
    save_packed(weights, Mask({}), tmp_path / "y")
    assert_same(weights, Mask({}), tmp_path / "y")


def test_tensors_that_share_memory_are_both_kept(tmp_path: Path) -> None:
    shared = torch.randn(4)
    weights = {"a": shared, "b": shared, "c": shared}
    mask = Mask({"c": torch.ones(4, dtype=torch.bool)})
    save_packed(weights, mask, tmp_path / "x")
    assert_same(weights, mask, tmp_path / "x")


DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.lists(st.integers(0, 5), max_size=4), st.sampled_from(DTYPES), st.booleans()), max_size=5),
    st.floats(0, 1),
    st.integers(0, 2**16),
)
def test_any_tensors_come_back(
    tmp_path_factory: pytest.TempPathFactory,
    shapes: list[tuple[list[int], torch.dtype, bool]],
    density: float,
    seed: int,
) -> None:
    generator = np.random.default_rng(seed)
    weights, masks = {}, {}
    for i, (shape, dtype, masked) in enumerate(shapes):
        raw = generator.integers(0, 256, math.prod(shape) * dtype.itemsize, dtype=np.uint8)  # NaN of any kind, too
        flat = torch.empty(math.prod(shape), dtype=dtype)
        flat.view(torch.uint8).copy_(torch.from_numpy(raw))
        weights[f"w{i}"] = flat.view(shape)
        if masked:
            kept = torch.from_numpy(np.asarray(generator.random(shape) < density))
            weights[f"w{i}"][~kept] = 0
            masks[f"w{i}"] = kept
    path = tmp_path_factory.getbasetemp() / "any.safetensors"
    save_packed(weights, Mask(masks), path)
    assert_same(weights, Mask(masks), path)


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    kept = torch.tensor([True, False])
    with pytest.raises(PrunescopeError, match="1 weights of 'w' are not zero"):
        pack({"w": torch.ones(2)}, Mask({"w": kept}))
    with pytest.raises(PrunescopeError, match="no such weights"):
        save_packed({"w": torch.ones(2)}, Mask({"v": kept}), tmp_path / "x")
    assert not list(tmp_path.iterdir())


# -- files that are not what they say


def rewritten(path: Path, out: Path, change: Any) -> Path:
    """The file with its facts and tensors changed."""
    tensors = load_file(path)
    facts = json.loads(zlib.decompress(tensors["facts"].numpy().tobytes()))
    tensors["facts"] = torch.zeros(0)
    change(facts, tensors)
    if not tensors["facts"].numel():
        tensors["facts"] = torch.tensor(list(zlib.compress(json.dumps(facts).encode())), dtype=torch.uint8)
    save_file(tensors, out, metadata={"prunescope": "packed 1"})
    return out


def small(path: Path) -> Path:
    weights = torch.tensor([[1.0, 0.0, 2.0]])
    save_packed({"w": weights, "n": torch.tensor(1)}, Mask({"w": weights != 0}), path)
    return path


def entry(*told: Any) -> Any:
    """Say something else of the masked tensor: [name, kind, shape, kept, code, shift, length]."""
    return lambda facts, tensors: facts["tensors"].__setitem__(0, list(told))


def replaced(**changed: Tensor) -> Any:
    return lambda facts, tensors: tensors.update({name.replace("_", "/"): value for name, value in changed.items()})


HARM: dict[str, Any] = {
    "no facts": lambda facts, tensors: tensors.pop("masks"),
    "values are missing": lambda facts, tensors: tensors.pop("values/int64"),
    "too few values": replaced(values_float32=torch.ones(1)),
    "too many values": replaced(values_float32=torch.ones(3)),
    "values in a table": replaced(values_float32=torch.ones(2, 1)),
    "a number of values": replaced(values_float32=torch.tensor(1.0)),
    "too many bytes of masks": replaced(masks=torch.zeros(2, dtype=torch.uint8)),
    "facts that are no JSON": replaced(facts=torch.tensor(list(zlib.compress(b"{")), dtype=torch.uint8)),
    "facts that are a number": replaced(facts=torch.tensor(list(zlib.compress(b"3")), dtype=torch.uint8)),
    "facts that are noise": replaced(facts=torch.tensor([1, 2, 3], dtype=torch.uint8)),
    "facts that explode": replaced(facts=torch.tensor(list(zlib.compress(bytes(2**26 + 1))), dtype=torch.uint8)),
    "another shape": entry("w", "float32", [1, 40], 2, "bits", 0, 1),
    "a negative shape": entry("w", "float32", [-1, -3], 2, "bits", 0, 1),
    "a shape of words": entry("w", "float32", ["1", 3], 2, "bits", 0, 1),
    "no shape": entry("w", "float32", None, 2, "bits", 0, 1),
    "a shape of truths": entry("w", "float32", [True, 3], 2, "bits", 0, 1),
    "too much told": entry("w", "float32", [1, 3], 2, "bits", 0, 1, 9),
    "too little told": entry("w", "float32"),
    "an unknown code": entry("w", "float32", [1, 3], 2, "huffman", 0, 1),
    "an unknown kind": entry("w", "float33", [1, 3], 2, "bits", 0, 1),
    "a shift of words": entry("w", "float32", [1, 3], 2, "kept gaps", "1", 1),
    "a negative length": entry("w", "float32", [1, 3], 2, "bits", 0, -1),
    "kept less than nothing": entry("w", "float32", [1, 3], -2, "bits", 0, 1),
    "a name that is none": entry([], "float32", [1, 3], 2, "bits", 0, 1),
    "tensors as a number": lambda facts, tensors: facts.update(tensors=3),
    "no order of masks": lambda facts, tensors: facts.pop("masks"),
    "a mask of what has none": lambda facts, tensors: facts.update(masks=[1]),
    "a mask of nothing": lambda facts, tensors: facts.update(masks=[7]),
}


@pytest.mark.parametrize("harm", HARM)
def test_damage_is_named(harm: str, tmp_path: Path) -> None:
    path = rewritten(small(tmp_path / "x"), tmp_path / "harmed", HARM[harm])
    with pytest.raises(PrunescopeError, match=r"packed weights .*harmed: damaged"):
        load_packed(path)


def test_a_few_bytes_do_not_become_a_terabyte(tmp_path: Path) -> None:
    def bomb(facts: Any, tensors: Any) -> None:
        facts["tensors"][0] = ["w", "float32", [10**6, 10**6], 0, "kept gaps", 0, 0]
        tensors["masks"], tensors["values/float32"] = torch.zeros(0, dtype=torch.uint8), torch.zeros(0)

    path = rewritten(small(tmp_path / "x"), tmp_path / "bomb", bomb)
    with pytest.raises(PrunescopeError, match=r"unpack to 4,000,000,000,008 bytes; pass limit=4000000000008"):
        load_packed(path)
    with pytest.raises(PrunescopeError, match="unpack to 20 bytes"):
        load_packed(tmp_path / "x", limit=19)
    assert load_packed(tmp_path / "x", limit=20)[1].kept == 2


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PrunescopeError, match="no such file"):
        load_packed(tmp_path / "absent")
    (tmp_path / "text").write_text("hello")
    save_file({"w": torch.ones(1)}, tmp_path / "plain")
    save_file({"w": torch.ones(1)}, tmp_path / "listed", metadata={"prunescope": '["w"]'})  # as checkpoints have it
    for name in ("text", "plain", "listed"):
        with pytest.raises(PrunescopeError, match="not written by save_packed"):
            load_packed(tmp_path / name)
    save_file({"w": torch.ones(1)}, tmp_path / "newer", metadata={"prunescope": "packed 2"})
    with pytest.raises(PrunescopeError, match="format 'packed 2'; this version reads 'packed 1'"):
        load_packed(tmp_path / "newer")
    with pytest.raises(PrunescopeError, match=r"hold no tensors of torch\.complex128"):
        pack({"w": torch.zeros(2, dtype=torch.complex128)}, Mask({}))


def test_a_file_cut_anywhere_is_refused_or_whole(tmp_path: Path) -> None:
    raw = small(tmp_path / "x").read_bytes()
    for length in range(len(raw)):
        (tmp_path / "cut").write_bytes(raw[:length])
        with pytest.raises(PrunescopeError):
            load_packed(tmp_path / "cut")
