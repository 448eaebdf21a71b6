"""Self-attention with fewer heads than its width holds, which `nn.MultiheadAttention` cannot express."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prunescope.core.errors import PrunescopeError


class FewHeads(nn.Module):
    """What is left of an `nn.MultiheadAttention` when some of its heads are gone.

    Parameters have the old names: `in_proj_weight` (3 * heads * head_dim, embed_dim), `in_proj_bias` and `out_proj`
    (heads * head_dim -> embed_dim). Self-attention without masks; the weights of attention are not returned.
    """

    def __init__(
        self, embed_dim: int, num_heads: int, head_dim: int, *, bias: bool, batch_first: bool, dropout: float
    ) -> None:
        super().__init__()
        self.embed_dim, self.num_heads, self.head_dim, self.batch_first = embed_dim, num_heads, head_dim, batch_first
        self.dropout, width = dropout, num_heads * head_dim
        self.in_proj_weight = nn.Parameter(torch.zeros(3 * width, embed_dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width)) if bias else None
        self.out_proj = nn.Linear(width, embed_dim, bias=bias)

    @classmethod
    def of(cls, module: nn.MultiheadAttention, heads: Sequence[int]) -> FewHeads:
        """Only these heads of `module`, in this order."""
        size, total = module.head_dim, module.num_heads
        if module.in_proj_weight is None or module.bias_k is not None or module.add_zero_attn:
            raise PrunescopeError("heads of attention with separate projections, or added keys cannot be taken out")
        bias = module.in_proj_bias is not None
        kind = {"bias": bias, "batch_first": module.batch_first, "dropout": module.dropout}
        few = cls(module.embed_dim, len(heads), size, **kind)
        rows = (torch.tensor(list(heads))[:, None] * size + torch.arange(size)).flatten()
        joint = torch.cat([rows + part * total * size for part in range(3)])
        with torch.no_grad():
            few.to(module.in_proj_weight)
            few.in_proj_weight.copy_(module.in_proj_weight[joint])
            few.out_proj.weight.copy_(module.out_proj.weight[:, rows])
            if few.in_proj_bias is not None:
                few.in_proj_bias.copy_(module.in_proj_bias[joint])
                few.out_proj.bias.copy_(module.out_proj.bias)
        return few.train(module.training)

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, need_weights: bool = False, **options: object
    ) -> tuple[Tensor, None]:
        """(output, None), as `nn.MultiheadAttention` with `need_weights=False`."""
        if key is not query or value is not query or need_weights or _asks(options):
            raise PrunescopeError("attention with fewer heads does self-attention without masks and weights only")
        x = query if self.batch_first else query.transpose(0, 1)
        q, k, v = (
            part.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)
            for part in F.linear(x, self.in_proj_weight, self.in_proj_bias).chunk(3, dim=-1)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, dropout_p=self.dropout if self.training else 0.0)
        mixed = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return (mixed if self.batch_first else mixed.transpose(0, 1)), None


def _asks(options: dict[str, object]) -> bool:
    """Whether an option of attention is on."""
    return any(isinstance(value, Tensor) or bool(value) for value in options.values())
