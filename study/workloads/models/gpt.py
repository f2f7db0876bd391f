"""A small GPT: a decoder of transformer layers that predicts the next byte at every place of its context."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention


class Layer(nn.Module):
    """Causal attention, then an mlp, each added to what it is given normalized (pre-norm)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.mixed = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, t, width) to the same shape; place i sees places up to i."""
        # Three of (n, heads, t, width of a head).
        query, key, value = self.qkv(self.attention_norm(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        seen = scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.mixed(seen.transpose(1, 2).flatten(2))
        return x + self.down(gelu(self.up(self.mlp_norm(x))))


class GPT(nn.Module):
    """Embeddings of tokens and places, layers, a last norm, and a head with one logit for each token.

    Weights are drawn with variance 2 / (5 width) (Nguyen and Salazar 2019, arXiv:1910.05895); those that are added to
    the stream with that over 2 x depth, so that the sum over all layers begins as large as one of them (Radford et al.
    2019).
    """

    def __init__(self, tokens: int, context: int, width: int, depth: int, heads: int, tied_head: bool) -> None:
        super().__init__()
        self.embedding, self.places = nn.Embedding(tokens, width), nn.Embedding(context, width)
        self.layers = nn.Sequential(*(Layer(width, heads) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, tokens, bias=False)
        std = math.sqrt(2 / (5 * width))
        for name, weight in self.named_parameters():
            if name.endswith(("mixed.weight", "down.weight")):
                nn.init.normal_(weight, std=std / math.sqrt(2 * depth))
            elif weight.dim() == 2:
                nn.init.normal_(weight, std=std)
            elif name.endswith("bias"):
                nn.init.zeros_(weight)
        if tied_head:
            self.head.weight = self.embedding.weight

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (n, t), integers, to logits (n, t, tokens); t is at most the context."""
        places = torch.arange(x.shape[1], device=x.device)
        return self.head(self.norm(self.layers(self.embedding(x.long()) + self.places(places))))
