"""The ways of hiding patches side by side (paper Figure 6)."""

import torch
from jaxtyping import Float
from torch import Tensor

from mae_lightning.models import (
    BlockMasking,
    GridMasking,
    MaskSampler,
    RandomMasking,
    patch_grid,
    patchify,
    sample_noise,
    unpatchify,
)
from mae_lightning.pictures.reconstructions import GREY

KINDS: tuple[tuple[str, MaskSampler, float], ...] = (
    ("random 50 %", RandomMasking(), 0.5),
    ("random 75 %", RandomMasking(), 0.75),
    ("random 90 %", RandomMasking(), 0.9),
    ("block 50 %", BlockMasking(), 0.5),
    ("block 75 %", BlockMasking(), 0.75),
    ("grid 75 %", GridMasking(), 0.75),
)
"""Title, sampler and ratio of each; the random ones nest."""


def mask_kinds(
    images: Float[Tensor, "batch channel height width"], patch_size: tuple[int, int], seed: int = 0
) -> dict[str, Float[Tensor, "batch channel height width"]]:
    """The images, and what each kind of mask leaves of them, by title; hidden patches are grey.

    Args:
        images: In 0 to 1.
        patch_size: Height and width in pixels.
        seed: Of the masks.

    Raises:
        ValueError: The images are not a whole number of patches, or their grid has an odd side, which has no grid mask.
    """
    grid = patch_grid((images.shape[2], images.shape[3]), patch_size)
    noise = sample_noise(torch.arange(len(images), device=images.device), grid[0] * grid[1], seed, epoch=0)
    patches = patchify(images, patch_size)
    columns = {"original": images}
    for title, sampler, ratio in KINDS:
        hidden = sampler(noise, grid, ratio).is_masked.unsqueeze(-1)
        shown = torch.where(hidden, torch.full_like(patches, GREY), patches)
        columns[title] = unpatchify(shown, patch_size, grid, images.shape[1])
    return columns
