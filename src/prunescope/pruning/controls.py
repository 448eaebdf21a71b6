"""What a ticket is compared with, so that it can be said what its mask, its weights and its retraining are worth.

Controls are branches off one round's ticket: they need its mask, and nothing of the rounds before. So a control costs
one retraining and not a second run, and its density is the ticket's in every layer.

| control     | mask                | starts from            | made with                                            |
| ----------- | ------------------- | ---------------------- | ---------------------------------------------------- |
| random      | shuffled per tensor | where the ticket does  | `retrain(model, shuffled(model, ticket, seed), ...)` |
| reinit      | the ticket's        | another initialisation | `retrain(model, ticket, ..., start=0)`, fresh weights |
| dense       | nothing is cut      | where the ticket does  | `retrain(model, uncut(ticket), ...)`                 |
| unretrained | the ticket's        | trained weights, cut   | `ticket.apply_(model)`                               |

Where the recipe rewinds, "where the ticket does" is the rewind state; where it keeps weights, the dense network, which
is then trained as long as all the ticket's rounds together. Random masks of different rounds are drawn anew, hence not
nested: no weights pass from one to the next.
"""

from __future__ import annotations

import torch
from torch import nn

from prunescope.core.mask import Mask
from prunescope.core.seeds import torch_generator
from prunescope.pruning.granularity import Granularity, Weights

_WEIGHTS = Weights()


def shuffled(model: nn.Module, mask: Mask, seed: int, granularity: Granularity = _WEIGHTS) -> Mask:
    """A mask with as many units in every tensor, at random places: what a ticket's structure is worth.

    Args:
        model: whose layers the mask is of; its weights do not matter.
    """
    return granularity.redraw(model, mask, torch_generator(seed, "shuffled mask"))


def uncut(mask: Mask) -> Mask:
    """The mask over the same tensors that keeps everything: a dense network retrained as a ticket is."""
    return Mask({name: torch.ones_like(kept) for name, kept in mask.items()})
