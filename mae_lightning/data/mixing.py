"""Mixup and CutMix: two images and their labels made one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random

import torch
from jaxtyping import Bool, Float
from torch import Tensor

__all__ = ["Mixing"]


@dataclass(frozen=True)
class Mixing:
    """Blends each image of a micro-batch with the one that mirrors it from the end, all with one share.

    Which pairs meet depends on the micro-batch, so on the number of devices and on accumulation: the one part of
    training that does. Share and box come from the `Random` given, so that a resumed run draws them again.

    Attributes:
        mixup: Alpha of the Beta distribution of Mixup's share (Zhang et al. 2017, arXiv 1710.09412); 0 for none.
        cutmix: Alpha of CutMix's (Yun et al. 2019, arXiv 1905.04899); 0 for none. With both, each
            batch takes one at even chance.
    """

    mixup: float = 0.8
    cutmix: float = 1.0

    def __post_init__(self) -> None:
        if min(self.mixup, self.cutmix) < 0:
            raise ValueError(f"mixup {self.mixup:g} and cutmix {self.cutmix:g} must not be below 0; 0 turns one off")

    def __call__(
        self,
        images: Float[Tensor, "batch channel height width"],
        targets: Float[Tensor, "batch class"],
        valid: Bool[Tensor, " batch"],
        random: Random,
    ) -> tuple[Float[Tensor, "batch channel height width"], Float[Tensor, "batch class"]]:
        """The mixed images and soft targets; rows whose partner is not valid stay as they are."""
        if not (self.mixup or self.cutmix):
            return images, targets
        partner = torch.arange(len(images), device=images.device)
        partner = torch.where(valid.flip(0), partner.flip(0), partner)
        cut = bool(self.cutmix) and (not self.mixup or random.random() < 0.5)
        alpha = self.cutmix if cut else self.mixup
        share = random.betavariate(alpha, alpha)
        if cut:
            height, width = images.shape[-2:]
            top, bottom, left, right = draw_box(height, width, 1 - share, random)
            images = images.clone()
            images[:, :, top:bottom, left:right] = images[partner, :, top:bottom, left:right]
            share = 1 - (bottom - top) * (right - left) / (height * width)
        else:
            images = share * images + (1 - share) * images[partner]
        return images, share * targets + (1 - share) * targets[partner]


def draw_box(height: int, width: int, area: float, random: Random) -> tuple[int, int, int, int]:
    """Top, bottom, left and right of a box of the image's shape about a random centre, clipped at the borders.

    Args:
        height: Of the image.
        width: Of the image.
        area: Of the box before clipping, as a share of the image.
        random: Where the centre comes from.
    """
    tall, wide = int(height * math.sqrt(area)), int(width * math.sqrt(area))
    row, column = random.randrange(height), random.randrange(width)
    top, left = row - tall // 2, column - wide // 2
    return max(top, 0), min(row + tall // 2, height), max(left, 0), min(column + wide // 2, width)
