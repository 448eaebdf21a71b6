"""Records are read-only and consistent."""

from __future__ import annotations

import numpy as np
import pytest

from prunescope.core.errors import PrunescopeError
from prunescope.core.types import Record


def test_arrays_cannot_be_written() -> None:
    record = Record("p", {"a": 1}, {"image.x": np.zeros(2)}, ids=np.array(["a", "b"]))
    with pytest.raises(ValueError, match="read-only"):
        record.arrays["image.x"][0] = 1
    assert record.ids is not None
    with pytest.raises(ValueError, match="read-only"):
        record.ids[0] = "c"


def test_rows_must_match_the_image_ids() -> None:
    with pytest.raises(PrunescopeError, match=r"image\.x.*3 rows.*2 image ids"):
        Record("p", {}, {"image.x": np.zeros(3)}, ids=np.array(["a", "b"]))
    with pytest.raises(PrunescopeError):
        Record("p", {}, {"image.x": np.zeros(3)})
