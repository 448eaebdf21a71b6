"""One self-contained HTML file: text is escaped, data cannot end its element, nothing is fetched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jinja2

from prunescope import __version__
from prunescope.report.charts import sentence_case
from prunescope.report.glance import mark
from prunescope.report.places import number, percent
from prunescope.report.safe import asset, plotly, safe_json


def render_page(name: str, template: str, content: Mapping[str, Any]) -> str:
    """A page from a template that extends `page.html.j2`.

    Args:
        name: heading of the page.
        template: its name; `TEMPLATE.js` is its own script, and `TEMPLATE.css` what it adds to `report.css`.
        content: what the template needs; `figures`, {place: chart}, are drawn by the page's script.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("prunescope.report"), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    environment.filters |= {"percent": percent, "number": number, "sentence": sentence_case}
    environment.globals["mark"] = mark
    return environment.get_template(f"{template}.html.j2").render(
        name=name, version=__version__, data=safe_json(content["figures"]), plotly=plotly(),
        style="".join(asset(f"{part}.css") for part in dict.fromkeys(("report", template))),
        script=asset("page.js") + asset(f"{template}.js"), **content,
    )  # fmt: skip
