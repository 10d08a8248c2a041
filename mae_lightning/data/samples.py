"""One sample's bytes to a tensor of the batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from random import Random

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from mae_lightning.data.decode import Decoder, decode_array, decode_fast, decode_pillow
from mae_lightning.data.plan import draw
from mae_lightning.data.transforms import Augmentation, EvaluationCrop, Picture

__all__ = ["SampleMaker", "decode"]


def decode(data: bytes, kind: str, num_channels: int | None, decoder: Decoder = "fast") -> Picture:
    """Pixels of an image or array.

    Args:
        data: The file's bytes.
        kind: Its extension: "npy" is an array, all else an image.
        num_channels: The channels wanted, images being brought to 1 or 3; None keeps what is there.
        decoder: "fast", or "reference": a Pillow image, for torchvision's first transforms bit by bit.

    Raises:
        ValueError: The bytes are damaged, or do not give that many channels.
    """
    if kind != "npy" and num_channels not in (None, 1, 3):
        raise ValueError(f"images have 1 or 3 channels, not {num_channels}; more come as npy arrays")
    if kind != "npy" and decoder == "reference":
        return decode_pillow(data, num_channels)
    pixels = decode_array(data) if kind == "npy" else decode_fast(data, num_channels)
    if num_channels not in (None, pixels.shape[2]):
        raise ValueError(f"an array of {pixels.shape[2]} channels where {num_channels} are meant")
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)


@dataclass(frozen=True)
class SampleMaker:
    """Decodes and crops; each choice of the augmentation is a function of (seed, epoch, sample).

    Attributes:
        image_size: Height and width of what comes out.
        num_channels: Channels of what comes out.
        dtype: uint8, or float32 for arrays that are not uint8.
        seed: Of the run.
        augmentation: For training; None crops as `evaluation` does.
        evaluation: The crop without chance.
        decoder: "fast" or "reference".
        size_by_epoch: Another image size from each of these epochs on; for :meth:`at`.
    """

    image_size: tuple[int, int]
    num_channels: int
    dtype: torch.dtype
    seed: int
    augmentation: Augmentation | None = None
    evaluation: EvaluationCrop = field(default_factory=EvaluationCrop)
    decoder: Decoder = "fast"
    size_by_epoch: Mapping[int, tuple[int, int]] = field(default_factory=dict)

    def at(self, epoch: int) -> SampleMaker:
        """The same with the size of an epoch."""
        begun = [first for first in self.size_by_epoch if first <= epoch]
        return replace(self, image_size=self.size_by_epoch[max(begun)]) if begun else self

    def __call__(self, data: bytes, kind: str, place: int, epoch: int) -> Tensor:
        """The sample as channels, height, width.

        Raises:
            ValueError: It cannot be decoded, or is of another type than the data set's.
        """
        return self.crop(self.decode(data, kind), place, epoch)

    def decode(self, data: bytes, kind: str) -> Picture:
        """The whole image.

        Raises:
            ValueError: It cannot be decoded.
        """
        return decode(data, kind, self.num_channels, self.decoder)

    def crop(self, image: Picture, place: int, epoch: int, repeat: int = 0) -> Tensor:
        """The image's part that the batch takes.

        Args:
            image: The whole image.
            place: The sample.
            epoch: From 0.
            repeat: Which of several crops of it.

        Raises:
            ValueError: The image is of another type than the data set's.
        """
        if self.augmentation is None:
            image = self.evaluation(image, self.image_size)
        else:
            crop = (place, repeat) if repeat else (place,)
            image = self.augmentation(image, self.image_size, Random(draw(self.seed, epoch, *crop)))
        pixels = F.pil_to_tensor(image) if isinstance(image, Image.Image) else image
        if pixels.dtype != self.dtype:
            raise ValueError(f"pixels of {pixels.dtype} in a data set of {self.dtype}")
        return pixels

    def blank(self, count: int) -> Tensor:
        return torch.zeros(count, self.num_channels, *self.image_size, dtype=self.dtype)
