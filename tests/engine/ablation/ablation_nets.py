"""Small networks that say by hand where each layer is read: one for each way in which channels can go."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from eager_ablation import Read
from torch import Tensor, nn

SHAPE = (3, 8, 8)


def conv(inputs: int, outputs: int, size: int = 3, **options: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, padding=size // 2, **options)


class Plain(nn.Module):
    """Norm, ReLU and pooling before the reader; in the head a norm of vectors. The last layer has no reader."""

    units: ClassVar = {"one": 4, "two": 5, "hidden": 6}

    def __init__(self) -> None:
        super().__init__()
        self.one, self.norm, self.two = conv(3, 4), nn.BatchNorm2d(4), conv(4, 5)
        self.hidden, self.norm_of_hidden, self.head = nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Linear(6, 3)
        self.a, self.b, self.c = Read({"one": 0}), Read({"two": 0}), Read({"hidden": 0})

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(F.max_pool2d(F.relu(self.norm(self.one(x))), 2))
        x = self.b(torch.sigmoid(self.two(x)).mean((2, 3)))
        return self.head(self.c(F.relu(self.norm_of_hidden(self.hidden(x)))))


class Residual(nn.Module):
    """A block beside the identity, then one beside a projection of another stride."""

    units: ClassVar = {"stem": 4, "one": 5, "two": 4, "three": 5, "four": 6, "short": 6}

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one, self.two = conv(3, 4), conv(4, 5), conv(5, 4)
        self.three, self.four, self.short = conv(4, 5, stride=2), conv(5, 6), conv(4, 6, 1, stride=2)
        self.norms = nn.ModuleDict({"two": nn.BatchNorm2d(4), "four": nn.BatchNorm2d(6), "short": nn.BatchNorm2d(6)})
        self.head = nn.Linear(6, 3)
        self.inside, self.beside = Read({"stem": 0}), Read({"stem": 0})
        self.a, self.b, self.c = Read({"one": 0}), Read({"two": 0}), Read({"three": 0})
        self.d, self.e = Read({"four": 0}), Read({"short": 0})

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        y = self.norms["two"](self.two(self.a(F.relu(self.one(self.inside(x))))))
        x = F.relu(self.b(y) + self.beside(x))
        y = self.norms["four"](self.four(self.c(F.relu(self.three(x)))))
        x = F.relu(self.d(y) + self.e(self.norms["short"](self.short(x))))
        return self.head(x.mean((2, 3)))


class Dense(nn.Module):
    """Norm and ReLU after concatenations that grow; one layer is read at several offsets."""

    units: ClassVar = {"stem": 3, "one": 2, "two": 4, "squeeze": 5}

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one, self.two, self.squeeze = conv(3, 3), conv(3, 2), conv(5, 4), conv(9, 5, 1)
        self.norms = nn.ModuleList([nn.BatchNorm2d(3), nn.BatchNorm2d(5), nn.BatchNorm2d(9)])
        self.head = nn.Linear(5, 3)
        self.a, self.b = Read({"stem": 0}), Read({"one": 0, "stem": 2})
        self.c, self.d = Read({"one": 0, "stem": 2, "two": 5}), Read({"squeeze": 0})

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.one(self.a(F.relu(self.norms[0](x))))
        x = torch.cat([y, x], 1)
        y = self.two(self.b(F.relu(self.norms[1](x))))
        x = self.squeeze(self.c(F.relu(self.norms[2](torch.cat([x, y], 1)))))
        return self.head(self.d(F.avg_pool2d(x, 8).flatten(1)))


class Grouped(nn.Module):
    """A grouped convolution, a depthwise one, and a norm of groups."""

    units: ClassVar = {"one": 4, "groups": 6, "depth": 6}

    def __init__(self) -> None:
        super().__init__()
        self.one, self.groups, self.depth = conv(3, 4), conv(4, 6, groups=2), conv(6, 6, groups=6)
        self.norm, self.head = nn.GroupNorm(3, 6), nn.Linear(6, 3)
        self.a, self.b, self.c = Read({"one": 0}), Read({"groups": 0}), Read({"depth": 0})

    def forward(self, x: Tensor) -> Tensor:
        x = self.b(F.hardswish(self.groups(self.a(F.relu6(self.one(x))))))
        return self.head(self.c(self.norm(self.depth(x)).mean((2, 3))))


class Flattened(nn.Module):
    """Several places per channel before a linear layer, and places beside numbers of another kind."""

    units: ClassVar = {"one": 4, "two": 3, "three": 5}

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = conv(3, 4), conv(4, 3), conv(3, 5)
        self.norm, self.head = nn.BatchNorm1d(5 + 3 * 4), nn.Linear(5 + 3 * 4, 3)
        self.a, self.b = Read({"one": 0}), Read({"two": 0})
        self.places, self.means = Read({"two": 5}, 1, 4), Read({"three": 0})

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.two(self.a(F.silu(self.one(x)))), 4)
        y = self.three(self.b(x))
        x = torch.cat([y.mean((2, 3)), torch.flatten(x, 1)], 1)
        return self.head(self.places(self.means(self.norm(x))))


class FlatHead(nn.Module):
    """A linear layer on all places."""

    units: ClassVar = {"one": 4, "two": 3, "hidden": 5}

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = conv(3, 4), conv(4, 3)
        self.hidden, self.head = nn.Linear(3 * 16, 5), nn.Linear(5, 3)
        self.a, self.b, self.c = Read({"one": 0}), Read({"two": 0}), Read({"hidden": 0})

    def forward(self, x: Tensor) -> Tensor:
        x = self.b(F.max_pool2d(self.two(self.a(F.relu(self.one(x)))), 2))
        x = x.view(x.size(0), -1)
        return self.head(self.c(F.relu(self.hidden(x))))


class Mixing(nn.Module):
    """Norms over channels and a PReLU, behind which channels are read; a softmax, which reads across channels."""

    units: ClassVar = {"one": 6, "two": 4, "three": 4}

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = conv(3, 6), conv(6, 4), conv(4, 4)
        self.lrn, self.prelu, self.head = nn.LocalResponseNorm(3, alpha=0.5), nn.PReLU(4), nn.Linear(4, 3)
        self.a, self.b, self.c = Read({"one": 0}), Read({"two": 0}), Read({"three": 0})

    def forward(self, x: Tensor) -> Tensor:
        x = self.two(self.a(self.lrn(F.relu(self.one(x)))))
        x = self.three(self.b(self.prelu(x)))
        return self.head(F.softmax(self.c(x), dim=1).mean((2, 3))).log_softmax(-1)


class Excited(nn.Module):
    """Squeeze and excitation: maps are read by a product and, as means, by a layer."""

    units: ClassVar = {"one": 4, "down": 2, "up": 4}

    def __init__(self) -> None:
        super().__init__()
        self.one, self.down, self.up, self.head = conv(3, 4), conv(4, 2, 1), conv(2, 4, 1), nn.Linear(4, 3)
        self.a, self.b, self.c, self.d = Read({"one": 0}), Read({"one": 0}), Read({"down": 0}), Read({"up": 0})

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.one(x))
        y = self.c(F.relu(self.down(self.a(F.adaptive_avg_pool2d(x, 1)))))
        return self.head((self.b(x) * self.d(torch.sigmoid(self.up(y)))).mean((2, 3)))


class ReadTwice(nn.Module):
    """Read before and after its ReLU, and side by side with its negative."""

    units: ClassVar = {"one": 4, "two": 5, "three": 5, "both": 4}

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three, self.both = conv(3, 4), conv(4, 5), conv(4, 5), conv(10, 4)
        self.head = nn.Linear(4, 3)
        self.raw, self.active, self.a, self.b = Read({"one": 0}), Read({"one": 0}), Read({"two": 0}), Read({"three": 0})
        self.c, self.two_ways = Read({"both": 0}), Read({"two": [0, 5]})

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(x)
        y = self.two(self.raw(x))
        z = self.b(self.three(self.active(F.relu(x))))
        x = self.c(self.both(self.two_ways(F.relu(torch.cat([y, y * -1.0], 1))))) + z.mean(1, keepdim=True)
        return self.head(x.mean((2, 3)))


class Tangled(nn.Module):
    """One value holds a layer's channels as they are, and again within a sum."""

    units: ClassVar = {"one": 4, "two": 4, "three": 5}

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three, self.head = conv(3, 4), conv(3, 4), conv(8, 5), nn.Linear(5, 3)
        self.a, self.b, self.c, self.d = Read({"one": 0}), Read({"two": 0}), Read({"one": 4}), Read({"three": 0})

    def forward(self, x: Tensor) -> Tensor:
        one, two = self.one(x), self.two(x)
        both = torch.cat([self.a(one) + self.b(two), one], 1)
        return self.head(self.d(F.relu(self.three(self.c(both)))).mean((2, 3)))


class Tokens(nn.Module):
    """Layer norms, linear layers on tokens, and a sum; a pool over tokens that only looks like one over places."""

    units: ClassVar = {"patch": 6, "up": 5, "down": 6, "mix": 4}

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.norm = nn.Conv2d(3, 6, 4, stride=4), nn.LayerNorm(6)
        self.up, self.down, self.mix, self.head = nn.Linear(6, 5), nn.Linear(5, 6), nn.Linear(6, 4), nn.Linear(2, 3)
        self.a, self.b, self.c = Read({"patch": 0}), Read({"up": 0}, -1), Read({"down": 0}, -1)
        self.d, self.pool = Read({"mix": 0}, -1), nn.MaxPool1d(2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(self.patch(x)).flatten(2).transpose(1, 2)
        x = x + self.c(self.down(self.b(F.gelu(self.up(self.norm(x))))))
        return self.head(self.pool(self.d(self.mix(x))).mean(1))


class LastAxis(nn.Module):
    """Channels on the last axis of maps, where means over axes 2 and 3 are no means over places."""

    units: ClassVar = {"stem": 4, "wide": 5, "narrow": 4}

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.wide, self.narrow, self.head = conv(3, 4), nn.Linear(4, 5), nn.Linear(5, 4), nn.Linear(8, 3)
        self.a, self.b, self.c = Read({"stem": 0}), Read({"wide": 0}, -1), Read({"narrow": 0}, -1)
        self.scale = nn.Parameter(torch.rand(4))

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(self.stem(x)).permute(0, 2, 3, 1)
        x = x + self.c(self.narrow(self.b(F.gelu(self.wide(x))))) * self.scale
        return self.head(torch.mean(x, [2, 3]))


class MeansOfRows(nn.Module):
    """The mean over axes 2 and 3 is taken right behind a linear layer whose channels are on axis 3."""

    units: ClassVar = {"wide": 4}

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.head, self.a = nn.Linear(8, 4), nn.Linear(3, 3), Read({"wide": 0}, -1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.a(F.relu(self.wide(x))).mean((2, 3)))


class Rows(nn.Module):
    """One-dimensional maps with a norm, whose places are read by a linear layer."""

    units: ClassVar = {"one": 4, "mixed": 5}

    def __init__(self) -> None:
        super().__init__()
        self.one, self.norm = nn.Conv1d(3, 4, 3, padding=1), nn.BatchNorm1d(4)
        self.mixed, self.head = nn.Linear(64, 5), nn.Linear(5, 3)
        self.a, self.b = Read({"one": 0}), Read({"mixed": 0}, -1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(F.relu(self.norm(self.one(x.flatten(2)))))
        return self.head(self.b(self.mixed(x)).mean(1))


class Volume(nn.Module):
    """Three-dimensional maps; a convolution of rows of maps as channels."""

    units: ClassVar = {"one": 4}

    def __init__(self) -> None:
        super().__init__()
        self.one, self.norm, self.pool = nn.Conv3d(3, 4, 3, padding=1), nn.BatchNorm3d(4), nn.AvgPool3d(2)
        self.head, self.a = nn.Linear(4, 3), Read({"one": 0})

    def forward(self, x: Tensor) -> Tensor:
        x = torch.stack([x, x.flip(-1), x * 0.5, x + 1], 2)
        x = self.a(self.pool(torch.sigmoid(self.norm(self.one(x)))))
        return self.head(x.mean((2, 3, 4)))


class Shared(nn.Module):
    """One layer called twice; its channels go both times."""

    units: ClassVar = {"stem": 4, "again": 4}

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.again, self.norm, self.head = conv(3, 4), conv(4, 4), nn.BatchNorm2d(4), nn.Linear(4, 3)
        self.a, self.b, self.c = Read({"stem": 0}), Read({"again": 0}), Read({"again": 0})

    def forward(self, x: Tensor) -> Tensor:
        x = self.again(self.a(F.relu(self.stem(x))))
        x = self.again(self.b(F.relu(self.norm(x))))
        return self.head(self.c(F.relu(self.norm(x))).mean((2, 3)))


class InPlace(nn.Module):
    """In-place ReLUs of every spelling, and a sum into a value that nothing reads again."""

    units: ClassVar = {"stem": 4, "one": 4, "two": 4}

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one, self.two, self.head = conv(3, 4), conv(4, 4), conv(4, 4), nn.Linear(4, 3)
        self.relu, self.norm = nn.ReLU(inplace=True), nn.BatchNorm2d(4)
        self.a, self.a2, self.b, self.c = Read({"stem": 0}), Read({"stem": 0}), Read({"one": 0}), Read({"two": 0})

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm(self.stem(x)))
        y = self.b(F.relu(self.one(self.a(x)), inplace=True))
        z = self.c(F.elu_(self.two(y)))
        z += self.a2(x)
        return self.head(torch.relu_(z).clamp_(max=2.0).mean((2, 3)))


class Views(nn.Module):
    """A view of maps is read after a ReLU of these maps, which must not be written over them."""

    units: ClassVar = {"one": 4, "two": 4, "row": 5}

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.row, self.head = conv(3, 4), conv(4, 4), nn.Linear(8, 5), nn.Linear(9, 3)
        self.a, self.b, self.c, self.d = Read({"one": 0}), Read({"two": 0}), Read({"two": 0}), Read({"row": 0}, -1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.two(self.a(self.one(x)))
        turned = self.b(y).transpose(2, 3)  # a view
        active = self.c(F.relu(y)).softmax(1).mean((2, 3))
        rows = self.d(self.row(turned)).mean((1, 2))
        return self.head(torch.cat([rows, active], 1))


class Sums(nn.Module):
    """A value is added to a view of itself, and to itself, behind a layer that all channels differ behind."""

    units: ClassVar = {"one": 4, "two": 4}

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.head = conv(3, 4), conv(4, 4), nn.Linear(4, 3)
        self.a, self.b, self.c, self.d = Read({"one": 0}), Read({"two": 0}), Read({"two": 0}), Read({"two": 0})

    def forward(self, x: Tensor) -> Tensor:
        y = self.two(self.a(self.one(x)))
        z = self.b(y) + self.c(y).transpose(2, 3)
        z = z + z
        return self.head((F.relu(z) + self.d(F.relu(y))).mean((2, 3)))


class Scalars(nn.Module):
    """Numbers added and multiplied after a layer: not zero where the layer is zero."""

    units: ClassVar = {"one": 4, "two": 4}

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.head = conv(3, 4), conv(4, 4), nn.Linear(4, 3)
        self.a, self.b, self.c = Read({"one": 0}), Read({"two": 0}), Read({"two": 0})

    def forward(self, x: Tensor) -> Tensor:
        x = self.a((self.one(x) * 0.5 + 1.0) / 3)
        x = self.two(x)
        return self.head((self.b(x) * self.c(F.relu6(x + 3.0) / 6.0)).mean((2, 3)))


class NormedLast(nn.Module):
    """A norm of groups before two readers; norms of layers behind channels that were moved to the end, and back."""

    units: ClassVar = {"stem": 4, "depth": 4, "up": 6, "down": 4, "last": 5}

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.depth, self.last = conv(3, 4), conv(4, 4, groups=4), conv(4, 5)
        self.groups, self.norm, self.other = nn.GroupNorm(2, 4), nn.LayerNorm(4), nn.LayerNorm(5)
        self.up, self.down, self.head = nn.Linear(4, 6), nn.Linear(6, 4), nn.Linear(5, 3)
        self.a, self.b, self.c = Read({"stem": 0}), Read({"depth": 0}, -1), Read({"up": 0}, -1)
        self.d, self.e = Read({"down": 0}, -1), Read({"last": 0}, -1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(F.relu(self.groups(self.stem(x))))
        y = self.b(self.norm(torch.permute(self.depth(x), (0, 2, 3, 1))))
        y = self.d(self.down(self.c(F.gelu(self.up(y)))))
        x = self.last(x + y.permute(0, 3, 1, 2)).permute([0, 2, 3, 1])
        other = self.other
        x = self.e(F.layer_norm(x, (5,), other.weight, other.bias, other.eps)).permute(0, 3, 1, 2)
        return self.head(x.mean((2, 3)))


class Frames(nn.Module):
    """Halves of images side by side on the axis of images: none of `NETS`, for what it does cannot be told by image."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.head = conv(3, 4), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        n = x.shape[0]
        x = x.unflatten(2, (2, 4)).transpose(1, 2).reshape(n * 2, 3, 4, 8)
        return self.head(F.relu(self.one(x)).mean((2, 3)).reshape(n, 8))


NETS = (
    Plain, Residual, Dense, Grouped, Flattened, FlatHead, Mixing, Excited, ReadTwice, Tangled, Tokens, LastAxis,
    MeansOfRows, Rows, Volume, Shared, InPlace, Views, Sums, Scalars, NormedLast,
)  # fmt: skip
