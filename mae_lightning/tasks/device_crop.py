"""Random crops and flips of a whole batch, on the device where it is."""

import math
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Float32, Int64, UInt8
from torch import Tensor

from mae_lightning.models import sample_noise

TRIES = 10
STREAM = 0x63726F70
"""Sets this randomness apart from the masks', which have the same seed."""


class Boxes(NamedTuple):
    """A part of each image, in whole pixels, and whether it is mirrored."""

    top: Float[Tensor, "batch"]
    left: Float[Tensor, "batch"]
    height: Float[Tensor, "batch"]
    width: Float[Tensor, "batch"]
    mirrored: Bool[Tensor, "batch"]


class DeviceCropFlip:
    """What `RandomResizedCropFlip` does on the host, for a batch of images of one stored size.

    The boxes have the same distribution, drawn from seed, epoch and sample alone, but not the same values. Resizing is
    antialiased and equals the host's up to the rounding of bytes between its two passes: at most a level or two.

    Args:
        scale: Least and greatest share of the image's area.
        ratio: Least and greatest width over height of the part.
        interpolation: How pixels are resized.
        flip: Whether to mirror half of the images.

    Raises:
        ValueError: The shares or shapes are out of order.
    """

    def __init__(
        self,
        scale: tuple[float, float] = (0.2, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        interpolation: Literal["bilinear", "bicubic"] = "bicubic",
        flip: bool = True,
    ) -> None:
        if not 0 < scale[0] <= scale[1] <= 1:
            raise ValueError(f"scale {scale} must be two shares of the area, 0 < least <= greatest <= 1")
        if not 0 < ratio[0] <= ratio[1]:
            raise ValueError(f"ratio {ratio} must be two shapes, 0 < least <= greatest")
        self.scale, self.ratio, self.interpolation, self.flip = scale, ratio, interpolation, flip

    def __call__(
        self,
        images: UInt8[Tensor, "batch channel _ _"] | Float32[Tensor, "batch channel _ _"],
        index: Int64[Tensor, "batch"],
        size: tuple[int, int],
        *,
        seed: int,
        epoch: int,
    ) -> UInt8[Tensor, "batch channel _ _"] | Float32[Tensor, "batch channel _ _"]:
        """A crop of each image, of the same type.

        Args:
            images: All of one size.
            index: What each one's box is drawn from.
            size: Height and width of the crops.
            seed: Of the run.
            epoch: From 0.
        """
        boxes = self.draw((images.shape[2], images.shape[3]), index, seed=seed, epoch=epoch)
        crops = resized_crops(images.float(), boxes, size, self.interpolation)
        return crops.round().clamp(0, 255).to(torch.uint8) if images.dtype == torch.uint8 else crops

    def draw(self, size: tuple[int, int], index: Int64[Tensor, "batch"], *, seed: int, epoch: int) -> Boxes:
        """Area uniform, shape log-uniform, the first of ten that fits; else the largest centred part.

        Args:
            size: Height and width of the images.
            index: What each one's box is drawn from.
            seed: Of the run.
            epoch: From 0.
        """
        tall, wide = size
        noise = sample_noise(index, 2 * TRIES + 3, seed ^ STREAM, epoch).double()
        areas, shapes, (top, left, mirrored) = noise[:, :TRIES], noise[:, TRIES:-3], noise[:, -3:].unbind(dim=1)
        areas = tall * wide * (self.scale[0] + areas * (self.scale[1] - self.scale[0]))
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        shapes = torch.exp(low + shapes * (high - low))
        widths, heights = (areas * shapes).sqrt().round(), (areas / shapes).sqrt().round()
        fits = (widths > 0) & (widths <= wide) & (heights > 0) & (heights <= tall)
        first = fits.byte().argmax(dim=1, keepdim=True)
        fallback = _largest(size, self.ratio)
        height, width = (
            torch.where(fits.any(dim=1), values.gather(1, first).squeeze(1), side)
            for values, side in zip((heights, widths), fallback, strict=True)
        )
        centred = ~fits.any(dim=1)
        top = torch.where(centred, (tall - height) // 2, (top * (tall - height + 1)).floor())
        left = torch.where(centred, (wide - width) // 2, (left * (wide - width + 1)).floor())
        return Boxes(top, left, height, width, (mirrored < 0.5) & self.flip)


def resized_crops(
    images: Float32[Tensor, "batch channel _ _"],
    boxes: Boxes,
    size: tuple[int, int],
    interpolation: Literal["bilinear", "bicubic"],
) -> Float32[Tensor, "batch channel _ _"]:
    """The boxes at one size: a matrix for the rows of each image and one for its columns.

    Args:
        images: All of one size.
        boxes: Which part of each.
        size: Height and width of the result.
        interpolation: The kernel.
    """
    with torch.autocast(images.device.type, enabled=False):
        rows = _weights(images.shape[2], boxes.top, boxes.height, size[0], interpolation)
        columns = _weights(images.shape[3], boxes.left, boxes.width, size[1], interpolation)
        columns = torch.where(boxes.mirrored.view(-1, 1, 1), columns.flip(1), columns)
        return rows.unsqueeze(1) @ images @ columns.unsqueeze(1).mT


def _weights(
    length: int, start: Float[Tensor, "batch"], extent: Float[Tensor, "batch"], count: int, interpolation: str
) -> Float32[Tensor, "batch {count} {length}"]:
    """What each pixel along one axis adds to each of the result: an antialiased kernel inside the box.

    Args:
        length: Pixels of the image along the axis.
        start: First of the box.
        extent: Number of the box.
        count: Number of the result.
        interpolation: The kernel.
    """
    start, extent = start.view(-1, 1, 1), extent.view(-1, 1, 1)
    step = extent / count
    centres = start + step * (torch.arange(count, device=start.device, dtype=start.dtype).view(1, -1, 1) + 0.5)
    pixels = torch.arange(length, device=start.device, dtype=start.dtype).view(1, 1, -1)
    distance = (pixels + 0.5 - centres).abs() / step.clamp(min=1)
    weights = _cubic(distance) if interpolation == "bicubic" else (1 - distance).clamp(min=0)
    weights = weights * ((pixels >= start) & (pixels < start + extent))
    return (weights / weights.sum(dim=2, keepdim=True)).float()


def _cubic(distance: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Keys' kernel (1981) with a = -1/2, as antialiased resizing has it."""
    near = (1.5 * distance - 2.5) * distance**2 + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    return torch.where(distance < 1, near, torch.where(distance < 2, far, 0.0))


def _largest(size: tuple[int, int], ratio: tuple[float, float]) -> tuple[float, float]:
    """Height and width of the largest part whose shape is allowed."""
    tall, wide = size
    shape = min(max(wide / tall, ratio[0]), ratio[1])
    return float(max(1, min(tall, round(wide / shape)))), float(max(1, min(wide, round(tall * shape))))
