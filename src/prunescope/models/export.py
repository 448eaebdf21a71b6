"""Networks as files for other programs: torch.export and ONNX, each checked against the network before it is kept."""

from __future__ import annotations

import copy
import importlib
import importlib.util
import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prunescope.core.errors import PrunescopeError, missing_extra
from prunescope.core.files import atomic_file
from prunescope.core.seeds import torch_generator

#: Names of the input and the output in an ONNX file.
INPUT, OUTPUT = "images", "logits"
#: Largest difference that is let through, as a share of the largest logit (or of 1, if that is more).
TOLERANCE = 1e-4

#: What the exporters of some versions say about their own code; nobody else can put it right.
_KNOWN_WARNINGS = ((FutureWarning, r"`isinstance\(treespec, LeafSpec\)` is deprecated"),)


def export_program(
    model: nn.Module,
    shape: Sequence[int],
    path: str | Path,
    *,
    images: Tensor | None = None,
    tolerance: float = TOLERANCE,
) -> float:
    """Write the network, in eval mode, as a program of torch.export (`.pt2`) that takes any number of images.

    The file is read back and run, on the images together and on the first alone, before it gets its name: one that
    does not do what the network does is not kept. The network is unchanged.

    Args:
        shape: (C, H, W) of one image.
        images: normalised images (N, C, H, W) for the check; five of noise when left out.
        tolerance: largest difference allowed, as a share of the largest logit (or of 1, if that is more).

    Returns:
        The largest absolute difference of a logit.

    Raises:
        PrunescopeError: the network cannot be exported, or the file gives something else.
    """

    def write(network: nn.Module, example: Tensor, file: Path) -> None:
        program = torch.export.export(network, (example,), dynamic_shapes=_any_batch())
        content = io.BytesIO()  # given a path, torch insists on its suffix
        torch.export.save(program, content)
        file.write_bytes(content.getvalue())

    def read(file: Path) -> Callable[[Tensor], Any]:
        with file.open("rb") as content:
            return torch.export.load(io.BytesIO(content.read())).module()

    return _export("torch.export", model, shape, Path(path), images, tolerance, write, read)


def export_onnx(
    model: nn.Module,
    shape: Sequence[int],
    path: str | Path,
    *,
    images: Tensor | None = None,
    tolerance: float = TOLERANCE,
) -> float:
    """Write the network, in eval mode, as an ONNX file that takes any number of `images` and gives their `logits`.

    The file is read back and run by onnxruntime as `export_program` says. It holds at most 2 GB.

    Args, Returns: as for `export_program`.

    Raises:
        PrunescopeError: the packages of `prunescope[onnx]` are missing, the network cannot be exported, or the file
            gives something else.
    """
    for package in ("onnx", "onnxscript", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            raise missing_extra(package, "onnx", "export to ONNX")

    def write(network: nn.Module, example: Tensor, file: Path) -> None:
        program = torch.onnx.export(
            network, (example,), dynamo=True, dynamic_shapes=_any_batch(), input_names=[INPUT], output_names=[OUTPUT],
            verbose=False,
        )  # fmt: skip
        assert program is not None  # so it is with dynamo
        program.save(str(file), external_data=False)

    def read(file: Path) -> Callable[[Tensor], Any]:
        runtime = importlib.import_module("onnxruntime")
        session = runtime.InferenceSession(file.read_bytes(), providers=["CPUExecutionProvider"])
        return lambda x: torch.from_numpy(session.run([OUTPUT], {INPUT: x.numpy()})[0])

    return _export("ONNX", model, shape, Path(path), images, tolerance, write, read)


def _export(
    kind: str,
    model: nn.Module,
    shape: Sequence[int],
    path: Path,
    images: Tensor | None,
    tolerance: float,
    write: Callable[[nn.Module, Tensor, Path], None],
    read: Callable[[Path], Callable[[Tensor], Any]],
) -> float:
    if images is None:
        images = torch.randn(5, *shape, generator=torch_generator(0, "export"))
    if not len(images) or tuple(images.shape[1:]) != tuple(shape):
        raise PrunescopeError(f"export needs images (N, {', '.join(map(str, shape))}), got {tuple(images.shape)}")
    network = copy.deepcopy(model).cpu().eval().requires_grad_(False)
    example = torch.randn(2, *shape, generator=torch_generator(0, "example"))  # one would be taken for a constant
    with atomic_file(path) as temporary, _exporting(kind, model):
        write(network, example, temporary)
        return _difference(network, read(temporary), images.cpu(), tolerance)


@contextmanager
def _exporting(kind: str, model: nn.Module) -> Iterator[None]:
    """What exporters raise, as our error; what they are known to warn of, unsaid."""
    try:
        with warnings.catch_warnings(), torch.no_grad():
            for category, message in _KNOWN_WARNINGS:
                warnings.filterwarnings("ignore", message, category)
            yield
    except Exception as error:  # they have no common class, and what they meet is the network's own code
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise PrunescopeError(f"{type(model).__name__} cannot be exported to {kind}: {reason}") from error


def _any_batch() -> Any:
    return ({0: torch.export.Dim("batch")},)


def _difference(network: nn.Module, exported: Callable[[Tensor], Any], images: Tensor, tolerance: float) -> float:
    """The largest difference on all images, and on one alone, so that a fixed batch size is found."""
    worst = 0.0
    for batch in (images, images[:1]):
        expected, found = _logits(network(batch)), _logits(exported(batch))
        if expected.shape != found.shape:
            raise PrunescopeError(
                f"for {len(batch)} images the file gives {tuple(found.shape)} instead of {tuple(expected.shape)}"
            )
        difference = float((expected - found).abs().max())
        allowed = tolerance * max(1.0, float(expected.abs().max()))
        if not difference <= allowed:  # NaN is not
            raise PrunescopeError(
                f"the file differs from the network by {difference:.2g} on {len(batch)} images; allowed: {allowed:.2g}"
            )
        worst = max(worst, difference)
    return worst


def _logits(output: Any) -> Tensor:
    while not isinstance(output, Tensor):  # a (named) tuple or list, the main output first
        output = output[0]
    return output
