"""Decoders: from features of visible patches to features of masked ones."""

from abc import ABC, abstractmethod
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int64
from timm.layers.norm import LayerNorm
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from mae_lightning.models.attention import Attention, attend, split_heads
from mae_lightning.models.initialization import init_linear_layers
from mae_lightning.models.masking import PatchMask


class Decoder(nn.Module, ABC):
    """What stands between encoder and prediction; derive from it to decode in another way.

    Attributes:
        dim: Channels of the tokens that come in and go out.
        masked_only: Whether features of masked tokens alone come out, each whatever the other masked tokens are.
        num_mixtures: How many mixtures of the features of all encoder blocks it reads; 0 for the last block's alone.
    """

    dim: int
    masked_only: bool = False
    num_mixtures: int = 0

    @abstractmethod
    def forward(
        self, visible: Float[Tensor, "batch *mixture visible dim"], masked: Float[Tensor, "batch masked dim"]
    ) -> Float[Tensor, "batch token dim"]:
        """Features of all tokens, first the visible ones, then the masked ones; or of the masked ones alone.

        Args:
            visible: The encoder's output, projected to ``dim``, with positions; class and register tokens come first.
            masked: Mask tokens with positions; what became of them in an encoder that sees them (Table 1c).
        """

    def of_masked(
        self, visible: Float[Tensor, "batch *mixture visible dim"], masked: Float[Tensor, "batch masked dim"]
    ) -> Float[Tensor, "batch masked dim"]:
        """Features of the masked tokens alone, the same as :meth:`forward` gives them."""
        features: Tensor = self(visible, masked)[:, -masked.shape[1] :]
        return features

    def predicted(self, mask: PatchMask) -> Int64[Tensor, "batch predicted"]:
        """The masked patches that are predicted now, ascending; all, unless a decoder leaves some out in training."""
        return mask.masked


class TransformerDecoder(Decoder):
    """Transformer blocks over visible and mask tokens together (paper Section 3, MAE decoder, and Table 1a, b).

    Args:
        depth: Number of blocks.
        dim: Channels of a token.
        num_heads: Attention heads a block.
        mlp_ratio: Hidden channels of a block's MLP over ``dim``.

    Raises:
        ValueError: There is no block, or ``dim`` is not a multiple of ``num_heads``.
    """

    def __init__(self, *, depth: int = 8, dim: int = 512, num_heads: int = 16, mlp_ratio: float = 4.0) -> None:
        super().__init__()
        if depth < 1:
            raise ValueError(f"a decoder of depth {depth} is none; it has at least 1 block")
        if dim % num_heads:
            raise ValueError(f"a decoder of width {dim} cannot be split into {num_heads} heads; use a multiple of it")
        self.depth, self.dim, self.num_heads, self.mlp_ratio = depth, dim, num_heads, mlp_ratio
        block = partial(DecoderBlock, qkv_bias=True, norm_layer=LayerNorm, attn_layer=Attention)
        self.blocks = nn.Sequential(*(block(dim, num_heads, mlp_ratio) for _ in range(depth)))
        self.norm = LayerNorm(dim)
        init_linear_layers(self)

    def forward(
        self, visible: Float[Tensor, "batch visible dim"], masked: Float[Tensor, "batch masked dim"]
    ) -> Float[Tensor, "batch token dim"]:
        """Features of all tokens after the final norm, in the order that they came in."""
        features: Tensor = self.norm(self.blocks(torch.cat([visible, masked], dim=1)))
        return features

    def of_masked(
        self, visible: Float[Tensor, "batch visible dim"], masked: Float[Tensor, "batch masked dim"]
    ) -> Float[Tensor, "batch masked dim"]:
        """The same numbers, but the last block stops at the visible tokens' keys and values."""
        tokens = torch.cat([visible, masked], dim=1)
        *blocks, last = self.blocks
        for block in blocks:
            tokens = block(tokens)
        features: Tensor = self.norm(last(tokens, num_queries=masked.shape[1]))
        return features


class DecoderBlock(Block):
    """timm's block, which can leave out what becomes of the first tokens."""

    def forward(
        self,
        x: Float[Tensor, "batch token dim"],
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
        num_queries: int | None = None,
    ) -> Float[Tensor, "batch asked dim"]:
        """Tokens after attention and MLP: all of them, or as many as are asked for from the end.

        The block has neither dropout nor scales, and its attention no norms.
        """
        if num_queries is None:
            features: Tensor = super().forward(x, attn_mask, is_causal)
            return features
        assert attn_mask is None
        assert not is_causal
        attention: Any = self.attn
        query, key, value = split_heads(attention.qkv(self.norm1(x)), 3, attention.num_heads)
        read = attend(query[:, :, -num_queries:], key, value, always_fused=attention.always_fused)
        asked = x[:, -num_queries:] + attention.proj(read.transpose(1, 2).flatten(2))
        result: Tensor = asked + self.mlp(self.norm2(asked))
        return result
