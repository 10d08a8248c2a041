"""Brightness and contrast for predicted patches, such that they meet their neighbours without a seam."""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

PRIOR = 0.01
"""Weight of the first guess, over that of a seam's pixels."""
CERTAIN = 1e4
"""The same for visible patches, whose statistics are known."""


def seamless_statistics(
    patches: Float[Tensor, "batch patch pixel"],
    mean: Float[Tensor, "batch patch 1"],
    std: Float[Tensor, "batch patch 1"],
    is_known: Bool[Tensor, "batch patch"],
    grid: tuple[int, int],
    patch_size: tuple[int, int],
) -> tuple[Float[Tensor, "batch patch 1"], Float[Tensor, "batch patch 1"]]:
    """Means and deviations that make pixels on both sides of each seam as equal as can be.

    Least squares over all seams of ``std * patch + mean``, with a weak pull to the first guess and a strong one to what
    is known: two unknowns a patch, one linear system an image. Nothing of a hidden patch enters but its prediction.

    Args:
        patches: Normalised patches, predicted where they are hidden; pixel order (row, column, channel).
        mean: First guess of each patch's mean; the truth where it is known.
        std: Likewise of its standard deviation.
        is_known: True for visible patches.
        grid: Rows and columns of patches.
        patch_size: Height and width of a patch.
    """
    batch, num_patches, _ = patches.shape
    system = patches.new_zeros(batch, 2 * num_patches, 2 * num_patches)
    for pairs, edges in _seams(patches, grid, patch_size):
        block = edges.transpose(-1, -2) @ edges / edges.shape[-2]
        places = torch.stack([2 * pairs[0], 2 * pairs[0] + 1, 2 * pairs[1], 2 * pairs[1] + 1], dim=-1)
        flat = (places.unsqueeze(-1) * 2 * num_patches + places.unsqueeze(-2)).flatten()
        system.view(batch, -1).index_add_(1, flat, block.flatten(1))
    weight = torch.where(is_known, CERTAIN, PRIOR).to(patches.dtype).repeat_interleave(2, dim=1)
    guess = torch.stack([std, mean], dim=2).flatten(1)
    system.diagonal(dim1=1, dim2=2).add_(weight)
    # Not linalg.solve: the system is positive definite, and torch 2.15's batched LU on several CPU threads was seen to
    # fail now and then with impossible pivots.
    factor = torch.linalg.cholesky(system)
    solved = torch.cholesky_solve((weight * guess).unsqueeze(-1), factor).view(batch, num_patches, 2)
    return solved[..., 1:], solved[..., :1].clamp(min=0)


def _seams(
    patches: Float[Tensor, "batch patch pixel"], grid: tuple[int, int], patch_size: tuple[int, int]
) -> list[tuple[Int64[Tensor, "2 seam"], Float[Tensor, "batch seam side 4"]]]:
    """Pairs of neighbours, and for each pixel of their seam the row of the equation first - second = 0.

    The four columns multiply the first patch's deviation and mean and the second's.
    """
    batch, num_patches, _ = patches.shape
    pixels = patches.view(batch, num_patches, *patch_size, -1)
    places = torch.arange(num_patches, device=patches.device).view(grid)
    beside = torch.stack([places[:, :-1].flatten(), places[:, 1:].flatten()])
    below = torch.stack([places[:-1].flatten(), places[1:].flatten()])
    sides = [(beside, pixels[:, :, :, -1], pixels[:, :, :, 0]), (below, pixels[:, :, -1], pixels[:, :, 0])]
    seams = []
    for pairs, last, first in sides:
        here, there = last.flatten(2)[:, pairs[0]], first.flatten(2)[:, pairs[1]]
        one = torch.ones_like(here)
        seams.append((pairs, torch.stack([here, one, -there, -one], dim=-1)))
    return seams
