"""Heads of attention as units: beside hooks at the output projection, beside fewer heads, beside zero weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import pytest
import torch
from ablation_nets import SHAPE
from eager_ablation import Read, eager
from test_ablation_replay import assert_close, assert_same_bits, bits, pictures
from torch import Tensor, nn

from prunescope.core.compat import torchvision_module
from prunescope.engine.ablation.capture import capture
from prunescope.engine.ablation.removal import Weights, Zero
from prunescope.engine.ablation.replay import Stage
from prunescope.engine.ablation.worlds import Worlds
from prunescope.models.few_heads import FewHeads
from random_nets import lively

WIDTH, HEADS = 8, 4


class Readable(nn.MultiheadAttention):
    """The same attention, written out, with the place that `Read` marks before the output projection."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.read = Read({"attention": 0}, -1, WIDTH // HEADS)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, need_weights: bool = True) -> Any:  # type: ignore[override]
        if not self.batch_first:
            query, key, value = (x.transpose(0, 1) for x in (query, key, value))
        w = (
            self.in_proj_weight.split(WIDTH)
            if self._qkv_same_embed_dim
            else (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        )
        b = (0, 0, 0) if self.in_proj_bias is None else self.in_proj_bias.split(WIDTH)
        q, k, v = (x @ w[i].t() + b[i] for i, x in enumerate((query, key, value)))
        parts, size = [], WIDTH // HEADS
        for head in range(HEADS):
            here = slice(head * size, (head + 1) * size)
            scores = q[..., here] @ k[..., here].transpose(1, 2) / size**0.5
            parts.append(scores.softmax(-1) @ v[..., here])
        out = self.out_proj(self.read(torch.cat(parts, -1)))
        return (out if self.batch_first else out.transpose(0, 1)), None


class Vision(nn.Module):
    """Patches, attention beside the identity, a mean over tokens."""

    options: ClassVar[dict[str, Any]] = {}

    def __init__(self, attention: type[nn.MultiheadAttention] = nn.MultiheadAttention) -> None:
        super().__init__()
        self.patch, self.norm = nn.Conv2d(3, WIDTH, 4, stride=4), nn.LayerNorm(WIDTH)
        self.attention = attention(WIDTH, HEADS, **self.options)
        self.head = nn.Linear(WIDTH, 3)

    def attend(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, need_weights=False)[0]

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        return self.head((x + self.attend(self.norm(x))).mean(1))


class BatchFirst(Vision):
    options: ClassVar = {"batch_first": True}


class TokensFirst(Vision):
    """Weights of attention are asked for, and not used."""

    def attend(self, x: Tensor) -> Tensor:
        x = x.transpose(0, 1)
        return self.attention(x, x, x)[0].transpose(0, 1)


class NoBias(Vision):
    options: ClassVar = {"batch_first": True, "bias": False}


class Cross(Vision):
    """Queries, keys and values from three places."""

    options: ClassVar = {"batch_first": True}

    def attend(self, x: Tensor) -> Tensor:
        return self.attention(x[:, 1:], x * 2.0, x.flip(-1))[0].mean(1, keepdim=True)


class OtherWidths(Vision):
    """Keys and values of other widths, so with projections of their own."""

    options: ClassVar = {"batch_first": True, "kdim": 3, "vdim": 5}

    def attend(self, x: Tensor) -> Tensor:
        return self.attention(x, x[..., :3], x[..., :5], need_weights=False)[0]


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


KINDS = (BatchFirst, TokensFirst, NoBias, Cross, OtherWidths)


def network(kind: type[Vision]) -> tuple[nn.Module, nn.Module]:
    """One, and the same with attention written out."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = lively(kind())
    readable = kind(Readable).eval()
    readable.load_state_dict(model.state_dict())
    return model.double(), readable.double()


@pytest.mark.parametrize("kind", KINDS)
def test_a_head_is_the_block_that_the_output_projection_reads(kind: type[Vision]) -> None:
    model, readable = network(kind)
    x = pictures(dtype=torch.float64)
    stage = Stage(capture(model, SHAPE))
    assert stage.channels == {"patch": WIDTH, "attention": HEADS, "attention.out_proj": WIDTH}
    base = stage.run(x)
    before = bits(base)
    assert_close(stage.logits(base), model(x))
    assert_close(readable(x), model(x))
    expected = torch.cat([eager(readable, x, {"attention": [head]}) for head in range(HEADS)])
    assert_close(stage.replay("attention", Worlds.grid(torch.arange(HEADS), 3), base), expected)
    pairs = Worlds.pairs(torch.tensor([0, 0, 3]), torch.tensor([2, 0, 1]), 3)
    assert_close(stage.replay("attention", pairs, base), expected[[2, 0, 10]])
    assert_close(stage.full("attention", pairs.channel, x[pairs.image]), expected[[2, 0, 10]])
    assert_same_bits(before, base)
    stage.close({"attention": torch.tensor([1])})
    closed = stage.run(x)
    assert_close(stage.logits(closed), eager(readable, x, {"attention": [1]}))
    found = stage.replay("attention", Worlds.grid(torch.tensor([2]), 3), closed)
    assert_close(found, eager(readable, x, {"attention": [1, 2]}))


@pytest.mark.parametrize("kind", [BatchFirst, TokensFirst, NoBias])
def test_without_a_head_is_attention_with_fewer_heads(kind: type[Vision]) -> None:
    model, _ = network(kind)
    x = pictures(dtype=torch.float64)
    stage = Stage(capture(model, SHAPE))
    base = stage.run(x)
    for head in range(HEADS):
        found = stage.replay("attention", Worlds.grid(torch.tensor([head]), 3), base)
        few = kind().double().eval()
        few.load_state_dict(model.state_dict())
        few.attend = _self_attention(FewHeads.of(model.attention, _others(head)), kind)  # type: ignore[assignment, arg-type, method-assign]
        assert_close(found, few(x))


def _others(head: int) -> Sequence[int]:
    return [other for other in range(HEADS) if other != head]


def _self_attention(few: FewHeads, kind: type[Vision]) -> Any:
    def attend(x: Tensor) -> Tensor:
        x = x if kind.options.get("batch_first") else x.transpose(0, 1)
        out = few(x, x, x)[0]
        return out if kind.options.get("batch_first") else out.transpose(0, 1)

    return attend


@pytest.mark.parametrize("kind", KINDS)
def test_a_head_without_weights_says_nothing(kind: type[Vision]) -> None:
    model, _ = network(kind)
    x, worlds = pictures(dtype=torch.float64), Worlds.grid(torch.arange(HEADS), 3)
    stage = Stage(capture(model, SHAPE))
    base = stage.run(x)
    zero = stage.replay("attention", worlds, base, removal=Zero())
    assert_close(stage.replay("attention", worlds, base, removal=Weights()), zero)
    if kind in (BatchFirst, TokensFirst):
        rows = torch.arange(2) + 2 * 1
        for part in range(3):
            model.attention.in_proj_weight[part * WIDTH + rows] = 0
            model.attention.in_proj_bias[part * WIDTH + rows] = 0
        assert_close(zero[3:6], model(x))


class Masked(BatchFirst):
    def attend(self, x: Tensor) -> Tensor:
        mask = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=x.dtype).repeat(2, 2)
        return self.attention(x, x, x, attn_mask=mask, need_weights=False)[0]


class Weighed(BatchFirst):
    """The weights of attention are part of the result."""

    def attend(self, x: Tensor) -> Tensor:
        out, weights = self.attention(x, x, x)
        return out * weights.amax(-1, keepdim=True)


class WeighedByHead(BatchFirst):
    def attend(self, x: Tensor) -> Tensor:
        out, weights = self.attention(x, x, x, average_attn_weights=False)
        return out * weights[:, 1].amax(-1, keepdim=True)


def test_attention_with_masks_stays_whole() -> None:
    model = network(Masked)[0].float()
    model.norm = nn.LayerNorm(WIDTH)
    stage = Stage(capture(model, SHAPE))
    assert stage.channels == {"patch": WIDTH}
    x = pictures()
    base = stage.run(x)
    assert_close(stage.logits(base), model(x))
    channels = torch.arange(WIDTH)
    worlds = Worlds.grid(channels, 3)
    assert_close(stage.replay("patch", worlds, base), stage.full("patch", worlds.channel, x[worlds.image]))


@pytest.mark.parametrize("kind", [Weighed, WeighedByHead])
def test_the_weights_of_attention_are_as_torch_gives_them(kind: type[Vision]) -> None:
    model, _ = network(kind)
    stage = Stage(capture(model, SHAPE))
    x = pictures(dtype=torch.float64)
    assert_close(stage.logits(stage.run(x)), model(x))
    assert stage.channels["attention"] == HEADS


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.filterwarnings("ignore:enable_nested_tensor:UserWarning")
def test_torch_encoders_are_taken_apart(norm_first: bool, batch_first: bool) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(4)
        layer = nn.TransformerEncoderLayer(
            WIDTH, HEADS, 6, activation="gelu", batch_first=batch_first, norm_first=norm_first
        )
        patch = nn.Sequential(nn.Conv2d(3, WIDTH, 4, stride=4), nn.Flatten(2))
        model = _Encoded(patch, nn.TransformerEncoder(layer, 2, nn.LayerNorm(WIDTH)), batch_first)
        lively(model).double()
    stage = Stage(capture(model, SHAPE))
    x = pictures(dtype=torch.float64)
    base = stage.run(x)
    assert_close(stage.logits(base), model(x))
    assert [name for name, count in stage.channels.items() if count == HEADS] == [
        f"encoder.layers.{i}.self_attn" for i in range(2)
    ]
    assert stage.channels["encoder.layers.0.linear1"] == 6
    for name, count in stage.channels.items():
        worlds = Worlds.grid(torch.arange(count), 3)
        assert_close(stage.replay(name, worlds, base), stage.full(name, worlds.channel, x[worlds.image]))


class _Encoded(nn.Module):
    def __init__(self, patch: nn.Module, encoder: nn.Module, batch_first: bool) -> None:
        super().__init__()
        self.patch, self.encoder, self.batch_first, self.head = patch, encoder, batch_first, nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).transpose(1, 2)
        x = self.encoder(x if self.batch_first else x.transpose(0, 1))
        return self.head(x.mean(1 if self.batch_first else 0))


def test_a_vision_transformer_has_heads_in_every_block() -> None:
    library = torchvision_module("torchvision.models")
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = library.VisionTransformer(
            image_size=8, patch_size=4, num_layers=3, num_heads=4, hidden_dim=16, mlp_dim=24, num_classes=3
        )
        lively(model).double()
    stage = Stage(capture(model, SHAPE))
    x = pictures(dtype=torch.float64)
    base = stage.run(x)
    assert_close(stage.logits(base), model(x))
    for i in range(3):
        name = f"encoder.layers.encoder_layer_{i}.self_attention"
        assert stage.channels[name] == 4
        worlds = Worlds.grid(torch.arange(4), 3)
        found = stage.replay(name, worlds, base)
        for head in range(4):
            attention = model.get_submodule(name)
            few = FewHeads.of(attention, _others(head))
            model.get_submodule(f"encoder.layers.encoder_layer_{i}").self_attention = few
            assert_close(found[head * 3 : head * 3 + 3], model(x))
            model.get_submodule(f"encoder.layers.encoder_layer_{i}").self_attention = attention


def test_hooked_attention_stays_whole() -> None:
    model, _ = network(BatchFirst)
    model.attention.register_forward_hook(lambda module, given, out: (out[0] * 2, out[1]))
    stage = Stage(capture(model, SHAPE))
    assert stage.channels == {"patch": WIDTH}
    x = pictures(dtype=torch.float64)
    assert_close(stage.logits(stage.run(x)), model(x))
