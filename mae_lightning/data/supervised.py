"""Augmentations of the supervised recipes: RandAugment and random erasing after a crop, and linear probing's crop."""

from __future__ import annotations

import math
import random as global_random
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from random import Random
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.data.auto_augment import rand_augment_transform
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from mae_lightning.data.transforms import Augmentation, Picture, RandomResizedCropFlip

__all__ = ["RandAugmentErase", "SingleTryCropFlip"]

ERASED_AREA = (0.02, 1 / 3)
ERASED_ASPECT = (0.3, 1 / 0.3)
TRIES = 10


class RandAugmentErase(Augmentation):
    """A crop, then timm's RandAugment, then a rectangle of noise in some images (Zhong et al. 2017, arXiv 1708.04896).

    Args:
        crop: The augmentation before; None is a random resized crop of 8 to 100 % of the area, with a flip.
        rand_augment: In timm's grammar; the default is the official fine-tuning's. None for none.
        erasing: Chance of a rectangle.
        mean: Grey of what RandAugment moves in from outside, and mean of the noise, in 0..1.
        std: Deviation of the noise.
    """

    def __init__(
        self,
        crop: Augmentation | None = None,
        rand_augment: str | None = "rand-m9-mstd0.5-inc1",
        erasing: float = 0.25,
        mean: float = 0.449,
        std: float = 0.226,
    ) -> None:
        if not 0 <= erasing <= 1:
            raise ValueError(f"erasing {erasing:g} must be a chance, 0 to 1")
        if rand_augment is not None and not rand_augment.startswith("rand-"):
            raise ValueError(f"rand_augment '{rand_augment}' must be in timm's grammar, such as rand-m9-mstd0.5-inc1")
        self.crop = crop or RandomResizedCropFlip(scale=(0.08, 1.0))
        self.rand_augment, self.erasing, self.mean, self.std = rand_augment, erasing, mean, std

    def __call__(self, image: Picture, size: tuple[int, int], random: Random) -> Picture:
        image = self.crop(image, size, random)
        if self.rand_augment is not None:
            image = self._rand_augmented(image, self.rand_augment, random)
        if random.random() < self.erasing:
            image = self._erased(image, random)
        return image

    def _rand_augmented(self, image: Picture, config: str, random: Random) -> Picture:
        picture = image if isinstance(image, Image.Image) else _to_pil(image)
        fill = round(255 * self.mean)
        operations = _operations(config, min(picture.size), fill, picture.mode)
        with _globally_seeded(random.getrandbits(32)):
            picture = operations(picture)
        augmented: Picture = picture if isinstance(image, Image.Image) else F.pil_to_tensor(picture)
        return augmented

    def _erased(self, image: Picture, random: Random) -> Picture:
        pixels = F.pil_to_tensor(image) if isinstance(image, Image.Image) else image.clone()
        channels, height, width = pixels.shape
        for _ in range(TRIES):
            area = random.uniform(*ERASED_AREA) * height * width
            aspect = math.exp(random.uniform(math.log(ERASED_ASPECT[0]), math.log(ERASED_ASPECT[1])))
            tall, wide = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < tall < height and 0 < wide < width:
                top, left = random.randint(0, height - tall), random.randint(0, width - wide)
                noise = self._noise((channels, tall, wide), pixels.dtype, random)
                pixels[:, top : top + tall, left : left + wide] = noise
                break
        return pixels

    def _noise(self, shape: tuple[int, ...], dtype: torch.dtype, random: Random) -> Tensor:
        # Departs from the paper: noise in bytes is cut off at black and white; officially drawn standardised.
        values = np.random.RandomState(random.getrandbits(32)).normal(self.mean, self.std, shape)
        noise = torch.from_numpy(values)
        return (255 * noise).round().clamp(0, 255).to(dtype) if dtype == torch.uint8 else noise.to(dtype)


class SingleTryCropFlip(RandomResizedCropFlip):
    """The crop of the official linear probing: one try, a side longer than the image cut to it."""

    def draw_box(self, height: int, width: int, random: Random) -> tuple[int, int, int, int]:
        """Top, left, height and width of the part."""
        area = height * width * random.uniform(*self.scale)
        shape = math.exp(random.uniform(math.log(self.ratio[0]), math.log(self.ratio[1])))
        tall, wide = min(round(math.sqrt(area / shape)), height), min(round(math.sqrt(area * shape)), width)
        return random.randint(0, height - tall), random.randint(0, width - wide), tall, wide


def _to_pil(image: Tensor) -> Image.Image:
    if image.dtype != torch.uint8 or image.shape[0] not in (1, 3):
        raise ValueError(
            f"RandAugment needs images of 1 or 3 channels in bytes, not {image.shape[0]} of {image.dtype};"
            " set rand_augment to null"
        )
    picture: Image.Image = F.to_pil_image(image)
    return picture


@cache
def _operations(config: str, side: int, fill: int, mode: str) -> Any:
    """RandAugment with the official pipeline's settings; PIL wants one grey or three values to fill with."""
    settings = {
        "translate_const": int(side * 0.45),
        "img_mean": (fill,) * 3 if mode == "RGB" else fill,
        "interpolation": Image.Resampling.BICUBIC,
    }
    return rand_augment_transform(config, settings)


@contextmanager
def _globally_seeded(seed: int) -> Iterator[None]:
    """Global states of Python's and numpy's chance, from which timm draws, follow the sample and are put back."""
    python, numpy = global_random.getstate(), np.random.get_state()
    global_random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        global_random.setstate(python)
        np.random.set_state(numpy)
