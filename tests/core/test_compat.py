"""torchvision in a fresh interpreter, with and without its compiled operators."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from prunescope.core.compat import torchvision_module


def run(code: str, *path: Path) -> subprocess.CompletedProcess[str]:
    before = f"import sys; sys.path[:0] = {[str(folder) for folder in path]!r}\n"
    return subprocess.run([sys.executable, "-c", before + code], capture_output=True, text=True, check=False)


def fake(folder: Path, body: str) -> Path:
    """A package called torchvision that imports in the way of the real one."""
    (folder / "torchvision").mkdir()
    (folder / "torchvision" / "__init__.py").write_text("from torchvision import _meta\n")
    (folder / "torchvision" / "_meta.py").write_text(body)
    (folder / "torchvision" / "models.py").write_text("resnet = 1\n")
    return folder


#: What torchvision does in `_meta_registrations.py`; it fails where nobody declared the operator.
FAKE_KERNEL = "import torch\n@torch.library.register_fake('torchvision::nms')\ndef nms(a, b, c):\n    pass\n"
DECLARED = "import torch\nprint(hasattr(torch.ops.torchvision, 'nms'), torchvision_module('torchvision.models').resnet)"
USE = "from prunescope.core.compat import torchvision_module\ntorchvision_module()\n"


def test_torchvision_works_here() -> None:
    assert torchvision_module("torchvision.models").resnet18 is torchvision_module().models.resnet18


def test_schemas_are_declared_when_the_import_fails_without(tmp_path: Path) -> None:
    folder = fake(tmp_path, FAKE_KERNEL)
    plain = run("import torchvision", folder)
    assert "operator torchvision::nms does not exist" in plain.stderr
    done = run(USE + DECLARED, folder)
    assert done.stdout.split() == ["True", "1"], done.stderr


def test_schemas_are_left_alone_when_it_imports(tmp_path: Path) -> None:
    done = run(USE + DECLARED, fake(tmp_path, ""))
    assert done.stdout.split() == ["False", "1"], done.stderr


@pytest.mark.parametrize("error", ["RuntimeError('something else')", "ImportError('no such library')"])
def test_other_failures_are_not_hidden(tmp_path: Path, error: str) -> None:
    done = run(USE, fake(tmp_path, f"raise {error}"))
    assert done.returncode == 1
    assert done.stderr.strip().endswith(error.split("'")[1])


def test_import_prunescope_does_not_import_torchvision() -> None:
    done = run("import prunescope.models.zoo, prunescope.models.layers\nprint('torchvision' in sys.modules)")
    assert done.stdout.strip() == "False", done.stderr
