"""torchvision, also beside a torch build in which its compiled operators do not load."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import torch


def torchvision_module(name: str = "torchvision") -> Any:
    """`import name` for torchvision or one of its submodules.

    Where the compiled operators cannot be loaded (a CPU torch beside the registry's CUDA torchvision), importing
    fails while fake kernels are registered for operators that nobody declared. Then, and only then, the two
    schemas are declared and the import is tried again. No classification model uses these operators.
    """
    try:
        return importlib.import_module(name)
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    _declare_schemas()
    return importlib.import_module(name)


def _declare_schemas() -> None:
    for module in [m for m in sys.modules if m == "torchvision" or m.startswith("torchvision.")]:
        del sys.modules[module]  # half-imported
    torch.library.define("torchvision::nms", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    torch.library.define("torchvision::qnms", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
