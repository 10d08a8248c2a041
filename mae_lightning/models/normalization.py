"""From the pixels that the data loader gives to the values that the model sees."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor, nn


class Normalization(nn.Module):
    """Standardises images with the data's mean and deviation, on the device where they are.

    Both are buffers, so that every checkpoint carries the normalisation it was trained with.

    Args:
        mean: Mean of each channel, with pixels in 0 to 1.
        std: Standard deviation of each channel, in the same units; all above zero.

    Raises:
        ValueError: The two differ in length, or a deviation is not above zero.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if len(mean) != len(std):
            raise ValueError(
                f"mean has {len(mean)} channels and std has {len(std)}; give one of each for every channel"
            )
        if min(std) <= 0:
            raise ValueError(f"std is {list(std)}; every channel's standard deviation must be above zero")
        self.register_buffer("mean", torch.tensor(list(mean)).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(list(std)).view(1, -1, 1, 1))

    def forward(
        self, images: UInt8[Tensor, "batch channel height width"] | Float32[Tensor, "batch channel height width"]
    ) -> Float[Tensor, "batch channel height width"]:
        """Standardised images; bytes count as 0 to 255, floats are in the units of the mean already."""
        if images.dtype == torch.uint8:
            images = images.to(self.mean.dtype) / 255
        return (images - self.mean) / self.std

    def undo(self, images: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch channel height width"]:
        """Back to the units of the mean: 0 to 1 for ordinary images."""
        return images * self.std + self.mean
