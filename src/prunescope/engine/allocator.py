"""glibc's malloc, told to keep large blocks instead of handing them back after every operation."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # from malloc.h


def tune_allocator() -> bool:
    """Keep freed memory in the process (Linux with glibc only; elsewhere nothing happens). True when it took effect.

    Activations are larger than malloc's mmap threshold, so each is mapped, page-faulted and unmapped by every
    operation: forward passes on the CPU get up to three times slower. No result changes. The price: memory once used
    stays with the process. The command line and its workers call this; importing the library does not.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, 64 * 2**20))
    return [mallopt(key, value) for key, value in settings] == [1, 1, 1]
