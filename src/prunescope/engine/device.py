"""Which device, and what it computes natively."""

from __future__ import annotations

import torch

from prunescope.core.errors import PrunescopeError


def pick_device(name: str = "auto") -> torch.device:
    """A device by name; `auto` is the accelerator if there is one, else the CPU."""
    if name == "auto":
        if torch.accelerator.is_available():
            found = torch.accelerator.current_accelerator()
            if found is not None:
                return found
        return torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise PrunescopeError(f"device {name!r} cannot be used here: {reason}") from None
    return device


def computes_bf16(device: torch.device) -> bool:
    """Whether bfloat16 is native there; elsewhere it is emulated, and slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return False
