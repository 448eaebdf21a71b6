"""Where the numbers come from: software, device, threads, seeds, data."""

from __future__ import annotations

from prunescope.report.facts import metrics
from prunescope.report.places import number, percent
from prunescope.report.style import series_name
from prunescope.study.results import Results

_UNSHOWN = ("seconds", "finished")


def provenance(found: Results) -> dict[str, str]:
    """{what: value}; where cells differ, all values."""
    seen: dict[str, set[str]] = {}
    folders = {folder for p in found.points for folder in (p.checkpoint, *p.probes.values())}
    for folder in sorted(folders):
        for key, value in found.store.provenance(folder).items():
            if key not in _UNSHOWN:
                seen.setdefault(key, set()).add(str(value))
    seeds, data = found.study.seeds, found.data
    counts = ", ".join(f"{split} {sum(per_class):,}" for split, per_class in data["counts"].items())
    return {
        "data": f"{data['name']}, {len(data['classes'])} classes, images of {' × '.join(map(str, data['shape']))}",
        "images": counts,
        "data fingerprint": str(data["fingerprint"]),
        "seeds": f"dense {_numbers(seeds.dense)}; tickets {_numbers(seeds.tickets)}",
        **{
            f"data: {key.replace('_', ' ')}": str(v)
            for key, v in data["info"].items()
            if isinstance(v, (str, int, float))
        },
        **{key: ", ".join(sorted(values)) for key, values in sorted(seen.items())},
    }


def checkpoints(found: Results) -> tuple[list[str], list[list[str]]]:
    """(columns, rows) of the table of all checkpoints, with every metric."""
    facts = metrics(found) if not found.runs.empty else {}
    columns = [
        "network",
        "seed",
        "weights kept",
        "live",
        *(f"{fact.title}" for fact in facts.values()),
        "seconds",
        "cell",
    ]
    rows = [
        [
            series_name(str(row["recipe"]), str(row["role"])) if row["role"] != "dense" else "dense", str(row["seed"]),
            percent(row["density"]), percent(row["effective"]), *(number(row[column]) for column in facts),
            f"{row['seconds']:.0f}", str(row["checkpoint"]),
        ]
        for row in found.runs.to_dict("records")
    ]  # fmt: skip
    return columns, rows


def _numbers(values: tuple[int, ...]) -> str:
    return ", ".join(map(str, values)) or "none"
