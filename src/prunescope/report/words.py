"""The summary in words: what was done, what happened to accuracy, and what the controls say. Computed, plain text."""

from __future__ import annotations

import numpy as np

from prunescope.report.measures import Measure, headlines, rows
from prunescope.report.places import number, percent, performance_key, recipes_done, ticket_rows
from prunescope.report.recipe_words import recipe_sentence
from prunescope.report.style import ROLES, series
from prunescope.study.results import Results


def summary(found: Results) -> list[str]:
    """Sentences, most important first. The page escapes them."""
    column = f"{performance_key(found.study)}.top1"
    told = [_what(found), *(recipe_sentence(recipe) for recipe in found.study.recipes)]
    if found.runs.empty or column not in found.runs:
        return told
    return [*told, *_accuracy(found, column), *_controls(found, column)]


def _what(found: Results) -> str:
    study, data = found.study, found.data
    return (
        f"{study.model['name']} on {data['name']}: {len(data['classes'])} classes, "
        f"{sum(data['counts']['test']):,} test images. {_count(len(study.seeds.dense), 'dense network')} "
        f"of different seeds; {_count(len(study.seeds.tickets), 'of them pruned', 'of them pruned')} by each recipe."
    )


def _count(n: int, one: str, many: str = "") -> str:
    return f"{n} {one if n == 1 else many or one + 's'}"


def _accuracy(found: Results, column: str) -> list[str]:
    dense = found.runs[found.runs["role"] == "dense"][column].to_numpy()
    told, units = [], {recipe.name: recipe.counted for recipe in found.study.recipes}
    if len(dense):
        spread = f", {percent(dense.min())} to {percent(dense.max())} over seeds" if len(dense) > 1 else ""
        told.append(f"Dense accuracy: {percent(dense.mean())}{spread}.")
    for recipe in recipes_done(found):
        means = ticket_rows(found.runs, recipe).groupby("target")[column].mean().sort_index(ascending=False)
        best, last = float(means.index[int(means.argmax())]), float(means.index[-1])
        text = f"Tickets of {recipe}: {percent(means.iloc[-1])} at {percent(last)} of the {units[recipe]}"
        told.append(text + (f", at best {percent(means.max())} at {percent(best)}." if best != last else "."))
    return told


def _controls(found: Results, column: str) -> list[str]:
    """Each control at the lowest density it was made for, beside the ticket there: accuracy and heat maps."""
    told = []
    for recipe, role in series(found.runs):
        if role == "ticket":
            continue
        mine = found.runs[(found.runs["recipe"] == recipe) & (found.runs["role"] == role)]
        last = mine[mine["round"] == mine["round"].max()]
        place, density = int(last["round"].iloc[0]), float(last["target"].iloc[0])
        tickets = ticket_rows(found.runs, recipe)
        ticket = tickets[tickets["round"] == place][column]
        text = f"Control at {percent(density)} ({ROLES[role]}): accuracy {percent(last[column].mean())}"
        text += f", the ticket's is {percent(ticket.mean())}" if len(ticket) else ""
        told.append(text + "".join(_drift(found, item, recipe, role, place) for item in _maps(found)) + ".")
    return told


def _maps(found: Results) -> list[Measure]:
    return [item for item in headlines(found) if item.family == "maps"][:1]


def _drift(found: Results, item: Measure, recipe: str, role: str, place: int) -> str:
    chosen = rows(found.pooled, item)
    chosen = chosen[(chosen["recipe"] == recipe) & (chosen["round"] == place)].set_index("role")
    values = [float(chosen["value"].get(name, np.nan)) for name in (role, "ticket")]
    if not np.isfinite(values).all():
        return ""  # blank maps on either side: nothing to compare
    title = chosen["title"].iloc[0] if len(chosen) else item.subject
    return f"; {title} with the dense network {number(values[0])}, the ticket's {number(values[1])}"
