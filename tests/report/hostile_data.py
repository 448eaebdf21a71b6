"""Data whose names try to break out of the page, and data with many classes. Named in configs as a user would."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from prunescope.data.load import load_data
from prunescope.data.split import Dataset, Split

SCRIPT = "<script>window.broken=1</script>"
NAMES = (
    '</script><img src=x onerror="window.broken=1">',
    "<b>bold</b> & %{x}",
    "\"'><svg/onload=window.broken=1>",
    SCRIPT,
)


def evil(classes: int = 4) -> Dataset:
    """Drawn shapes with hostile names of classes, concepts and facts."""
    data = load_data({"name": "shapes", "size": 16, "train": 240, "val": 80, "test": 80})
    info = {"source": SCRIPT, "causal_concepts": [f"{SCRIPT}0"], "spurious_concepts": ["</style>1"]}
    parts = {name: _renamed(data[name], classes) for name in ("train", "val", "test")}
    return replace(data, name=SCRIPT, info=info, **parts)


def _renamed(split: Split, classes: int) -> Split:
    names = tuple(f"{('</style>', SCRIPT)[i % 2 == 0]}{i}" for i in range(len(split.concept_names)))
    assert split.segments is not None
    seen = tuple(f"{NAMES[i % 4]}{i}" for i in range(len(split.segments.names)))
    segments = replace(split.segments, names=seen, categories=tuple(f"<i>{c}" for c in split.segments.categories))
    return replace(
        split, classes=NAMES[:classes], concept_names=names, labels=split.labels % classes, segments=segments
    )  # fmt: skip


def many(classes: int = 200) -> Dataset:
    """Noise in many classes; the last class has no test images."""
    generator = np.random.default_rng(0)

    def split(name: str, n: int) -> Split:
        labels = torch.arange(n) % (classes - (name == "test"))
        images = torch.from_numpy(generator.integers(0, 256, (n, 3, 8, 8), dtype=np.uint8))
        ids = np.array([f"{name}-{i}" for i in range(n)])
        return Split(images, labels, ids, tuple(f"class {k}" for k in range(classes)))

    return Dataset("many", split("train", 2 * classes), split("val", classes), split("test", 2 * classes))
