"""A study's folder on disk: its config, its plan, and the refusal to mix two studies in one folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from prunescope.core.errors import PrunescopeError
from prunescope.core.files import read_json, write_atomic
from prunescope.study.config import read_study, read_yaml
from prunescope.study.plan import Plan, Point
from prunescope.study.study import Study

#: Options that say where data lies or how cells are run: they may differ between two runs of one study.
_FREE = {"data": ("root", "cache", "storage")}
_FREE_SECTIONS = ("execution",)
#: Sections that may grow: what is there stays, more may come.
_GROWING = ("recipes", "probes", "seeds", "controls", "claims")


def open_folder(root: Path, plan: Plan) -> None:
    """Write config and plan into `root`, unless another study lives there.

    The same study may grow (more seeds, recipes, probes, controls); what it has may not change, once anything of it is
    computed: a first try that failed early leaves nothing to protect.

    Raises:
        PrunescopeError: the folder holds another study; the message names every key that differs.
    """
    old_file = root / "study.yaml"
    if old_file.is_file() and any((root / "cells").glob("*/cell.json")):
        old = read_yaml(old_file)
        if not isinstance(old, dict):
            raise PrunescopeError(f"{old_file} is damaged: it is not a study; give another folder with --out")
        different = differences(old, plan.study.as_mapping())
        if different:
            raise PrunescopeError(
                f"{root} holds a study with another config; give another folder with --out, or undo these changes:\n"
                + "\n".join(f"  {key}: {_say(was)} there, {_say(now)} here" for key, was, now in different)
            )
    elif root.exists() and any(root.iterdir()) and not old_file.is_file() and not (root / "cells").is_dir():
        raise PrunescopeError(f"{root} exists and is not a study folder; give another one with --out")
    root.mkdir(parents=True, exist_ok=True)
    write_atomic(old_file, yaml.safe_dump(plan.study.as_mapping(), sort_keys=False))
    points = {"points": [asdict(p) for p in plan.points], "floor": [asdict(p) for p in plan.floor]}
    write_atomic(root / "plan.json", json.dumps(points, indent=1))


def read_folder(root: Path) -> tuple[Study, list[Point], list[Point]]:
    """The study, its points and its floor pairs, as planned by the last run in `root`."""
    if not (root / "study.yaml").is_file() or not (root / "plan.json").is_file():
        raise PrunescopeError(f"no study in {root}: expected study.yaml and plan.json; is the path right?")
    study = read_study(root / "study.yaml")
    try:
        plan = read_json(root / "plan.json")
        return study, [Point(**p) for p in plan["points"]], [Point(**p) for p in plan["floor"]]
    except PrunescopeError as error:
        raise PrunescopeError(f"{error}; run the study again") from None
    except (KeyError, TypeError) as error:
        raise PrunescopeError(f"{root / 'plan.json'} is damaged ({error}); run the study again") from None


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """(dotted key, old, new) of what `new` changes or takes away; what it only adds to growing sections is left out.

    >>> differences({"model": {"name": "a"}}, {"model": {"name": "b"}})
    [('model.name', 'a', 'b')]
    """
    before, after = _flat(_by_name(old)), _flat(_by_name(new))
    found = []
    for key in sorted({*before, *after}):
        section, _, rest = key.partition(".")
        if section in _FREE_SECTIONS or rest in _FREE.get(section, ()) or before.get(key) == after.get(key):
            continue
        if section in ("seeds", "controls") and _grown(before.get(key), after.get(key)):
            continue
        if key not in before and section in _GROWING and not _inside_old(key, before):
            continue
        found.append((key, before.get(key), after.get(key)))
    return found


def _say(value: Any) -> str:
    """Keys that are not written are defaults."""
    return "default" if value is None else repr(value)


def _by_name(study: Mapping[str, Any]) -> dict[str, Any]:
    """Lists of parts as mappings by their name, so that order and additions do not matter."""
    shown = dict(study)
    for section, label in (("recipes", "name"), ("probes", "as")):
        shown[section] = {str(part[label]): {**part} for part in study.get(section, [])}
    return shown


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping) and value:
        return {k: v for key, item in value.items() for k, v in _flat(item, f"{prefix}{key}.").items()}
    return {prefix.rstrip("."): value}


def _grown(old: Any, new: Any) -> bool:
    """A list that kept what it had."""
    return isinstance(old, list) and isinstance(new, list) and set(old) <= set(new)


def _inside_old(key: str, before: Mapping[str, Any]) -> bool:
    """Whether `key` belongs to a part (recipes.NAME, probes.NAME) that was there before: then it is a change."""
    part = ".".join(key.split(".")[:2])
    return any(known == part or known.startswith(f"{part}.") for known in before)
