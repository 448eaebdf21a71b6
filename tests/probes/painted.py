"""Images with coloured patches of which one decides the class, and a small network trained on them."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from prunescope.core.seeds import torch_generator
from prunescope.data.split import Dataset, Normalisation, Split

CLASSES, CONCEPTS = ("without", "with"), ("red patch", "blue patch", "nothing")
SIDE = 8


def split(name: str, n: int) -> Split:
    """The class is the red patch's (19 times in 20); the blue one and `nothing` are drawn independently of it."""
    generator = torch_generator(0, "painted", name)
    images = torch.randint(0, 120, (n, 3, SIDE, SIDE), generator=generator)
    red, blue, nothing = torch.rand(3, n, generator=generator) < 0.5
    images[:, 0, :3, :3] += 120 * red[:, None, None]
    images[:, 2, 5:, 5:] += 120 * blue[:, None, None]
    wrong = torch.rand(n, generator=generator) < 0.05
    concepts = torch.stack([red, blue, nothing], 1).to(torch.int8)
    ids = np.array([f"{name}-{i}" for i in range(n)])
    return Split(
        images.to(torch.uint8), (red ^ wrong).long(), ids, CLASSES, Normalisation((0.3,) * 3, (0.2,) * 3),
        concepts=concepts, concept_names=CONCEPTS,
    )  # fmt: skip


def painted(train: int = 600, val: int = 200, test: int = 120) -> Dataset:
    return Dataset("painted", split("train", train), split("val", val), split("test", test))


def network(*, head: str = "mlp", seed: int = 0) -> nn.Sequential:
    """Two convolutions, global average, and behind it one linear layer or two with a ReLU in between."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        behind = [nn.Linear(12, 10), nn.ReLU(), nn.Linear(10, 2)] if head == "mlp" else [nn.Linear(12, 2)]
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 12, 3, padding=1), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), *behind,
        )  # fmt: skip


def trained(data: Dataset, *, head: str = "mlp", seed: int = 0) -> nn.Sequential:
    model = network(head=head, seed=seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for epoch in range(4):
        order = torch.randperm(len(data.train), generator=torch_generator(seed, "order", epoch))
        for rows in order.split(50):
            x = data.train.normalisation(data.train.images[rows])
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), data.train.labels[rows]).backward()
            optimizer.step()
    return model.eval()
