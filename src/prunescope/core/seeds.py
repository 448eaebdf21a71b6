"""Seeds that depend on what they are for, not on what ran before.

Everything random (initialisation, data order, augmentation, bootstrap) draws from its own generator, seeded by a
hash of a base seed and a label. So nothing needs the global RNG, resuming needs no saved RNG state, and adding a
random step somewhere does not change numbers elsewhere.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch


def derive(seed: int, *labels: object) -> int:
    """A 63-bit seed for the purpose named by `labels`.

    >>> derive(0, "init") == derive(0, "init"), derive(0, "init") == derive(1, "init")
    (True, False)
    """
    text = "/".join([str(int(seed)), *map(str, labels)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def torch_generator(seed: int, *labels: object) -> torch.Generator:
    """A CPU generator for the purpose named by `labels`."""
    return torch.Generator().manual_seed(derive(seed, *labels))


def numpy_generator(seed: int, *labels: object) -> np.random.Generator:
    """A numpy generator for the purpose named by `labels`."""
    return np.random.default_rng(derive(seed, *labels))
