"""Masks with a shape: blocks and grids (paper Section 4.1, mask sampling, Figure 6 and Table 1f)."""

import math
from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from mae_lightning.models.masking import MaskSampler, PatchMask, more_noise, num_kept_patches

MIN_BLOCK = 16
"""Patches of the smallest rectangle, and..."""
MIN_ASPECT = 0.3
"""...its least height over width, the inverse being the greatest (Bao et al. 2021, arXiv 2106.08254, Algorithm 1)."""
NUM_BLOCKS = 32
"""Rectangles tried an image: at 75 % of 14 x 14 patches, where 12 do on average, one image in a thousand has any patch
left to fill."""


class BlockMasking(MaskSampler):
    """Rectangles until enough is hidden (BEiT's blockwise masking: Bao et al. 2021, arXiv 2106.08254, Algorithm 1).

    Of each rectangle the area is uniform from 16 patches to what is still missing, the aspect log-uniform from 0.3 to
    1 / 0.3, and the place uniform; sides are rounded, and cut to the grid.

    BEiT stops at the first rectangle that reaches the count, and so hides a bit more. Here the
    count is exact in every image: the last rectangle hides its patches row by row only until the count is reached; what
    32 rectangles leave missing is filled by the patches with the greatest noise, as in random masking.
    """

    def __call__(self, noise: Float[Tensor, "batch patch"], grid: tuple[int, int], mask_ratio: float) -> PatchMask:
        num_masked = noise.shape[1] - num_kept_patches(noise.shape[1], mask_ratio)
        draws = more_noise(noise, 4 * NUM_BLOCKS).view(-1, NUM_BLOCKS, 4)
        hidden = torch.zeros_like(noise, dtype=torch.bool)
        for draw in draws.unbind(dim=1):
            missing = num_masked - hidden.sum(dim=1, keepdim=True)
            new = _rectangle(draw, missing, grid, smallest=min(MIN_BLOCK, num_masked)) & ~hidden
            hidden = hidden | (new & (new.cumsum(dim=1) <= missing))
        # Departs from the paper: the count is exact, by trimming above and by filling here.
        return replace(PatchMask.from_noise(noise + hidden, mask_ratio), noise=noise)


class GridMasking(MaskSampler):
    """Keeps the top left patch of each 2 x 2, so that three quarters are hidden and all images alike."""

    def __call__(self, noise: Float[Tensor, "batch patch"], grid: tuple[int, int], mask_ratio: float) -> PatchMask:
        """The one mask there is.

        Raises:
            ValueError: The ratio is not 0.75, or the grid has an odd side.
        """
        if mask_ratio != 0.75:
            raise ValueError(
                f"grid masking hides three of each 2 x 2 patches: mask_ratio must be 0.75, not {mask_ratio:g}"
            )
        if grid[0] % 2 or grid[1] % 2:
            raise ValueError(
                f"grid masking needs even numbers of rows and columns of patches, not {grid[0]} x {grid[1]};"
                " take another image or patch size"
            )
        place = torch.arange(noise.shape[1], device=noise.device)
        kept = (place // grid[1] % 2 == 0) & (place % 2 == 0)
        return PatchMask.from_hidden(~kept.expand(len(noise), -1), len(place) // 4, noise)


def _rectangle(
    draw: Float[Tensor, "batch 4"], missing: Int64[Tensor, "batch 1"], grid: tuple[int, int], smallest: int
) -> Bool[Tensor, "batch patch"]:
    """One rectangle of each image, row by row.

    Args:
        draw: Uniform in [0, 1): for area, aspect, top and left.
        missing: Patches still to hide.
        grid: Rows and columns of patches.
        smallest: Least area in patches.
    """
    (rows, columns), (for_area, for_aspect, for_top, for_left) = grid, draw.unsqueeze(2).unbind(dim=1)
    area = smallest + for_area * (missing - smallest).clamp(min=0)
    aspect = torch.exp((2 * for_aspect - 1) * -math.log(MIN_ASPECT))
    height = (area * aspect).sqrt().round().clamp(1, rows)
    width = (area / aspect).sqrt().round().clamp(1, columns)
    top, left = (for_top * (rows - height + 1)).floor(), (for_left * (columns - width + 1)).floor()
    row, column = torch.arange(rows, device=draw.device), torch.arange(columns, device=draw.device)
    in_rows = (row >= top) & (row < top + height)
    in_columns = (column >= left) & (column < left + width)
    inside: Tensor = in_rows.unsqueeze(2) & in_columns.unsqueeze(1)
    return inside.flatten(1)
