"""A decoder by cross-attention alone (CrossMAE: Fu et al. 2024, arXiv 2401.14391)."""

import torch
from jaxtyping import Float, Int64
from timm.layers.mlp import Mlp
from timm.layers.norm import LayerNorm
from torch import Tensor, nn

from mae_lightning.models.attention import attend, split_heads
from mae_lightning.models.decoder import Decoder
from mae_lightning.models.initialization import init_linear_layers
from mae_lightning.models.masking import PatchMask, some_masked


class CrossAttentionDecoder(Decoder):
    """Each mask token asks the visible tokens, never another mask token (CrossMAE, Section 3).

    No prediction depends on which others are made, so in training a part of them will do; in evaluation all are made,
    and are the same as one by one. Keys and values are what :class:`TransformerDecoder` gets: the encoder's output,
    projected to ``dim``, with positions.

    Args:
        depth: Number of blocks.
        dim: Channels of a token.
        num_heads: Attention heads a block.
        mlp_ratio: Hidden channels of a block's MLP over ``dim``.
        predicted_share: Share of the masked patches that are predicted in training, drawn anew with each mask: the
            paper's ratio of 0.25 of all patches is a third of 75 % masked.
        inter_block: Whether each block reads a learned mixture of its own of the features of all encoder blocks.

    Raises:
        ValueError: ``dim`` is not a multiple of ``num_heads``, or the share is not above 0 and at most 1.
    """

    masked_only = True

    def __init__(
        self,
        *,
        depth: int = 12,
        dim: int = 512,
        num_heads: int = 16,
        mlp_ratio: float = 4.0,
        predicted_share: float = 1 / 3,
        inter_block: bool = False,
    ) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"a decoder of width {dim} cannot be split into {num_heads} heads; use a multiple of it")
        if not 0 < predicted_share <= 1:
            raise ValueError(f"predicted_share {predicted_share:g} must be above 0 and at most 1")
        self.depth, self.dim, self.num_heads, self.mlp_ratio = depth, dim, num_heads, mlp_ratio
        self.predicted_share, self.inter_block = predicted_share, inter_block
        self.num_mixtures = depth if inter_block else 0
        self.blocks = nn.ModuleList(CrossBlock(dim, num_heads, mlp_ratio) for _ in range(depth))
        self.norm = LayerNorm(dim)
        init_linear_layers(self)

    def forward(
        self, visible: Float[Tensor, "batch *mixture visible dim"], masked: Float[Tensor, "batch masked dim"]
    ) -> Float[Tensor, "batch masked dim"]:
        """Features of the masked tokens after the final norm."""
        contexts = visible.unbind(dim=1) if self.inter_block else [visible] * self.depth
        for block, context in zip(self.blocks, contexts, strict=True):
            masked = block(masked, context)
        features: Tensor = self.norm(masked)
        return features

    def predicted(self, mask: PatchMask) -> Int64[Tensor, "batch predicted"]:
        """A share of the masked patches in training, all of them in evaluation."""
        if not self.training or self.predicted_share == 1:
            return mask.masked
        return some_masked(mask, self.predicted_share)


class CrossBlock(nn.Module):
    """Attention from one sequence to another, then an MLP: a Transformer decoder's block without self-attention.

    Args:
        dim: Channels of a token of either.
        num_heads: Attention heads.
        mlp_ratio: Hidden channels of the MLP over ``dim``.
    """

    always_fused: bool = False

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm1, self.norm2 = LayerNorm(dim), LayerNorm(dim)
        self.query, self.key_value, self.proj = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim), nn.Linear(dim, dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def forward(
        self, tokens: Float[Tensor, "batch token dim"], context: Float[Tensor, "batch visible dim"]
    ) -> Float[Tensor, "batch token dim"]:
        """The tokens, having read the context."""
        (query,) = split_heads(self.query(self.norm1(tokens)), 1, self.num_heads)
        key, value = split_heads(self.key_value(context), 2, self.num_heads)
        read = attend(query, key, value, always_fused=self.always_fused).transpose(1, 2).flatten(2)
        tokens = tokens + self.proj(read)
        result: Tensor = tokens + self.mlp(self.norm2(tokens))
        return result


class FeatureMixture(nn.Module):
    """Learned weighted sums of the features of all encoder blocks (CrossMAE, inter-block attention).

    A sum starts as large as what it sums: its weights are drawn with a variance of one over their number. Each has a
    norm of its own, as the features of single blocks have none.

    Args:
        num_features: Features that are summed: what goes into the first block, and what comes out of each.
        num_mixtures: Sums.
        dim: Channels of a feature.
    """

    def __init__(self, num_features: int, num_mixtures: int, dim: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.randn(num_mixtures, num_features) * num_features**-0.5)
        self.norms = nn.ModuleList(LayerNorm(dim) for _ in range(num_mixtures))

    def forward(self, features: Float[Tensor, "batch feature token dim"]) -> Float[Tensor, "batch mixture token dim"]:
        """The sums, each normalised."""
        mixtures = torch.einsum("mf,bftd->mbtd", self.weights.to(features.dtype), features)
        return torch.stack([norm(mixture) for norm, mixture in zip(self.norms, mixtures, strict=True)], dim=1)
