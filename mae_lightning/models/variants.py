"""Position embeddings and norms that ViT was compared with (Dosovitskiy et al. 2020, Appendix D.4, Table 8).

They are put into timm's VisionTransformer as it stands, so that everything else is timm's.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from timm.layers import attention as timm_attention
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from mae_lightning.models.attention import Attention, split_heads
from mae_lightning.models.encoder import num_prefix_positions
from mae_lightning.models.initialization import TOKEN_STD
from mae_lightning.models.positions import raster_sincos_positions, sincos_positions

Positions = Literal["learned_from_sincos", "none", "learned_1d", "learned_2d", "relative", "sincos_1d", "sincos_2d"]
PositionsAt = Literal["stem", "every_layer", "every_layer_shared"]
BlockNorm = Literal["layer", "batch"]


def vary(vit: VisionTransformer, *, positions: Positions, positions_at: PositionsAt, block_norm: BlockNorm) -> None:
    """Gives a fresh vision transformer, whose positions start at sin-cos, other positions and norms in place.

    Args:
        vit: The model.
        positions: Learned from a sin-cos start, as timm's models are fine-tuned; none; learned from noise, one vector a
            patch; learned as one half a row and one half a column; learned for each offset in the sequence, inside the
            attention; or fixed sines and cosines along the sequence, or along both axes.
        positions_at: Added before the first block; before every block, each with its own; or before every block, the
            same.
        block_norm: LayerNorm, or BatchNorm over images and tokens, inside the blocks; the final norm is a LayerNorm.

    Raises:
        ValueError: The two do not go together, or the attention is not the plain one.
    """
    if positions in ("none", "relative") and positions_at != "stem":
        raise ValueError(
            f"positions '{positions}' are not added to tokens: positions_at must be stem, not {positions_at}"
        )
    if block_norm == "batch":
        for block in vit.blocks:
            block.norm1, block.norm2 = TokenBatchNorm(vit.embed_dim), TokenBatchNorm(vit.embed_dim)
    if (positions, positions_at) == ("learned_from_sincos", "stem"):
        return
    if positions in ("none", "relative"):
        vit.pos_embed = None
        if positions == "relative":
            _relate(vit)
    elif positions_at == "stem" and positions != "learned_2d":
        vit.pos_embed = _table(vit, positions).table  # timm's own place, so that the weights stay timm's
    else:
        _add_tables(vit, positions, positions_at)


def position_names(model: nn.Module) -> set[str]:
    """Names of the parameters here that stand for positions, which do not decay, as timm's own do not."""
    modules = ((name, module) for name, module in model.named_modules() if isinstance(module, PositionTable))
    tables = {f"{name}.{own}" for name, module in modules for own, _ in module.named_parameters()}
    return tables | {name for name, _ in model.named_parameters() if name.endswith(".offset_keys")}


class PositionTable(nn.Module, ABC):
    """A vector for each token of the sequence."""

    @abstractmethod
    def forward(self) -> Float[Tensor, "token dim"]:
        """All of them, prefix tokens first; prefix tokens without any are left out."""


class FlatTable(PositionTable):
    """A vector of its own for each place.

    Args:
        start: Their first values.
        learned: Whether they learn.
    """

    def __init__(self, start: Float[Tensor, "token dim"], *, learned: bool) -> None:
        super().__init__()
        self.table = nn.Parameter(start.unsqueeze(0), requires_grad=learned)

    def forward(self) -> Float[Tensor, "token dim"]:
        """The table as it is."""
        return self.table[0]


class RowColumnTable(PositionTable):
    """One half of the channels for the row, the other for the column (ViT, Appendix D.4, 2-D).

    Args:
        grid: Rows and columns of patches.
        dim: Channels of a token.
        num_prefix: Prefix tokens with a position, each with a vector of its own.

    Raises:
        ValueError: ``dim`` is odd.
    """

    def __init__(self, grid: tuple[int, int], dim: int, num_prefix: int) -> None:
        super().__init__()
        if dim % 2:
            raise ValueError(f"positions of half a row and half a column need an even width, not {dim}")
        self.rows, self.columns = (nn.Parameter(torch.randn(count, dim // 2) * TOKEN_STD) for count in grid)
        self.prefix = nn.Parameter(torch.randn(num_prefix, dim) * TOKEN_STD)

    def forward(self) -> Float[Tensor, "token dim"]:
        """Rows and columns side by side for every patch."""
        grid = (len(self.rows), len(self.columns), -1)
        halves = [self.rows.unsqueeze(1).expand(grid), self.columns.unsqueeze(0).expand(grid)]
        return torch.cat([self.prefix, torch.cat(halves, dim=2).flatten(0, 1)])


class RelativeAttention(nn.Module):
    """Attention to content and to offsets in the sequence of patches (ViT, Appendix D.4, relative).

    Each offset has a vector of its own, which the query meets as it meets a key; both products are summed before the
    softmax. Class and register tokens have no offsets. One set of vectors a layer.

    Args:
        attention: timm's attention, whose weights it takes over.
        num_patches: Patches of an image.
        num_prefix: Class and register tokens before them.
    """

    def __init__(self, attention: timm_attention.Attention, num_patches: int, num_prefix: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.num_prefix = attention.num_heads, attention.head_dim, num_prefix
        self.qkv, self.proj = attention.qkv, attention.proj
        self.offset_keys = nn.Parameter(torch.randn(2 * num_patches - 1, attention.attn_dim) * TOKEN_STD)
        place = torch.arange(num_patches)
        self.register_buffer("offsets", place.unsqueeze(1) - place + num_patches - 1, persistent=False)

    def forward(
        self, tokens: Float[Tensor, "batch token dim"], attn_mask: None = None, is_causal: bool = False
    ) -> Float[Tensor, "batch token dim"]:
        """Tokens after attention; every token sees every other."""
        assert attn_mask is None
        assert not is_causal
        query, key, value = split_heads(self.qkv(tokens), 3, self.num_heads)
        vectors = self.offset_keys.view(-1, self.num_heads, self.head_dim).permute(1, 2, 0)
        by_offset = query[:, :, self.num_prefix :] @ vectors
        index = self.get_buffer("offsets").expand(*by_offset.shape[:2], -1, -1)
        bias = F.pad(by_offset.gather(3, index), (self.num_prefix, 0, self.num_prefix, 0)) * self.head_dim**-0.5
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias.to(query.dtype))
        result: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return result


class TokenBatchNorm(nn.BatchNorm1d):
    """BatchNorm of each channel over all tokens of all images of a device."""

    def forward(self, tokens: Float[Tensor, "batch token dim"]) -> Float[Tensor, "batch token dim"]:
        """Normalised tokens."""
        return super().forward(tokens.transpose(1, 2)).transpose(1, 2)


class _Adding:
    """A hook before a block; an object, so that a copied model adds the copied table.

    Args:
        table: What is added.
    """

    def __init__(self, table: PositionTable) -> None:
        self.table = table

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        tokens, *others = inputs
        table = self.table()
        return (tokens + F.pad(table, (0, 0, tokens.shape[1] - len(table), 0)), *others)


def _add_tables(vit: VisionTransformer, positions: Positions, positions_at: PositionsAt) -> None:
    vit.pos_embed = None
    places: Iterable[nn.Module] = [vit.norm_pre] if positions_at == "stem" else vit.blocks
    shared = _table(vit, positions) if positions_at == "every_layer_shared" else None
    tables = [(place, shared or _table(vit, positions)) for place in places]
    vit.positions = nn.ModuleList(dict.fromkeys(table for _, table in tables))
    for place, table in tables:
        place.register_forward_pre_hook(_Adding(table))


def _table(vit: VisionTransformer, positions: Positions) -> Any:
    grid, dim = vit.patch_embed.grid_size, vit.embed_dim
    num_prefix = num_prefix_positions(vit)
    if positions == "learned_2d":
        return RowColumnTable(grid, dim, num_prefix)
    if positions == "learned_1d":
        return FlatTable(torch.randn(num_prefix + grid[0] * grid[1], dim) * TOKEN_STD, learned=True)
    if positions == "sincos_1d":
        return FlatTable(raster_sincos_positions(grid[0] * grid[1], dim, num_prefix), learned=False)
    return FlatTable(sincos_positions(grid, dim, num_prefix), learned=positions == "learned_from_sincos")


def _relate(vit: VisionTransformer) -> None:
    for block in vit.blocks:
        attention: Any = block.attn
        if not _is_plain(attention):
            raise ValueError("positions 'relative' need plain attention; take an encoder SIZE/PATCH such as 'base/16'")
        block.attn = RelativeAttention(attention, vit.patch_embed.num_patches, vit.num_prefix_tokens)


def _is_plain(attention: nn.Module) -> bool:
    """Whether it is softmax(Q K^T / sqrt d) V of several heads and nothing else."""
    extras = ("q_norm", "k_norm", "norm")
    return (
        isinstance(attention, timm_attention.Attention)
        and type(attention) in (Attention, timm_attention.Attention)
        and attention.gate is None
        and all(isinstance(getattr(attention, name), nn.Identity) for name in extras)
    )
