"""The report's words and verdicts as Markdown: for a pull request, a lab book, a diff."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator

from prunescope.report.answers import Answer, answers
from prunescope.report.caveats import caveats
from prunescope.report.charts import sentence_case
from prunescope.report.claims import CLAIMS_LEAD, ClaimView, claim_view
from prunescope.report.claims import COLUMNS as COLUMNS_OF_CLAIMS
from prunescope.report.detector_views import detector_views
from prunescope.report.glance import NOTHING, Cell, mark
from prunescope.report.heat import HeatTable
from prunescope.report.places import percent
from prunescope.report.readable import readable_views
from prunescope.report.representations import selectivity_views, similarity_views
from prunescope.report.sparsity import COLUMNS, EFFECTIVE, sparsity
from prunescope.report.tcav_views import TcavView, tcav_views
from prunescope.report.trust import trust_views
from prunescope.report.unit_views import unit_views
from prunescope.report.verdicts import Line, Verdicts, verdicts
from prunescope.report.words import summary
from prunescope.study.results import Results

_LEGEND = (
    "✓ within the range of other seeds, or better; ? worse, but not surely; ✗ worse than other seeds explain. "
    "In brackets: 95 % intervals."
)


def digest(found: Results) -> str:
    """Answers, sentences, and every verdict with its interval, as one Markdown text."""
    lines = [f"# Does {_plain(found.study.name)} still decide for the same reasons?", ""]
    for answer in answers(found):
        lines += _answer(answer)
    for title, told in (("What to keep in mind", caveats(found)), ("In numbers", summary(found))):
        if told:
            lines += [f"## {title}", "", *(f"- {_plain(sentence)}" for sentence in told), ""]
    lines += _claims(claim_view(found))
    for table in verdicts(found):
        lines += _every_measure(table)
    for scored in tcav_views(found):
        lines += _scored(scored)
    for trusted in trust_views(found):
        lines += _told(f"Can these maps be trusted? {trusted.title}", trusted.words)
    for view in unit_views(found):
        lines += _told(f"Which units matter, {view.recipe}", view.words, view.tables)
    for view in detector_views(found):
        lines += _told(f"What units detect, {view.recipe}", view.words, view.tables)
    for readable in readable_views(found):
        lines += _told(f"Units a person could read, {readable.title}", readable.words, readable.tables[:2])
    for selective in selectivity_views(found):
        lines += _told(f"Class selectivity of units, {selective.title}", selective.words, selective.tables)
    for alike in similarity_views(found):
        lines += _told(f"How layers arrange images, {alike.title}", alike.words, alike.tables)
    if rows := sparsity(found):
        lines += ["## Weights and sparsity", "", EFFECTIVE, "", *_table(list(COLUMNS), map(list, rows)), ""]
    return "\n".join(lines)


def _answer(answer: Answer) -> Iterator[str]:
    yield from (f"## {_plain(answer.recipe)}: {answer.short}", "", _plain(answer.sentence), "")
    if answer.lenses:
        columns = [percent(cell.density) for cell in answer.lenses[0].cells]
        rows = [
            [f"{sentence_case(lens.subject)} ({lens.how})", *map(_cell, lens.cells), lens.floor or "–"]
            for lens in answer.lenses
        ]
        yield from (*_table([f"{answer.units} kept", *columns, "other seeds"], rows), "", _LEGEND, "")


def _claims(view: ClaimView) -> Iterator[str]:
    if not view.tables:
        return
    yield from ("## Claims", "", _plain(CLAIMS_LEAD), "", *(f"- {_plain(told)}" for told in view.words), "")
    for table in view.tables:
        yield from (f"### {_plain(table.title)}: {table.counts}", "")
        if table.words:
            yield from (*(f"- {_plain(told)}" for told in table.words), "")
        if table.rows:
            yield from (*_table(list(COLUMNS_OF_CLAIMS), map(list, table.rows), text=3), "")


def _every_measure(table: Verdicts) -> Iterator[str]:
    yield from (f"## Every measure, {_plain(table.recipe)}", "")
    columns = ["measure", "of", "images", *map(percent, table.densities), "other seeds"]
    rows = [[line.title, line.of, _images(line), *map(_cell, line.cells), line.floor or "–"] for line in table.lines]
    yield from (*_table(columns, rows, text=3), "")


def _scored(view: TcavView) -> Iterator[str]:
    yield from (f"## Concepts, {_plain(view.title)}", "", *(f"- {_plain(told)}" for told in view.words), "")


def _told(title: str, words: Iterable[str], tables: Iterable[HeatTable] = ()) -> Iterator[str]:
    yield from (f"## {_plain(title)}", "", *(f"- {_plain(told)}" for told in words), "")
    for table in tables:
        rows = [[name, *(cell.text for cell in cells)] for name, cells in table.rows]
        yield from (f"### {_plain(table.title)}", "", *_table([table.corner, *table.columns], rows), "")


def _images(line: Line) -> str:
    return "both right" if line.subset == "both_right" else "" if line.only else "all"


def _cell(cell: Cell | None) -> str:
    if cell is None or not cell.known:
        return NOTHING
    interval = "" if NOTHING in cell.detail else f"({cell.detail})"
    return " ".join(filter(None, (cell.text, mark(cell.verdict)[0], interval)))


def _table(columns: list[str], rows: Iterable[list[str]], text: int = 1) -> Iterator[str]:
    """The first `text` columns are words, the others numbers."""
    yield f"| {' | '.join(map(_plain, columns))} |"
    yield f"|{' --- |' * text}{' ---: |' * (len(columns) - text)}"
    for row in rows:
        yield f"| {' | '.join(map(_plain, row))} |"


def _plain(text: str) -> str:
    """Text that no Markdown renderer takes for markup or a cell's end."""
    return " ".join(html.escape(str(text), quote=False).replace("|", "\\|").split())
