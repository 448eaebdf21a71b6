"""Orders of removal of one network beside each other, without a study: tables in a folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from prunescope.core.errors import PrunescopeError, choices
from prunescope.core.types import Array
from prunescope.data.split import NAMES
from prunescope.engine.device import pick_device
from prunescope.engine.training import Training
from prunescope.probes.car import some_images
from prunescope.pruning.compare import compare_removals, fine_tuning
from prunescope.pruning.greedy import FineTune
from prunescope.pruning.orders import METHODS
from prunescope.pruning.trails import Comparison, Trail
from prunescope.ticket.units import Question, material

#: Learning rate of fine-tuning: small beside those of training, large enough for one epoch.
RATE = 0.01


@dataclass(frozen=True)
class Contest:
    """Which methods take the layers of a question apart.

    Attributes:
        methods: names of `pruning.orders.METHODS`; none: all.
        report: split on which accuracy is measured; not the one that chooses.
        images: of it, at most so many, every class in its share; 0 for all.
        every: accuracy is measured after every so many removals.
        epochs: of fine-tuning on the training images, after a quarter, half and three quarters of a layer; 0: none.
    """

    methods: tuple[str, ...] = ()
    report: str = "test"
    images: int = 0
    every: int = 1
    epochs: float = 0.0

    def __post_init__(self) -> None:
        for method in self.methods:
            if method not in METHODS:
                raise choices("method", method, METHODS)
        if self.report not in NAMES:
            raise choices("report split", self.report, NAMES)
        if self.images < 0 or self.every < 1 or self.epochs < 0:
            raise PrunescopeError(
                f"images and epochs of a comparison must be 0 or more and `every` at least 1, got {self}"
            )

    def require_for(self, question: Question) -> None:
        """Refuse what would choose or train on the images that it reports on, or could not be computed in the end."""
        split, others = question.split, [name for name in NAMES[::-1] if name != question.split]
        if split == self.report:
            raise PrunescopeError(
                f"the split {split} would both choose and report: an accuracy that was chosen for is no measurement; "
                f"choose on another one, such as --split {others[0]}"
            )
        if self.epochs and self.report == "train":
            raise PrunescopeError(
                "fine-tuning trains on the split train, and an accuracy on images that were trained on is no "
                f"measurement: report on another one, such as --report-split {others[0]}, or leave --fine-tune at 0"
            )
        if question.effort.removal != "zero":
            raise PrunescopeError(
                f"a channel that is removed for good is zero, so orders are compared with removal 'zero' only; got "
                f"{question.effort.removal!r}"
            )


def compare(
    question: Question, contest: Contest, layers: Sequence[str], on_trail: Callable[[Trail], None] | None = None
) -> Comparison:
    """Take these layers of the question's network apart by each method; the question's images choose.

    Args:
        layers: names.
        on_trail: called with each layer and method as it is done.
    """
    contest.require_for(question)
    network, data = material(question)
    device = pick_device(question.device)
    tune: FineTune | None = None
    if contest.epochs:
        training = Training(epochs=contest.epochs, lr=RATE)
        tune = fine_tuning(data.train, training, seed=question.seed, device=device)
    return compare_removals(
        network, some_images(data[question.split], question.images, question.seed),
        some_images(data[contest.report], contest.images, question.seed), layers,
        methods=contest.methods or tuple(METHODS), every=contest.every,
        fine_tune=tune, effort=question.effort, seed=question.seed, device=device, on_trail=on_trail,
    )  # fmt: skip


def told(contest: Contest, found: Comparison) -> dict[str, Any]:
    """How layers were taken apart, as plain data; which images chose is the question's."""
    return {
        "methods": list(dict.fromkeys(trail.method for trail in found.trails)), "report_split": contest.report,
        "report_images": int(found.trails[0].right.shape[1]), "fine_tune_epochs": contest.epochs,
    }  # fmt: skip


def tables(found: Comparison, kinds: Mapping[str, Array] | None = None) -> dict[str, pd.DataFrame]:
    """{file name: table}.

    Args:
        kinds: {layer: bool (channels,)}, which are colour-selective, of layers that were looked at.
    """
    more = {} if kinds is None else {"enrichment.csv": found.enrichment(kinds)}
    return {"orders.csv": found.orders(), "curves.csv": found.curves(), **more}
