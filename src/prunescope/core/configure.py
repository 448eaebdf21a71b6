"""Parts from plain mappings and back: the fields of a dataclass are its configuration, there is no other schema."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from difflib import get_close_matches
from enum import Enum
from typing import Any, TypeVar, get_args, get_type_hints

from pydantic import TypeAdapter, ValidationError

from prunescope.core.errors import PrunescopeError
from prunescope.core.registry import Registry

T = TypeVar("T")


def configure(part: type[T], options: Mapping[str, Any], where: str) -> T:
    """An instance of the dataclass `part` from a mapping, as read from YAML. Unknown keys and wrong types are refused.

    Args:
        where: the place in the user's file, for messages: `recipes[0].schedule`.

    Raises:
        PrunescopeError: one line per problem, all problems of this part at once.
    """
    allowed = [field.name for field in fields(part) if field.init]  # type: ignore[arg-type]
    problems = [_unknown(f"{where}.{key}", key, allowed) for key in options if key not in allowed]
    hints = get_type_hints(part)
    known: dict[str, Any] = {}
    for key in (key for key in options if key in allowed):
        try:
            known[key] = _nested(hints[key], options[key], f"{where}.{key}")
        except PrunescopeError as error:
            problems.append(str(error))
    if problems:  # what stands in for the refused values would only raise more, misleading, problems
        known = {key: value for key, value in known.items() if not isinstance(value, Mapping)}
    try:
        made = TypeAdapter(part).validate_python(known)
    except PrunescopeError as error:
        raise PrunescopeError("\n".join([*problems, f"{where}: {error}"])) from None
    except ValidationError as error:
        raise PrunescopeError("\n".join(problems + [describe(e, where) for e in error.errors()])) from None
    if problems:
        raise PrunescopeError("\n".join(problems))
    return made


def named(registry: Registry[type[T]], spec: object, where: str) -> T:
    """A registered part from `"name"` or `{"name": ..., option: value}`."""
    name, options = split_spec(spec, where)
    if name not in registry:
        registry[name]  # raises with the nearest name
    return configure(registry[name], options, where)


def split_spec(spec: object, where: str) -> tuple[str, dict[str, Any]]:
    """The name and the options in `"name"` or `{"name": ..., option: value}`."""
    if isinstance(spec, str):
        return spec, {}
    if isinstance(spec, Mapping) and isinstance(spec.get("name"), str):
        return spec["name"], {key: value for key, value in spec.items() if key != "name"}
    raise PrunescopeError(f"{where}: expected a name or a mapping with `name`, got {spec!r}")


def canonical(value: object) -> Any:
    """JSON-able form of a part in which fields at their default are left out.

    So a new option with a harmless default does not rename what was stored before it existed (after open_lth).
    """
    if is_dataclass(value) and not isinstance(value, type):
        shown = {
            field.name: canonical(getattr(value, field.name))
            for field in fields(value)
            if getattr(value, field.name) != _default(field)
        }
        name = getattr(type(value), "name", None)
        return {"name": name, **shown} if isinstance(name, str) else shown
    if isinstance(value, Mapping):
        return {str(key): canonical(item) for key, item in sorted(value.items(), key=lambda pair: str(pair[0]))}
    if isinstance(value, (list, tuple)):
        return [canonical(item) for item in value]
    if isinstance(value, Enum):
        return value.value
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)


def describe(error: Any, where: str) -> str:
    """One line for one pydantic error."""
    place = where + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error["loc"])
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "value_error":
        return f"{place}: {message}"
    if error["type"] == "extra_forbidden":
        return f"{place}: unknown key"
    got = error.get("input")
    if error["type"] == "missing":
        return f"{place}: required"
    return f"{place}: {message[:1].lower()}{message[1:]}, got {got!r}"


def _nested(hint: Any, value: Any, where: str) -> Any:
    """A mapping for a field that is itself a dataclass (or one or None) becomes that dataclass."""
    for option in (hint, *get_args(hint)):
        if is_dataclass(option) and isinstance(value, Mapping):
            return configure(option, value, where)  # type: ignore[arg-type]
    return value


def _unknown(place: str, key: str, allowed: list[str]) -> str:
    near = get_close_matches(str(key), allowed, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return f"{place}: unknown key{hint} Known: {', '.join(allowed) or '(no options)'}"


def _default(field: Any) -> Any:
    if field.default is not MISSING:
        return field.default
    return field.default_factory() if field.default_factory is not MISSING else MISSING
