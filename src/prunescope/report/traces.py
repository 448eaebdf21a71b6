"""Pieces of charts: lines, points, bands, and the axis of densities."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from prunescope.report.places import percent
from prunescope.report.style import Look, plain

Trace = dict[str, Any]


def line(
    x: Any, y: Any, name: str, look: Look, interval: tuple[Any, Any] | None = None, *,
    hover: str = "%{x:.1%} kept: %{y:.3f}", markers: bool = True,
) -> Trace:  # fmt: skip
    trace: Trace = {
        "type": "scatter", "mode": "lines+markers" if markers else "lines", "x": numbers(x), "y": numbers(y),
        "name": plain(name), "legendgroup": plain(name),
        "line": {"color": look.colour, "dash": look.dash, "width": 2.5},
        "marker": {"symbol": look.symbol, "size": 8},
        "hovertemplate": f"{hover}<extra>{plain(name)}</extra>",
    }  # fmt: skip
    if interval is not None and np.isfinite(np.asarray(interval[0], dtype=float)).any():
        trace["error_y"] = whiskers(y, interval)
    return trace


def whiskers(y: Any, interval: tuple[Any, Any], *, width: int = 4) -> Trace:
    """Error bars from the low to the high ends of intervals around y."""
    low, high = (np.asarray(bound, dtype=float) for bound in interval)
    return {
        "type": "data", "symmetric": False, "array": numbers(high - np.asarray(y)),
        "arrayminus": numbers(np.asarray(y) - low), "thickness": 1.5, "width": width,
    }  # fmt: skip


def dots(x: Any, y: Any, text: Sequence[str], name: str, look: Look, *, alone: bool = False) -> Trace:
    return {
        "type": "scatter", "mode": "markers", "x": numbers(x), "y": numbers(y), "name": plain(name),
        "legendgroup": plain(name), "showlegend": alone, "text": list(text), "opacity": 0.9 if alone else 0.5,
        "marker": {"color": look.colour, "symbol": look.symbol, "size": 9 if alone else 6},
        "hovertemplate": f"%{{y:.3f}}, %{{text}}<extra>{plain(name)}</extra>",
    }  # fmt: skip


def span(densities: Iterable[float]) -> tuple[float, float]:
    """(largest, smallest) density on the axis, with some room beyond the points."""
    known = [float(d) for d in densities if d > 0] or [1.0]
    room = max(1.06, (max(known) / min(known)) ** 0.06)
    return max(known) * room, min(known) / room


def density_axis(densities: Iterable[float], span: tuple[float, float], units: str = "weights") -> Trace:
    """A logarithmic axis from dense on the left to sparse on the right; labels that would touch are left out."""
    ticks: list[float] = []
    gap = 0.07 * math.log(span[0] / span[1])
    for value in sorted({round(float(d), 6) for d in densities if 0 < d < 1}):
        if (not ticks or math.log(value / ticks[-1]) >= gap) and math.log(span[0] / value) >= 0.6 * gap:
            ticks.append(value)
    return {
        "type": "log", "range": [math.log10(span[0]), math.log10(span[1])], "title": {"text": plain(f"{units} kept")},
        "tickvals": [1.0, *reversed(ticks)], "ticktext": ["dense", *(percent(t) for t in reversed(ticks))],
        "showgrid": True,
    }  # fmt: skip


def band(low: float, high: float, name: str, span: tuple[float, float]) -> Trace:
    """A grey band over the whole width that also stands in the legend."""
    left, right = span
    return {
        "type": "scatter", "mode": "lines", "x": [left, right, right, left], "y": numbers([low, low, high, high]),
        "fill": "toself", "fillcolor": "rgba(128,128,128,0.25)", "line": {"width": 1, "color": "rgba(128,128,128,0.5)"},
        "hoverinfo": "skip", "name": name,
    }  # fmt: skip


def rule(at: float, name: str, span: tuple[float, float]) -> Trace:
    return {
        "type": "scatter", "mode": "lines", "x": list(span), "y": [at, at], "hoverinfo": "skip", "name": name,
        "line": {"width": 1.5, "color": "#7f7f7f", "dash": "dot"},
    }  # fmt: skip


def shade(share: float) -> str:
    """From light to dark blue-violet, both seen on white and on black."""
    light, dark = np.array([86, 180, 233]), np.array([148, 62, 158])
    red, green, blue = (light + (dark - light) * share).round().astype(int)
    return f"#{red:02x}{green:02x}{blue:02x}"


def numbers(values: Iterable[Any]) -> list[float | None]:
    """JSON has no NaN; a gap is None."""
    return [float(value) if np.isfinite(value) else None for value in values]
