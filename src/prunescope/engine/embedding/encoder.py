"""A small network of our own as the eye: trained on the images' classes, or not at all."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn

from prunescope.core.errors import PrunescopeError
from prunescope.core.seeds import derive
from prunescope.data.split import Split
from prunescope.data.training_batches import steps_per_epoch
from prunescope.engine.embedding.base import Embedding, embeddings
from prunescope.engine.train import fit
from prunescope.engine.training import Training
from prunescope.models.zoo import seeded

_BATCH = 128


class Eye(nn.Module):
    """Four strided convolutions with group norm; unlike any network of the zoo, and quick on images of any size."""

    def __init__(self, classes: int, channels: int, width: int, kernel: int) -> None:
        super().__init__()
        widths = (channels, width, 2 * width, 4 * width, 4 * width)
        self.stages = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(a, b, kernel, stride=2, padding=kernel // 2, bias=False), nn.GroupNorm(4, b), nn.GELU()
            )
            for a, b in pairwise(widths)
        )  # fmt: skip
        self.head = nn.Linear(8 * width, classes)

    def features(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) -> (B, 8 width): the last two stages, averaged over positions."""
        means = []
        for stage in self.stages:
            x = stage(x)
            means.append(x.mean((2, 3)))
        return torch.cat(means[-2:], dim=1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, classes)."""
        return self.head(self.features(x))


@dataclass(frozen=True)
class _OwnNetwork(Embedding):
    """What both share.

    Attributes:
        width: of the first stage; vectors have 8 times as many numbers.
        kernel: side of the convolutions.
        seed: of weights and training.
    """

    width: int = 32
    kernel: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        if self.width < 4 or self.width % 4 or self.kernel < 1 or not self.kernel % 2:
            raise PrunescopeError(
                f"{self.name}: width must be a multiple of 4 and kernel odd, got {self.width} and {self.kernel}"
            )

    def _untrained(self, split: Split) -> Eye:
        with seeded(derive(self.seed, "eye", self.kernel)):
            return Eye(len(split.classes), split.shape[0], self.width, self.kernel)

    def _look(self, network: Eye, split: Split, batch_size: int, device: torch.device | str) -> Tensor:
        network.to(device).eval()
        with torch.inference_mode():
            found = [network.features(x).float().cpu() for _, x, _ in split.batches(batch_size, device)]
        return torch.cat(found).clone()


@embeddings.register("random")
@dataclass(frozen=True)
class RandomNetwork(_OwnNetwork):
    """The encoder's network, untrained: texture and colour of small patches. A control."""

    summary: ClassVar[str] = "an untrained small network (a control)"

    def vectors(self, split: Split, *, batch_size: int, device: torch.device | str) -> Tensor:
        return self._look(self._untrained(split), split, batch_size, device)


@embeddings.register("encoder")
@dataclass(frozen=True)
class Encoder(_OwnNetwork):
    """A small network trained on the classes of the very images that it embeds, never pruned, unlike those of the zoo.

    Attributes:
        steps: of training at most, in batches of 128.
        epochs: at most, for small splits.
    """

    steps: int = 500
    epochs: float = 40
    summary: ClassVar[str] = "a small network of another architecture, trained on the same images (the default)"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 1 or not self.epochs > 0:
            raise PrunescopeError(f"encoder: steps and epochs must be above 0, got {self.steps} and {self.epochs}")

    def check(self, split: Split) -> None:
        if len(split.labels.unique()) < 2:
            raise PrunescopeError(
                "embedding 'encoder' learns from classes, and all images are of one: name another, such as 'random'"
            )

    def vectors(self, split: Split, *, batch_size: int, device: torch.device | str) -> Tensor:
        self.check(split)
        network = self._untrained(split)
        training = Training(
            epochs=min(self.epochs, self.steps / steps_per_epoch(split, _BATCH)), batch_size=_BATCH,
            optimizer="adamw", lr=2e-3, weight_decay=0.05, decay_norm_bias=False, schedule="onecycle", precision="32",
        )  # fmt: skip
        with torch.enable_grad():
            fit(network, split, training, seed=derive(self.seed, "encoder"), device=device)
        return self._look(network, split, batch_size, device)
