"""A layer imports only lower ones; packages of one layer do not know each other; there are no import cycles."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "prunescope"
LAYERS = [
    ("core",),
    ("metrics",),
    ("data", "models"),
    ("engine",),
    ("pruning", "probes"),
    ("study",),
    ("report", "ticket"),
]
LAYER = {package: number for number, packages in enumerate(LAYERS) for package in packages}
FILES = sorted(SOURCE.rglob("*.py"))


def imports(path: Path) -> list[str]:
    """Dotted names of prunescope modules imported anywhere in the file, also inside functions."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("prunescope"):
            found += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
        elif isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.startswith("prunescope")]
    return found


def package(dotted: str) -> str | None:
    parts = dotted.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in LAYER else None


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_only_lower_layers(path: Path) -> None:
    own = path.relative_to(SOURCE).parts[0]
    if own not in LAYER:
        return  # the root: command line, testing, public names
    for name in imports(path):
        other = package(name)
        if other is None:
            assert name in {"prunescope.__version__"}, f"{path} imports {name} from the root"
        elif other != own:
            assert LAYER[other] < LAYER[own], f"{path}: layer {LAYER[own]} imports {name} of layer {LAYER[other]}"


def test_no_cycles_inside_packages() -> None:
    modules = {".".join(("prunescope", *p.relative_to(SOURCE).with_suffix("").parts)): p for p in FILES}
    graph = {
        name: {t for i in imports(path) for t in (i, i.rpartition(".")[0]) if t in modules and t != name}
        for name, path in modules.items()
        if path.name != "__init__.py"
    }
    graph = {name: {t for t in targets if t in graph} for name, targets in graph.items()}
    state: dict[str, int] = {}

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert state.get(name) != 1, f"import cycle: {' -> '.join((*trail, name))}"
        if state.get(name) == 2:
            return
        state[name] = 1
        for target in graph[name]:
            visit(target, (*trail, name))
        state[name] = 2

    for name in graph:
        visit(name, ())
