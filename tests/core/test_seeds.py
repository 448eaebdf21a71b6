"""Seeds are pinned: a change here would silently change every published number."""

from __future__ import annotations

import numpy as np
import torch

from prunescope.core.seeds import derive, numpy_generator, torch_generator


def test_derived_seeds_are_pinned() -> None:
    assert derive(0, "init") == 1519069808562059438
    assert derive(1, "order", 3) != derive(1, "order", 31)


def test_generators_are_reproducible_and_leave_the_global_state_alone() -> None:
    before = torch.get_rng_state()
    a, b = torch.rand(3, generator=torch_generator(0, "x")), torch.rand(3, generator=torch_generator(0, "x"))
    assert torch.equal(a, b)
    assert np.array_equal(numpy_generator(0, "x").random(3), numpy_generator(0, "x").random(3))
    assert torch.equal(torch.get_rng_state(), before)
