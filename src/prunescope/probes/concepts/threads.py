"""Fits on one thread: they are many short steps, and threads that wait for each other cost more than they give."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

#: Numbers in the table of embeddings from which on more threads pay.
_LARGE = 4_000_000


@contextmanager
def threads_for(numbers: int) -> Iterator[None]:
    """One thread inside, unless the table of embeddings is large; as many as before afterwards.

    On busy cores two threads were measured to take ten times as long as one.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(before if numbers >= _LARGE else 1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
