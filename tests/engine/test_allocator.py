"""The allocator is told on glibc, elsewhere nothing happens. Asked in processes of their own: it cannot be undone."""

from __future__ import annotations

import ctypes
import platform
import subprocess
import sys
from typing import Any

import pytest

from prunescope.engine.allocator import tune_allocator


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="not glibc")
def test_large_blocks_stay_in_the_process() -> None:
    """After freeing 64 MiB, the memory that the process holds shrinks only without tuning."""
    script = """
import sys, torch
from prunescope.engine.allocator import tune_allocator
if sys.argv[1] == "tuned":
    assert tune_allocator()
held = lambda: int(open("/proc/self/statm").read().split()[1]) * 4096
before = held()
block = torch.ones(16 * 2**20)
del block
print(held() - before)
"""
    kept = {
        how: int(subprocess.run([sys.executable, "-c", script, how], capture_output=True, text=True, check=True).stdout)
        for how in ("plain", "tuned")
    }
    assert kept["plain"] < 16 * 2**20 < 60 * 2**20 < kept["tuned"]


def test_nothing_happens_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert tune_allocator() is False


def test_another_c_library_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise OSError(name)

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert tune_allocator() is False


def test_importing_the_library_does_not_tune() -> None:
    script = (
        "import ctypes\nreal = ctypes.CDLL\nasked = []\n"
        "ctypes.CDLL = lambda *a, **k: asked.append(a) or real(*a, **k)\n"
        "import prunescope.engine.allocator, prunescope.engine.train\nassert ('libc.so.6',) not in asked, asked"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
