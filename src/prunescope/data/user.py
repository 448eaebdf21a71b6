"""`package.module:function`: a data set that the user's own code makes."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prunescope.core.errors import PrunescopeError, choices
from prunescope.data.sources import sources
from prunescope.data.split import Dataset


def user_dataset(spec: str, options: Mapping[str, Any]) -> Dataset:
    """Call `package.module:function` with the options; modules in the current folder are found, too.

    Raises:
        PrunescopeError: no such module or function, options it does not take, or it returned something else.
    """
    module_name, _, name = spec.partition(":")
    with _current_folder_importable():
        function = _find(module_name, name)
        try:
            inspect.signature(function).bind(**options)
        except TypeError as error:
            raise PrunescopeError(f"data {spec}{inspect.signature(function)}: {error}") from None
        made = function(**options)
    if not isinstance(made, Dataset):
        raise PrunescopeError(f"data {spec} must return a prunescope.data.Dataset, got {type(made).__name__}")
    return made


def _find(module_name: str, name: str) -> Any:
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # the module is there, but something that it imports is not: the traceback says where
        known = ", ".join(sources)
        message = f"data {module_name}:{name}: there is no module {error.name!r}, nor such a data source: {known}"
        raise PrunescopeError(message) from None
    function = getattr(module, name, None)
    if not callable(function):
        public = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise choices("function", name, public, f"module {module_name}")
    return function


@contextmanager
def _current_folder_importable() -> Iterator[None]:
    """Console scripts, unlike `python -m`, do not look for modules in the current folder."""
    folder = str(Path.cwd())
    if folder in sys.path or "" in sys.path:
        yield
        return
    sys.path.insert(0, folder)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        if folder in sys.path:
            sys.path.remove(folder)
