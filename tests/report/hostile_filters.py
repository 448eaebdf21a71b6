"""Tables of `prunescope car`, tiny, with hostile names of classes, layers and methods."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from hostile_data import SCRIPT
from torch import nn

from prunescope.data.split import Split
from prunescope.engine.device import pick_device
from prunescope.probes.car import UnitTable
from prunescope.ticket.maximised import maximised
from prunescope.ticket.sees import Sees, look
from prunescope.ticket.units import Question, ask, network_and_images, write

LAYERS = ("0", "3", "</script>")
METHODS = ("car", SCRIPT)
COMPARE = {"methods": list(METHODS), "report_split": SCRIPT, "report_images": 1234, "fine_tune_epochs": 0.25}


def hostile_net(classes: int, channels: int, seed: int = 0) -> nn.Module:
    """Three convolutions, of which one has a norm, and the last a name that ends scripts."""
    net = nn.Sequential(
        nn.Conv2d(channels, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 9, 3, padding=1),
        nn.BatchNorm2d(9), nn.ReLU(),
    )  # fmt: skip
    net.add_module("</script>", nn.Conv2d(9, 5, 3, padding=1))
    for name, module in (("act", nn.ReLU()), ("pool", nn.AdaptiveAvgPool2d(1)), ("flat", nn.Flatten())):
        net.add_module(name, module)
    net.add_module("head", nn.Linear(5, classes))
    net[3].weight.data[2] = 0  # dead
    net[3].bias.data[2] = 0  # type: ignore[union-attr]
    return net


def question(**options: int) -> Question:
    """What is asked of it."""
    return Question(
        {"name": "tests.report.hostile_filters:hostile_net"},
        {"name": "tests.report.hostile_data:evil"},
        device="cpu",
        **options,  # type: ignore[arg-type]
    )


def looked(asked: Question) -> tuple[UnitTable, Sees, nn.Module, Split]:
    """CAR, what its units see, and of what."""
    network, split = network_and_images(asked)
    table = ask(asked, network, split)
    return table, look(network, split, table.units, k=asked.look, device=pick_device("cpu")), network, split


def write_folder(folder: Path) -> Path:
    """All tables that the page knows."""
    asked = question(look=4)
    table, sees, network, split = looked(asked)
    write(folder, asked, table, maximised(network, split, sees, steps=2), compare=COMPARE)
    orders, curves, enrichment = removal_tables({"0": 6, "3": 9})
    orders.to_csv(folder / "orders.csv", index=False)
    curves.to_csv(folder / "curves.csv", index=False)
    enrichment.to_csv(folder / "enrichment.csv", index=False)
    return folder


def removal_tables(layers: dict[str, int]) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """`orders.csv`, `curves.csv` and `enrichment.csv` of layers with so many channels, made up."""
    generator = np.random.default_rng(0)
    orders, curves, enrichment = [], [], []
    for layer, channels in layers.items():
        for method in METHODS:
            for seed in (0, 1):
                order = generator.permutation(channels)
                orders += [(layer, method, seed, place, channel) for place, channel in enumerate(order)]
                for tuned in (0, 1):
                    for gone in range(channels):
                        accuracy = 0.9 - (0.5 - 0.2 * tuned) * gone / channels + 0.02 * generator.random()
                        diversity = np.nan if tuned else 1 - gone / channels
                        curves.append((layer, method, seed, tuned, gone, gone / channels, accuracy, 80, diversity))
                enrichment.append((layer, method, seed, 3, seed, 3, 2, channels, 0.25))
    return (
        pd.DataFrame(orders, columns=["layer", "method", "seed", "place", "channel"]),
        pd.DataFrame(curves, columns=[
            "layer", "method", "seed", "fine_tuned", "removed", "share_removed", "accuracy", "images", "diversity"]),
        pd.DataFrame(enrichment, columns=[
            "layer", "method", "seed", "first", "colour_selective", "of", "base", "units", "p"]),
    )  # fmt: skip
