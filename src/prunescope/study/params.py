"""Parameters of cells: what of a study decides an artifact, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prunescope.core.configure import canonical
from prunescope.core.errors import PrunescopeError
from prunescope.core.files import sha256
from prunescope.pruning.recipe import Recipe
from prunescope.study.study import Study


def moving_params(recipe: Recipe) -> dict[str, Any]:
    """What decides how the mask changes in a training, as a recipe; what does not is left out."""
    wanted = ["regrow"]
    if recipe.schedule.gradual:
        wanted += ["criterion", "scope", "granularity", "ignore", "schedule", "target"]
    return {key: value for key, value in canonical(recipe).items() if key in wanted}


def data_params(study: Study) -> dict[str, Any]:
    """The data's config without where it lies: moved data is the same data (its fingerprint is checked when read)."""
    return {key: canonical(value) for key, value in study.data.items() if key not in ("root", "cache", "storage")}


def model_params(study: Study) -> dict[str, Any]:
    """The model's config; a weights file counts by its content, not by its path."""
    params = {key: canonical(value) for key, value in study.model.items() if key != "weights"}
    if path := study.model.get("weights"):
        file = Path(str(path)).expanduser()
        if not file.is_file():
            raise PrunescopeError(f"model.weights: no file at {path}")
        params["weights"] = sha256(file)
    return params
