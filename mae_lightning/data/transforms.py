"""Augmentation and the evaluation crop, on Pillow images or on tensors, drawn from (seed, epoch, sample).

Every augmentation is a class of its own, named in configs by `class_path`. An own one subclasses `Augmentation`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from random import Random
from typing import Literal, TypeAlias

from jaxtyping import Float32, UInt8
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

__all__ = [
    "Augmentation",
    "ColorJitterCropFlip",
    "EvaluationCrop",
    "FixedCropFlip",
    "Interpolation",
    "NoAugmentation",
    "Picture",
    "RandomResizedCropFlip",
]

TRIES = 10
"""Random parts that are looked at until one fits."""

# Height and width have no name here, as they differ between what a transform takes and gives.
Picture: TypeAlias = Image.Image | UInt8[Tensor, "channel _ _"] | Float32[Tensor, "channel _ _"]
Interpolation = Literal["nearest", "bilinear", "bicubic"]


class Augmentation(ABC):
    """What happens to a decoded training image."""

    @abstractmethod
    def __call__(self, image: Picture, size: tuple[int, int], random: Random) -> Picture:
        """The image at `size` (height, width); every choice comes from `random`, which the sample and epoch seed."""


class EvaluationCrop:
    """Resize so that the image covers the crop, then crop the centre.

    Args:
        crop_fraction: Share of the resized image's shorter side that the crop keeps: 0.875 is ImageNet's 256 to 224;
            1 loses nothing of an image that has the crop's shape.
        interpolation: How pixels are resized, always with antialiasing.
    """

    def __init__(self, crop_fraction: float = 1.0, interpolation: Interpolation = "bicubic") -> None:
        if not 0 < crop_fraction <= 1:
            raise ValueError(f"crop_fraction {crop_fraction} must be above 0 and at most 1")
        self.crop_fraction = crop_fraction
        self.interpolation = interpolation

    def __call__(self, image: Picture, size: tuple[int, int]) -> Picture:
        cropped: Picture = F.center_crop(self.resized(image, size), list(size))
        return cropped

    def resized(self, image: Picture, size: tuple[int, int]) -> Picture:
        """The whole image, just covering `size` over the fraction."""
        height, width = _size(image)
        tall, wide = (round(side / self.crop_fraction) for side in size)
        cover = (
            (tall, max(wide, width * tall // height))
            if tall * width >= wide * height
            else (max(tall, height * wide // width), wide)
        )
        return _resize(image, cover, self.interpolation)


class NoAugmentation(Augmentation):
    """The whole image, resized and cropped at its centre (MAE, Table 1e, "none")."""

    def __init__(self, crop_fraction: float = 1.0, interpolation: Interpolation = "bicubic") -> None:
        self.crop = EvaluationCrop(crop_fraction, interpolation)

    def __call__(self, image: Picture, size: tuple[int, int], random: Random) -> Picture:
        return self.crop(image, size)


class RandomResizedCropFlip(Augmentation):
    """A random part of the image at a random shape, resized; mirrored half of the time (MAE, Appendix A.1).

    Args:
        scale: Least and greatest share of the image's area.
        ratio: Least and greatest width over height of the part.
        interpolation: How pixels are resized, always with antialiasing.
        flip: Whether to mirror at all.
    """

    def __init__(
        self,
        scale: tuple[float, float] = (0.2, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        interpolation: Interpolation = "bicubic",
        flip: bool = True,
    ) -> None:
        if not 0 < scale[0] <= scale[1] <= 1:
            raise ValueError(f"scale {scale} must be two shares of the area, 0 < least <= greatest <= 1")
        if not 0 < ratio[0] <= ratio[1]:
            raise ValueError(f"ratio {ratio} must be two shapes, 0 < least <= greatest")
        self.scale = scale
        self.ratio = ratio
        self.interpolation = interpolation
        self.flip = flip

    def __call__(self, image: Picture, size: tuple[int, int], random: Random) -> Picture:
        top, left, height, width = self.draw_box(*_size(image), random)
        image = F.resized_crop(image, top, left, height, width, list(size), InterpolationMode(self.interpolation), True)
        return _maybe_flip(image, self.flip, random)

    def draw_box(self, height: int, width: int, random: Random) -> tuple[int, int, int, int]:
        """Top, left, height, width: area uniform, shape log-uniform; the largest centred part if none fits."""
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        for _ in range(TRIES):
            area = height * width * random.uniform(*self.scale)
            shape = math.exp(random.uniform(low, high))
            wide, tall = round(math.sqrt(area * shape)), round(math.sqrt(area / shape))
            if 0 < wide <= width and 0 < tall <= height:
                return random.randint(0, height - tall), random.randint(0, width - wide), tall, wide
        shape = min(max(width / height, self.ratio[0]), self.ratio[1])
        tall = max(1, min(height, round(width / shape)))
        wide = max(1, min(width, round(height * shape)))
        return (height - tall) // 2, (width - wide) // 2, tall, wide


class FixedCropFlip(Augmentation):
    """A random crop at one scale, mirrored half of the time (MAE, Table 1e, "crop, fixed size").

    Args:
        crop_fraction: Share of the resized image's shorter side that the crop keeps.
        padding: Pixels of black added on each side after resizing; with `crop_fraction` 1 usual for tiny images.
        interpolation: How pixels are resized, always with antialiasing.
        flip: Whether to mirror at all.
    """

    def __init__(
        self,
        crop_fraction: float = 0.875,
        padding: int = 0,
        interpolation: Interpolation = "bicubic",
        flip: bool = True,
    ) -> None:
        self.crop = EvaluationCrop(crop_fraction, interpolation)
        self.padding = padding
        self.flip = flip

    def __call__(self, image: Picture, size: tuple[int, int], random: Random) -> Picture:
        image = self.crop.resized(image, size)
        if self.padding:
            image = F.pad(image, [self.padding])
        height, width = _size(image)
        top, left = random.randint(0, height - size[0]), random.randint(0, width - size[1])
        return _maybe_flip(F.crop(image, top, left, *size), self.flip, random)


class ColorJitterCropFlip(RandomResizedCropFlip):
    """`RandomResizedCropFlip`, then brightness, contrast, saturation and hue (MAE, Table 1e, "crop + color jit").

    For grey and RGB images of 8 bits alone: what colours other arrays have is not known.

    Args:
        brightness: Factor drawn from 1 - brightness to 1 + brightness.
        contrast: Likewise.
        saturation: Likewise; nothing to grey images.
        hue: Shift drawn from -hue to hue, in turns; nothing to grey images.
        scale: As `RandomResizedCropFlip`.
        ratio: As `RandomResizedCropFlip`.
        interpolation: As `RandomResizedCropFlip`.
        flip: As `RandomResizedCropFlip`.
    """

    def __init__(
        self,
        brightness: float = 0.4,
        contrast: float = 0.4,
        saturation: float = 0.4,
        hue: float = 0.1,
        scale: tuple[float, float] = (0.2, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        interpolation: Interpolation = "bicubic",
        flip: bool = True,
    ) -> None:
        super().__init__(scale, ratio, interpolation, flip)
        self.strengths = (brightness, contrast, saturation, hue)

    def __call__(self, image: Picture, size: tuple[int, int], random: Random) -> Picture:
        if isinstance(image, Tensor) and (image.is_floating_point() or image.shape[0] not in (1, 3)):
            raise ValueError("ColorJitterCropFlip takes grey or RGB images of 8 bits; RandomResizedCropFlip takes any")
        image = super().__call__(image, size, random)
        brightness, contrast, saturation, hue = self.strengths
        steps = [
            (F.adjust_brightness, random.uniform(max(0.0, 1 - brightness), 1 + brightness)),
            (F.adjust_contrast, random.uniform(max(0.0, 1 - contrast), 1 + contrast)),
            (F.adjust_saturation, random.uniform(max(0.0, 1 - saturation), 1 + saturation)),
            (F.adjust_hue, random.uniform(-hue, hue)),
        ]
        random.shuffle(steps)
        for adjust, factor in steps:
            image = adjust(image, factor)
        return image


def _size(image: Picture) -> tuple[int, int]:
    height, width = (image.height, image.width) if isinstance(image, Image.Image) else image.shape[-2:]
    return height, width


def _resize(image: Picture, size: tuple[int, int], interpolation: Interpolation) -> Picture:
    resized: Picture = F.resize(image, list(size), InterpolationMode(interpolation), antialias=True)
    return resized


def _maybe_flip(image: Picture, flip: bool, random: Random) -> Picture:
    return F.horizontal_flip(image) if flip and random.random() < 0.5 else image
