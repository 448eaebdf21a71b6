"""Images as uint8, decoded once: where they come from, how they are split, batched and augmented."""

# Importing a source registers it: every source that comes with the package is named here.
from prunescope.data.augment import Augmentation
from prunescope.data.cifar import Cifar10, Cifar100
from prunescope.data.cub import Cub
from prunescope.data.derm7pt import Derm7pt
from prunescope.data.digits import Digits
from prunescope.data.folder import Folder
from prunescope.data.ham10000 import Ham10000
from prunescope.data.load import load_data
from prunescope.data.segmented import Segmented
from prunescope.data.segments import Segments
from prunescope.data.shapes import Shapes
from prunescope.data.sources import sources
from prunescope.data.split import Dataset, Normalisation, Split
from prunescope.data.training_batches import steps_per_epoch, training_batches

__all__ = [
    "Augmentation",
    "Cifar10",
    "Cifar100",
    "Cub",
    "Dataset",
    "Derm7pt",
    "Digits",
    "Folder",
    "Ham10000",
    "Normalisation",
    "Segmented",
    "Segments",
    "Shapes",
    "Split",
    "load_data",
    "sources",
    "steps_per_epoch",
    "training_batches",
]
