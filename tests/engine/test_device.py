"""Devices by name, and what they compute natively."""

from __future__ import annotations

import pytest
import torch

from prunescope.core.errors import PrunescopeError
from prunescope.engine.device import computes_bf16, pick_device


def test_devices_by_name() -> None:
    assert pick_device("cpu") == torch.device("cpu")
    with pytest.raises(PrunescopeError, match="device 'abacus' cannot be used here: "):
        pick_device("abacus")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused_in_one_line() -> None:
    with pytest.raises(PrunescopeError, match="'cuda' cannot be used") as error:
        pick_device("cuda")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")]
)
def test_auto_prefers_accelerators(monkeypatch: pytest.MonkeyPatch, cuda: bool, mps: bool, expected: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert pick_device().type == expected
    assert pick_device().index == (1 if cuda else None)


@pytest.mark.parametrize(
    ("avx512", "amx", "expected"), [(True, False, True), (False, True, True), (False, False, False)]
)
def test_bf16_on_cpus(monkeypatch: pytest.MonkeyPatch, avx512: bool, amx: bool, expected: bool) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert computes_bf16(torch.device("cpu")) is expected
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported")  # an older torch
    assert computes_bf16(torch.device("cpu")) is avx512


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_bf16_on_gpus(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], expected: bool) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert computes_bf16(torch.device("cuda")) is expected
    assert computes_bf16(torch.device("meta")) is False
