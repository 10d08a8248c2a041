"""Fixed position embeddings."""

from functools import cache

import torch
from jaxtyping import Float, Float32
from torch import Tensor

TEMPERATURE = 10000.0


def sincos_positions(grid: tuple[int, int], dim: int, num_prefix_tokens: int = 0) -> Float32[Tensor, "token {dim}"]:
    """Sines and cosines of a patch's place on the grid (Vaswani et al. 2017, Section 3.5, in two dimensions).

    The first half of the channels encodes the column, the second the row; each half is first all sines, then all
    cosines, from the highest frequency to the lowest: the order in released weights.

    Args:
        grid: Rows and columns of patches.
        dim: Channels of a token.
        num_prefix_tokens: Class and register tokens before the patches; theirs are zeros.

    Raises:
        ValueError: ``dim`` is not a multiple of 4.
    """
    if dim % 4:
        raise ValueError(f"sin-cos positions need a width that is a multiple of 4, not {dim}")
    rows, columns = (torch.arange(count, dtype=torch.float64) for count in grid)
    frequencies = TEMPERATURE ** -(torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))
    row_angles = torch.outer(rows.repeat_interleave(grid[1]), frequencies)
    column_angles = torch.outer(columns.repeat(grid[0]), frequencies)
    parts = [column_angles.sin(), column_angles.cos(), row_angles.sin(), row_angles.cos()]
    patches = torch.cat(parts, dim=1).float()
    return torch.cat([patches.new_zeros(num_prefix_tokens, dim), patches])


@cache
def sincos_table(
    grid: tuple[int, int], dim: int, num_prefix_tokens: int, device: torch.device, dtype: torch.dtype
) -> Float[Tensor, "1 token {dim}"]:
    """The same as models hold them, made once for each grid that images come in; see :func:`sincos_positions`."""
    with torch.inference_mode(False):
        return sincos_positions(grid, dim, num_prefix_tokens).unsqueeze(0).to(device, dtype)


def is_sincos(table: Float[Tensor, "1 token dim"], grid: tuple[int, int]) -> bool:
    """Whether positions of a grid, prefix tokens first, are the fixed ones."""
    _, num_tokens, dim = table.shape
    if dim % 4:
        return False
    fixed = sincos_positions(grid, dim, num_tokens - grid[0] * grid[1])
    return torch.allclose(table[0].float().cpu(), fixed, rtol=0, atol=1e-6)


def raster_sincos_positions(num_patches: int, dim: int, num_prefix_tokens: int = 0) -> Float32[Tensor, "token {dim}"]:
    """Sines and cosines of a patch's place in the row-by-row sequence (Vaswani et al. 2017, Section 3.5).

    Sine and cosine of each frequency stand side by side, from the highest frequency to the lowest.

    Args:
        num_patches: Patches of an image.
        dim: Channels of a token.
        num_prefix_tokens: Class and register tokens before the patches; theirs are zeros.

    Raises:
        ValueError: ``dim`` is odd.
    """
    if dim % 2:
        raise ValueError(f"sin-cos positions along a sequence need an even width, not {dim}")
    frequencies = TEMPERATURE ** -(torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    angles = torch.outer(torch.arange(num_patches, dtype=torch.float64), frequencies)
    patches = torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1).float()
    return torch.cat([patches.new_zeros(num_prefix_tokens, dim), patches])
