from __future__ import annotations

import argparse
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

from prunescope.core.errors import PrunescopeError
from prunescope.models.weights import PREFIXES, WRAPPERS, load_weights, read_weights, strip_prefixes

STATE = {"conv.weight": torch.arange(6.0).view(2, 3), "conv.bias": torch.tensor([-0.0, 1.0])}


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return set(first) == set(second) and all(torch.equal(first[name], second[name]) for name in first)


def test_safetensors(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "w.safetensors")
    assert equal(read_weights(tmp_path / "w.safetensors"), STATE)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".ckpt", ".pth.tar", ".bin"])
@pytest.mark.parametrize("old_format", [False, True])
def test_pickles_of_tensors(tmp_path: Path, suffix: str, old_format: bool) -> None:
    path = tmp_path / f"w{suffix}"
    torch.save(STATE, path, _use_new_zipfile_serialization=not old_format)
    assert equal(read_weights(str(path)), STATE)


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_wrappers(tmp_path: Path, wrapper: str) -> None:
    torch.save({"epoch": 3, "optimizer": {"lr": 0.1}, wrapper: STATE}, tmp_path / "w.pt")
    assert equal(read_weights(tmp_path / "w.pt"), STATE)


def test_the_weights_come_before_their_moving_average(tmp_path: Path) -> None:
    average = {name: tensor + 1 for name, tensor in STATE.items()}
    torch.save({"ema": average, "checkpoint": 1, "state_dict": {"model": STATE}}, tmp_path / "w.pt")
    assert equal(read_weights(tmp_path / "w.pt"), STATE)


@given(st.lists(st.sampled_from(PREFIXES), max_size=4))
def test_any_pile_of_prefixes_is_taken_off(prefixes: list[str]) -> None:
    piled = {"".join(prefixes) + name: tensor for name, tensor in STATE.items()}
    assert equal(strip_prefixes(piled), STATE)


def test_a_prefix_that_not_all_share_stays() -> None:
    assert list(strip_prefixes({"model.a": torch.zeros(1), "head": torch.zeros(1)})) == ["model.a", "head"]
    assert strip_prefixes({}) == {}


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("exploded",)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_malicious_pickle_is_refused_and_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, legacy: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil.pt"
    torch.save({"state_dict": STATE, "x": Bomb()}, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(PrunescopeError, match=r"evil\.pt: refused.*mkdir.*safetensors"):
        read_weights(path)
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(PrunescopeError, match=r"evil\.pt: (refused|damaged)"):
        read_weights(path)
    assert not (tmp_path / "exploded").exists()


def test_the_bomb_is_real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pickle.loads(pickle.dumps(Bomb()))
    assert (tmp_path / "exploded").exists()


def test_whole_networks_and_settings_are_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "net.pt")
    with pytest.raises(PrunescopeError, match=r"refused.*Linear"):
        read_weights(tmp_path / "net.pt")
    torch.save({"state_dict": STATE, "args": argparse.Namespace(lr=1)}, tmp_path / "args.pt")
    with pytest.raises(PrunescopeError, match=r"refused.*argparse\.Namespace"):
        read_weights(tmp_path / "args.pt")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_truncated_files_are_named(tmp_path: Path, share: float, suffix: str) -> None:
    path = tmp_path / f"w{suffix}"
    save_file(STATE, path) if suffix == ".safetensors" else torch.save(STATE, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(PrunescopeError, match=r"w\.(safetensors|pt)"):
        read_weights(path)


@given(st.binary(max_size=200))
def test_garbage_is_named(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    folder = tmp_path_factory.mktemp("garbage")
    for suffix in (".safetensors", ".pt"):
        path = folder / f"w{suffix}"
        path.write_bytes(content)
        with pytest.raises(PrunescopeError, match=f"w{suffix}"):
            read_weights(path)


def test_no_weights_in_it(tmp_path: Path) -> None:
    for content, message in [
        ({"epoch": 3}, "no weights found, it holds a mapping with epoch"),
        ([STATE], "no weights found, it holds list"),
        ({}, "no weights found"),
        ({**STATE, "epoch": 3}, "entries that are no tensors: epoch"),
    ]:
        torch.save(content, tmp_path / "w.pt")
        with pytest.raises(PrunescopeError, match=message):
            read_weights(tmp_path / "w.pt")
    with pytest.raises(PrunescopeError, match="no such file"):
        read_weights(tmp_path / "nothing.pt")
    with pytest.raises(PrunescopeError, match=r"unknown kind of file '\.onnx'; known: \.safetensors"):
        read_weights(tmp_path / "w.onnx")


# -- loading ------------------------------------------------------------------------------------------------------


def net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 3))


def test_a_mismatch_lists_and_counts_and_changes_nothing() -> None:
    model, state = net(), net().state_dict()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    del state["3.bias"]
    state["0.weight"] = torch.zeros(2, 3, 3, 3)
    for i in range(5):
        state[f"extra{i}"] = torch.zeros(1)
    with pytest.raises(PrunescopeError) as caught:
        load_weights(model, state, where="file.pt")
    assert str(caught.value) == (
        "weights file.pt do not fit Sequential: 1 missing (3.bias); 5 unexpected (extra0, extra1, extra2, ...); "
        "1 of another shape (0.weight (2, 3, 3, 3), the network has (2, 1, 3, 3))"
    )
    assert equal(model.state_dict(), before)


def test_counters_that_old_files_lack_may_be_missing() -> None:
    model, state = net(), net().state_dict()
    del state["1.num_batches_tracked"]
    load_weights(model, state)
    assert equal({**state, "1.num_batches_tracked": torch.tensor(0)}, model.state_dict())


def test_a_prefix_of_the_networks_own_is_put_back(tmp_path: Path) -> None:
    class Wrapper(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = nn.Sequential(nn.Linear(2, 2))

    source, target = Wrapper(), Wrapper()
    torch.save(source.state_dict(), tmp_path / "w.pt")
    load_weights(target, read_weights(tmp_path / "w.pt"))
    assert equal(source.state_dict(), target.state_dict())
    load_weights(target, source.state_dict())
    with pytest.raises(PrunescopeError, match=r"1 missing \(model\.0\.bias\)"):
        load_weights(target, {"0.weight": torch.zeros(2, 2)})
