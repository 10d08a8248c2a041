"""Decoders: from features of visible patches to features of masked ones."""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from timm.layers.norm import LayerNorm
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from mae_lightning.models.initialization import init_linear_layers


class Decoder(nn.Module, ABC):
    """What stands between encoder and prediction; derive from it to decode in another way.

    Attributes:
        dim: Channels of the tokens that come in and go out.
    """

    dim: int

    @abstractmethod
    def forward(
        self, visible: Float[Tensor, "batch visible dim"], masked: Float[Tensor, "batch masked dim"]
    ) -> Float[Tensor, "batch token dim"]:
        """Features of all tokens, first the visible ones, then the masked ones.

        Args:
            visible: The encoder's output, projected to ``dim``, with positions; class and register tokens come first.
            masked: Mask tokens with positions; what became of them in an encoder that sees them (Table 1c).
        """


class TransformerDecoder(Decoder):
    """Transformer blocks over visible and mask tokens together (paper Section 3, MAE decoder, and Table 1a, b).

    Args:
        depth: Number of blocks.
        dim: Channels of a token.
        num_heads: Attention heads a block.
        mlp_ratio: Hidden channels of a block's MLP over ``dim``.

    Raises:
        ValueError: ``dim`` is not a multiple of ``num_heads``.
    """

    def __init__(self, *, depth: int = 8, dim: int = 512, num_heads: int = 16, mlp_ratio: float = 4.0) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"a decoder of width {dim} cannot be split into {num_heads} heads; use a multiple of it")
        self.depth, self.dim, self.num_heads, self.mlp_ratio = depth, dim, num_heads, mlp_ratio
        blocks = (Block(dim, num_heads, mlp_ratio, qkv_bias=True, norm_layer=LayerNorm) for _ in range(depth))
        self.blocks = nn.Sequential(*blocks)
        self.norm = LayerNorm(dim)
        init_linear_layers(self)

    def forward(
        self, visible: Float[Tensor, "batch visible dim"], masked: Float[Tensor, "batch masked dim"]
    ) -> Float[Tensor, "batch token dim"]:
        """Features of all tokens after the final norm, in the order that they came in."""
        features: Tensor = self.norm(self.blocks(torch.cat([visible, masked], dim=1)))
        return features
