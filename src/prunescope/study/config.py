"""`study.yaml`: what a study may say, read with all its mistakes reported at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar

import yaml

from prunescope.core.configure import configure, named, split_spec
from prunescope.core.errors import PrunescopeError, choices
from prunescope.core.files import read_text
from prunescope.engine.training import Training
from prunescope.probes.base import Probe, probes
from prunescope.pruning.granularity import granularities
from prunescope.pruning.recipe import Recipe
from prunescope.pruning.scope import read_scope
from prunescope.pruning.scoring import criteria
from prunescope.study.margins import unknown_measures
from prunescope.study.study import Claims, Controls, Execution, Seeds, Study

T = TypeVar("T")


def read_study(source: Path | str | Mapping[str, Any], overrides: Sequence[str] = ()) -> Study:
    """A study from a YAML file, YAML text or a mapping, with `key.sub=value` overrides applied.

    Raises:
        PrunescopeError: all problems at once, one line each.
    """
    raw = _load(source)
    for override in overrides:
        set_key(raw, override)
    allowed = [item.name for item in fields(Study)]
    problems: list[str] = []
    for key in raw:
        if key not in allowed:
            problems.append(str(choices("key", key, allowed, "the study")))
    for key in ("name", "data", "model"):
        if key not in raw:
            problems.append(f"{key}: required")

    def attempt(make: Callable[[], T]) -> T | None:
        try:
            return make()
        except PrunescopeError as error:
            problems.append(str(error))
            return None

    name = attempt(lambda: _name(raw.get("name", "study")))
    data = attempt(lambda: _spec(raw.get("data", "shapes"), "data"))
    model = attempt(lambda: _spec(raw.get("model", "small_cnn"), "model"))
    training = attempt(lambda: configure(Training, _mapping(raw, "training"), "training"))
    seeds = attempt(lambda: configure(Seeds, _seeds(raw.get("seeds", {})), "seeds"))
    controls = attempt(lambda: configure(Controls, _controls(raw.get("controls", {})), "controls"))
    execution = attempt(lambda: configure(Execution, _mapping(raw, "execution"), "execution"))
    claims = attempt(lambda: configure(Claims, _mapping(raw, "claims"), "claims"))
    recipes = [
        attempt(lambda spec=spec, i=i: read_recipe(spec, training or Training(), f"recipes[{i}]"))  # type: ignore[misc]
        for i, spec in enumerate(_sequence(raw, "recipes", problems))
    ]
    wanted = attempt(lambda: _probes(_sequence(raw, "probes", problems)))
    known = [recipe.name for recipe in recipes if recipe]
    problems += [
        f"recipes: {recipe.name!r} aims at latency, which is not the same when measured again, so nor would the study "
        "be: write target: flops here, or use `prunescope prune`"
        for recipe in recipes if recipe and recipe.target == "latency"
    ]  # fmt: skip
    for twice in sorted({recipe for recipe in known if known.count(recipe) > 1}):
        problems.append(f"recipes: the name {twice!r} is used twice")
    if controls and controls.recipes and not problems:
        problems += [str(choices("recipe", c, known, "controls.recipes")) for c in controls.recipes if c not in known]
    if claims and wanted:
        problems += unknown_measures(claims.margins, wanted)
    if problems:
        raise PrunescopeError("\n".join(problems))
    read = (name, data, model, training, seeds, tuple(recipes), controls, wanted, execution, claims)
    return Study(*read)  # type: ignore[arg-type]  # none is None: that would have been a problem


def _load(source: Path | str | Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(source, Mapping):
        raw: Any = yaml.safe_load(yaml.safe_dump(dict(source)))  # a deep copy, and proof that it is plain data
    else:
        if isinstance(source, Path) and not source.is_file():
            raise PrunescopeError(f"no study file at {source}")
        raw = read_yaml(source)
    if not isinstance(raw, dict):
        raise PrunescopeError(f"a study is a mapping with name, data, model, recipes ...; got {type(raw).__name__}")
    return raw


def read_yaml(source: Path | str) -> Any:
    """Plain data from a YAML file or text; nothing in it is executed.

    Raises:
        PrunescopeError: it cannot be read or is no YAML.
    """
    text = read_text(source) if isinstance(source, Path) else source
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        where = f"{source} is not" if isinstance(source, Path) else "not"
        raise PrunescopeError(f"{where} valid YAML: {' '.join(str(error).split())}") from None


def set_key(raw: dict[str, Any], text: str) -> None:
    """Apply `a.b.c=value` in place; values are YAML, list items are numbered: `recipes.0.schedule.rounds=3`."""
    path, found, value = text.partition("=")
    if not found or not path:
        raise PrunescopeError(f"--set expects key=value, got {text!r}")
    *parents, last = path.split(".")
    here: Any = raw
    for key in parents:
        if isinstance(here, list):
            if not key.isdigit() or int(key) >= len(here):
                raise PrunescopeError(f"--set {text}: there is no item {key!r}; the list has {len(here)} items from 0")
            here = here[int(key)]
            continue
        if isinstance(here.get(key), str):
            here[key] = {"name": here[key]}
        here = here.setdefault(key, {})
        if not isinstance(here, (dict, list)):
            raise PrunescopeError(f"--set {text}: {key!r} is {here!r}, not a mapping")
    if isinstance(here, list):
        raise PrunescopeError(f"--set {text}: {last!r} cannot be set on a list")
    here[last] = yaml.safe_load(value)


def _mapping(raw: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = raw.get(key) or {}
    if not isinstance(value, dict):
        raise PrunescopeError(f"{key}: expected a mapping of options, got {value!r}")
    return value


def _sequence(raw: Mapping[str, Any], key: str, problems: list[str]) -> list[Any]:
    value = raw.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        problems.append(f"{key}: expected a list, got {value!r}")
        return []
    return value


def _name(name: object) -> str:
    if not isinstance(name, str) or not name or set(name) & set("/\\\0") or name.startswith("."):
        raise PrunescopeError(f"name: expected a word that can name a folder, got {name!r}")
    return name


def _spec(value: object, where: str) -> dict[str, Any]:
    name, options = split_spec(value, where)
    return {"name": name, **options}


def _seeds(value: object) -> dict[str, Any]:
    """`3`, `[0, 1, 2]` or `{dense: 3, tickets: [0, 1]}`; a number n means the seeds 0 .. n-1."""
    given = dict(value) if isinstance(value, Mapping) else {"dense": value}
    for key in ("dense", "tickets"):
        number = given.get(key)
        if isinstance(number, int) and not isinstance(number, bool):
            given[key] = list(range(number))
    if "dense" in given and "tickets" not in given and isinstance(given["dense"], list):
        given["tickets"] = given["dense"][: len(Seeds().tickets)]
    return given


def _controls(value: object) -> dict[str, Any]:
    """`[random, dense]`, `none`, or the full mapping."""
    if value in (None, "none", False):
        return {"kinds": []}
    return {"kinds": value} if isinstance(value, list) else dict(value)  # type: ignore[call-overload]


def read_recipe(spec: object, dense: Training, where: str) -> Recipe:
    """A recipe from a mapping; `where` is its place in the user's file, and `dense` how dense networks are trained."""
    if not isinstance(spec, Mapping):
        raise PrunescopeError(f"{where}: expected a mapping with name, criterion, schedule ...; got {spec!r}")
    options = dict(spec)
    if "criterion" in options:
        options["criterion"] = named(criteria, options["criterion"], f"{where}.criterion")
    if "scope" in options:
        options["scope"] = read_scope(options["scope"], f"{where}.scope")
    if "granularity" in options:
        options["granularity"] = named(granularities, options["granularity"], f"{where}.granularity")
    changed = options.pop("training", None)
    recipe = configure(Recipe, options, where)
    try:
        recipe.rewind.require_inside(dense.epochs)
    except PrunescopeError as error:
        raise PrunescopeError(f"{where}.rewind: {error}") from None
    own = None if changed is None else _retraining(changed, dense, f"{where}.training")
    try:
        recipe = replace(recipe, training=own)
        recipe.require_fits(dense)
    except PrunescopeError as error:
        raise PrunescopeError(f"{where}: {error}") from None
    return recipe


def _retraining(changed: object, dense: Training, where: str) -> Training:
    """The dense training with what the recipe changes in it."""
    if not isinstance(changed, Mapping):
        raise PrunescopeError(f"{where}: expected a mapping of options, got {changed!r}")
    base = {item.name: getattr(dense, item.name) for item in fields(Training)}
    return configure(Training, {**base, **changed}, where)


def _probes(specs: list[Any]) -> dict[str, Probe]:
    """{key: probe}: the key is `as`, or the probe's name. `performance` is always there: drift needs it."""
    found: dict[str, Probe] = {}
    for i, spec in enumerate(specs):
        spec = dict(spec) if isinstance(spec, Mapping) else spec
        key = spec.pop("as", None) if isinstance(spec, dict) else None
        probe = named(probes, spec, f"probes[{i}]")
        key = key or probe.name
        if key in found:
            raise PrunescopeError(f"probes[{i}]: {key!r} is listed twice; give one of them another name with `as:`")
        found[key] = probe
    if "performance" not in found:
        found = {"performance": probes["performance"](), **found}
    return found
