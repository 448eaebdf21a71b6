"""Tables for the terminal: the cells of a plan, the state of a study, the parts there are."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.live import Live
from rich.table import Table

from prunescope.core.errors import choices
from prunescope.pruning.scoring import Criterion
from prunescope.study.cell import Cell
from prunescope.study.folder import read_folder
from prunescope.study.plan import Plan, make_plan
from prunescope.study.store import Store

_STYLE = {"done": "green", "failed": "red", "in progress": "cyan", "waiting": "dim"}


def cells_table(plan: Plan, store: Store) -> Table:
    """Every cell of a plan, parents first, with its key and whether it is cached."""
    table = Table(title=f"{len(plan.cells)} cells", title_justify="left")
    for name in ("cell", "key", "state"):
        table.add_column(name, no_wrap=name != "cell")
    failures = store.failures()
    for cell in plan.cells.values():
        state = _state(cell, store, failures)
        table.add_row(cell.label, cell.key, f"[{_STYLE[state]}]{'cached' if state == 'done' else state}[/]")
    return table


def show_status(console: Console, folder: Path, *, watch: bool) -> None:
    """Print the state of a study; with `watch`, until nothing is left to do or Ctrl-C."""
    study, _, _ = read_folder(folder)
    plan, store = make_plan(study), Store(folder)
    if not watch:
        console.print(status_table(plan, store))
        return
    try:
        with Live(status_table(plan, store), console=console, auto_refresh=False) as live:
            while not all(store.has(cell) for cell in plan.cells.values()):
                time.sleep(2)
                live.update(status_table(plan, store), refresh=True)
    except KeyboardInterrupt:
        pass


def status_table(plan: Plan, store: Store) -> Table:
    """Cells by kind and state, then what failed and why."""
    failures = store.failures()
    counts = Counter((cell.kind, _state(cell, store, failures)) for cell in plan.cells.values())
    done = sum(count for (_, state), count in counts.items() if state == "done")
    table = Table(title=f"{plan.study.name}: {done} of {len(plan.cells)} cells done", title_justify="left")
    table.add_column("kind")
    for state, style in _STYLE.items():
        table.add_column(state, justify="right", style=style)
    for kind in dict.fromkeys(cell.kind for cell in plan.cells.values()):
        table.add_row(kind, *(str(counts[kind, state] or "") for state in _STYLE))
    for reason in failures.values():
        table.add_row("[red]failed", reason.strip().splitlines()[-1])
    return table


def parts_table(kind: str) -> Table:
    """The registered parts of one kind, with options and what they are for."""
    registries = _registries()
    if kind not in registries:
        raise choices("kind of part", kind, registries)
    facts: Mapping[str, Callable[[Any], str]] = {"criteria": _FACTS, "attributions": _PASSES}.get(kind, {})
    table = Table(title=kind, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 1, 0))
    for column in ("name", "options (default)", *facts, "what it is"):
        table.add_column(column, no_wrap=column in ("name", "granularity", "needs"), overflow="fold")
    for name, part in registries[kind].items():
        first_line = getattr(part, "summary", "") or (part.__doc__ or "").strip().splitlines()[0]
        table.add_row(name, _options(part), *(fact(part) for fact in facts.values()), first_line)
    return table


def _needs(criterion: type[Criterion]) -> str:
    needs = {
        "images": criterion.needs_data,
        "labels": criterion.needs_labels,
        "gradients": criterion.needs_gradients,
        "training": criterion.needs_history,
    }
    return "\n".join(need for need, wanted in needs.items() if wanted) or "-"


#: What else there is to know of a criterion.
_FACTS: dict[str, Callable[[type[Criterion]], str]] = {
    "granularity": lambda criterion: {"weight": "any", "filter": "filter\nchannel"}[criterion.per],
    "needs": _needs,
    "passes": lambda criterion: criterion.cost,
    "source": lambda criterion: criterion.source or "-",
}


#: What else there is to know of an attribution method.
_PASSES: dict[str, Callable[[Any], str]] = {"passes": lambda method: method.passes}


def _registries() -> dict[str, Mapping[str, Any]]:
    from prunescope.data.sources import sources
    from prunescope.engine.attribution.base import methods
    from prunescope.engine.embedding.base import embeddings
    from prunescope.models.zoo import models
    from prunescope.probes.base import probes
    from prunescope.pruning.granularity import granularities
    from prunescope.pruning.scoring import criteria

    return {
        "criteria": criteria, "granularities": granularities, "probes": probes, "attributions": methods,
        "models": models, "data": sources, "embeddings": embeddings,
    }  # fmt: skip


def _options(part: Any) -> str:
    if not is_dataclass(part):
        return ""
    shown = []
    for field in fields(part):
        default = field.default if field.default is not MISSING else "required"
        if field.default_factory is not MISSING:
            default = field.default_factory()
        shown.append(f"{field.name} ({default})")
    return "\n".join(shown)


def _state(cell: Cell, store: Store, failures: Mapping[str, str]) -> str:
    if store.has(cell):
        return "done"
    if cell.folder in failures:
        return "failed"
    if any(store.cells.glob(f".{cell.folder}.*.tmp")):
        return "in progress"
    return "waiting"
