"""Which device, and what it computes natively."""

from __future__ import annotations

import torch

from prunescope.core.errors import PrunescopeError


def pick_device(name: str = "auto") -> torch.device:
    """A device by name; `auto` is the accelerator if there is one, else the CPU.

    Raises:
        PrunescopeError: there is no such device here.
    """
    if name == "auto":
        return _accelerator() or torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise PrunescopeError(f"device {name!r} cannot be used here: {reason}") from None
    return device


def _accelerator() -> torch.device | None:
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("mps") if torch.backends.mps.is_available() else None


def computes_bf16(device: torch.device) -> bool:
    """Whether bfloat16 is native there; elsewhere it is emulated, and slower than float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)  # Ampere
    if device.type == "cpu":  # no public question exists
        return any(
            getattr(torch.cpu, question, bool)() for question in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        )
    return False
