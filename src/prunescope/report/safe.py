"""Text that may stand inside a script element."""

from __future__ import annotations

import json
from functools import lru_cache
from importlib.resources import files
from typing import Any

from plotly.offline import get_plotlyjs


def safe_json(value: Any) -> str:
    """JSON that cannot end the script element it stands in, whatever strings it holds.

    >>> safe_json("</script>")
    '"\\\\u003c/script\\\\u003e"'
    """
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


@lru_cache(maxsize=1)
def plotly() -> str:
    """Plotly's script, so that the page needs no network; kept from closing its own element early."""
    return get_plotlyjs().replace("</script", "<\\/script")


def asset(name: str) -> str:
    """A file of the page's own style or script."""
    return (files("prunescope.report") / "templates" / name).read_text(encoding="utf-8")
