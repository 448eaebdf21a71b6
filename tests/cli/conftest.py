"""The command line in this process."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import Ran

from prunescope.cli import main


@pytest.fixture
def prunescope(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Any:
    """Run the command line in this process; the study file is written first when one is given."""

    def run(*arguments: str | Path, study: dict[str, Any] | None = None) -> Ran:
        if study is not None:
            (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
            arguments = ("run", tmp_path / "study.yaml", "--out", tmp_path / "out", "--workers", "1", *arguments)
        monkeypatch.setattr(sys, "argv", ["prunescope", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main()
        code = caught.value.code
        return Ran(code if isinstance(code, int) else 0, *capsys.readouterr())

    return run
