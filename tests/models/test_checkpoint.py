from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from prunescope.core.errors import PrunescopeError
from prunescope.core.files import atomic_folder
from prunescope.core.mask import Mask
from prunescope.models.checkpoint import Checkpoint
from prunescope.models.layers import prunable
from prunescope.models.zoo import build_model

HISTORY = ({"epoch": 1, "loss": 0.1 + 0.2, "accuracy": 1 / 3, "lr": 0.1, "seconds": 1.5, "val_accuracy": None},)


def pruned(seed: int = 0) -> tuple[nn.Module, Mask]:
    model = build_model("resnet8", classes=3, channels=1, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    parameters = dict(model.named_parameters())
    mask = Mask({n: torch.rand(parameters[n].shape, generator=generator) < 0.4 for n in prunable(model)})
    mask.apply_(model)
    return model, mask


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()


def test_round_trip(tmp_path: Path) -> None:
    model, mask = pruned()
    model(torch.randn(4, 1, 8, 8))  # moves the buffers
    checkpoint = Checkpoint.of(model, mask, round=3, history=HISTORY, info={"criterion": "magnitude"})
    with atomic_folder(tmp_path / "cell") as folder:
        checkpoint.save(folder)
    found = Checkpoint.load(tmp_path / "cell")
    assert found.mask == mask
    assert (found.round, found.history, found.info) == (3, HISTORY, {"criterion": "magnitude"})
    assert found.density == mask.density
    assert list(found.weights) == list(model.state_dict())  # order too
    assert found.weights["bn1.num_batches_tracked"].item() == 1

    other = build_model("resnet8", classes=3, channels=1, seed=9)
    assert found.into(other) is other
    for name, tensor in model.state_dict().items():
        assert bits(other.state_dict()[name]) == bits(tensor)
    images = torch.randn(2, 1, 8, 8)
    assert torch.equal(model.eval()(images), other.eval()(images))


def test_dense_and_empty_round_trip(tmp_path: Path) -> None:
    Checkpoint.of(nn.Linear(2, 2)).save(tmp_path / "dense")
    found = Checkpoint.load(tmp_path / "dense")
    assert found.mask is None
    assert found.density == 1.0
    assert not (tmp_path / "dense" / "mask.safetensors").exists()
    Checkpoint.of(nn.ReLU(), Mask({})).save(tmp_path / "empty")
    assert Checkpoint.load(tmp_path / "empty").mask == Mask({})


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.bool]
)
def test_every_bit_survives(tmp_path: Path, dtype: torch.dtype) -> None:
    special = torch.tensor([0.0, -0.0, 1e-40, 3.14159, -7.0, float("inf"), float("nan")])
    tensor = (torch.arange(7) if dtype in (torch.int64, torch.bool) else special).to(dtype)
    Checkpoint({"x": tensor, "scalar": tensor[3].clone()}).save(tmp_path)
    found = Checkpoint.load(tmp_path).weights
    assert found["x"].dtype == dtype
    assert bits(found["x"]) == bits(tensor)
    assert bits(found["scalar"]) == bits(tensor[3])


@settings(max_examples=30, deadline=None)
@given(shapes=st.lists(st.lists(st.integers(0, 5), max_size=4), max_size=4), seed=st.integers(0, 1000))
def test_masks_of_any_shape_survive(
    tmp_path_factory: pytest.TempPathFactory, shapes: list[list[int]], seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    # Names in falling order: a file sorts its tensors, but the mask's order decides ties of the next cut.
    mask = Mask({f"p{9 - i}": torch.rand(shape, generator=generator) < 0.5 for i, shape in enumerate(shapes)})
    folder = tmp_path_factory.mktemp("masks")
    Checkpoint({name: tensor.float() for name, tensor in mask.items()}, mask).save(folder)
    assert Checkpoint.load(folder).mask == mask


def test_a_mask_costs_a_bit_a_weight(tmp_path: Path) -> None:
    model = nn.Linear(1000, 80)
    Checkpoint.of(model, Mask.dense(model, ["weight"])).save(tmp_path)
    assert (tmp_path / "mask.safetensors").stat().st_size < 80_000 / 8 + 500


def test_equal_checkpoints_are_equal_bytes(tmp_path: Path) -> None:
    for name in "ab":
        model, mask = pruned()
        Checkpoint.of(model, mask, history=HISTORY).save(tmp_path / name)
    for file in ("weights.safetensors", "mask.safetensors", "checkpoint.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_of_is_a_copy_also_of_channels_last(tmp_path: Path) -> None:
    model = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    expected = model.weight.detach().clone()
    checkpoint = Checkpoint.of(model)
    model.weight.data.zero_()
    checkpoint.save(tmp_path)
    assert torch.equal(Checkpoint.load(tmp_path).weights["weight"], expected)


def test_numbers_of_numpy_and_torch_may_be_in_the_history(tmp_path: Path) -> None:
    history = [{"loss": np.float32(0.5), "n": np.int64(3), "accuracy": torch.tensor(0.25), "nan": math.nan}]
    Checkpoint.of(nn.ReLU(), history=history).save(tmp_path)
    (found,) = Checkpoint.load(tmp_path).history
    assert (found["loss"], found["n"], found["accuracy"]) == (0.5, 3, 0.25)
    assert math.isnan(found["nan"])


# -- what is wrong is found ---------------------------------------------------------------------------------------


def test_pruned_weights_must_be_zero() -> None:
    mask = Mask({"weight": torch.tensor([[True, False]])})
    Checkpoint({"weight": torch.tensor([[1.0, -0.0]])}, mask)
    for value in (1e-30, math.nan):
        with pytest.raises(PrunescopeError, match="1 weights of 'weight' are not zero"):
            Checkpoint({"weight": torch.tensor([[1.0, value]])}, mask)
    with pytest.raises(PrunescopeError, match=r"shape \(1, 2\).*\(2, 2\)"):
        Checkpoint({"weight": torch.zeros(2, 2)}, mask)
    with pytest.raises(PrunescopeError, match="no such weights"):
        Checkpoint({"other": torch.zeros(2, 2)}, mask)


def test_pruned_weights_that_are_not_zero_on_disk_are_found(tmp_path: Path) -> None:
    model, mask = pruned()
    Checkpoint.of(model, mask).save(tmp_path)
    Checkpoint.of(build_model("resnet8", classes=3, channels=1, seed=0)).save(tmp_path / "dense")
    (tmp_path / "dense" / "weights.safetensors").replace(tmp_path / "weights.safetensors")
    with pytest.raises(PrunescopeError, match="not zero although the mask prunes them"):
        Checkpoint.load(tmp_path)


@pytest.mark.parametrize("file", ["weights.safetensors", "mask.safetensors", "checkpoint.json"])
@pytest.mark.parametrize("damage", ["missing", "empty", "half", "garbage"])
def test_damaged_files_are_named(tmp_path: Path, file: str, damage: str) -> None:
    model, mask = pruned()
    Checkpoint.of(model, mask).save(tmp_path)
    path = tmp_path / file
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes({"empty": b"", "half": content[: len(content) // 2], "garbage": b"\xff" * 50}[damage])
    with pytest.raises(PrunescopeError, match=file):
        Checkpoint.load(tmp_path)


def test_other_formats_and_foreign_files(tmp_path: Path) -> None:
    Checkpoint.of(nn.Linear(1, 1)).save(tmp_path)
    facts = json.loads((tmp_path / "checkpoint.json").read_text())
    for change, message in [({"format": 2}, "reads format 1"), ({"history": ...}, "lacks history")]:
        changed = {key: value for key, value in {**facts, **change}.items() if value is not ...}
        (tmp_path / "checkpoint.json").write_text(json.dumps(changed))
        with pytest.raises(PrunescopeError, match=f"checkpoint.json.*{message}"):
            Checkpoint.load(tmp_path)
    (tmp_path / "checkpoint.json").write_text(json.dumps(facts))
    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(1, 1)}, tmp_path / "weights.safetensors")
    with pytest.raises(PrunescopeError, match="not written by prunescope"):
        Checkpoint.load(tmp_path)


def test_into_another_network_is_refused() -> None:
    with pytest.raises(PrunescopeError, match="of the checkpoint do not fit Linear"):
        Checkpoint.of(nn.Linear(2, 2)).into(nn.Linear(2, 3))
