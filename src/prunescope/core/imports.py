"""Users' own functions, named in a config as `package.module:function`."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Mapping
from inspect import Parameter, signature
from typing import Any

from prunescope.core.errors import PrunescopeError, choices


def imported(path: str, kind: str) -> Callable[..., Any]:
    """The function (or class) that `package.module:function` names. The current folder is importable.

    Args:
        kind: what it is wanted for, for messages: `model`.

    >>> imported("math:sqrt", "model")(4)
    2.0

    Raises:
        PrunescopeError: there is no such module, or nothing callable of that name in it.
    """
    module_name, _, name = path.partition(":")
    here = os.getcwd()
    added = here not in sys.path
    if added:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise PrunescopeError(f"{kind} {path!r}: cannot import {module_name!r} ({error})") from error
    finally:
        if added and here in sys.path:
            sys.path.remove(here)
    found = getattr(module, name, None)
    if not callable(found):
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise choices("function", name, known, f"{kind} {path!r}")
    return found


def call(function: Callable[..., Any], options: Mapping[str, Any], offered: Mapping[str, Any], where: str) -> Any:
    """`function(**options)`, plus those of the `offered` arguments that its signature takes.

    >>> call(lambda classes, width=8: (classes, width), {"width": 4}, {"classes": 10, "channels": 3}, "model 'f'")
    (10, 4)

    Raises:
        PrunescopeError: the function takes no such option, or needs one that is not given.
    """
    parameters = signature(function).parameters
    open_ended = any(p.kind is Parameter.VAR_KEYWORD for p in parameters.values())
    names = [n for n, p in parameters.items() if p.kind in (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)]
    if not open_ended:
        for key in options:
            if key not in names:
                raise choices("option", key, [n for n in names if n not in offered], where)
    given = {**{key: value for key, value in offered.items() if open_ended or key in names}, **options}
    needed = [n for n in names if parameters[n].default is Parameter.empty and n not in given]
    if needed:
        raise PrunescopeError(f"{where} needs the option(s) {', '.join(needed)}")
    return function(**given)
