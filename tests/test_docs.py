"""Every Python example of the documentation runs, top to bottom, one namespace per page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from prunescope.probes.base import probes
from prunescope.pruning.scoring import criteria

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def test_the_pages_that_promise_examples_have_them() -> None:
    promised = ("architecture.md", "readable-units.md", "recipes.md", "write-a-criterion.md", "write-a-probe.md")
    for name in ("README.md", *(f"docs/{page}" for page in promised)):
        assert BLOCK.search((ROOT / name).read_text()), name


@pytest.mark.parametrize("page", [p for p in PAGES if BLOCK.search(p.read_text())], ids=lambda p: p.name)
def test_examples_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for registry in (criteria, probes):  # what a page registers is forgotten after it
        monkeypatch.setattr(registry, "_parts", {name: registry[name] for name in registry})
    space: dict[str, object] = {"__name__": "docs"}
    exec(compile("\n".join(BLOCK.findall(page.read_text())), str(page), "exec", dont_inherit=True), space)
    for name, suite in list(space.items()):
        if name.startswith("Test") and isinstance(suite, type):
            run_suite(suite)


def run_suite(suite: type) -> None:
    """Run a contract suite the way a third party would: as a test file of its own."""
    names = [name for name in dir(suite) if name.startswith("test_")]
    assert names
    for name in names:
        getattr(suite(), name)()


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
