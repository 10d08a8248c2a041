"""What masked patches are compared with, and the way from a prediction back to pixels."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mae_lightning.models.masking import PatchMask, gather_tokens
from mae_lightning.models.stitching import seamless_statistics

VARIANCE_EPS = 1e-6
"""Added to a patch's variance before the square root."""


class Target(nn.Module, ABC):
    """A training target made from patches; derive from it to predict something else.

    Attributes:
        pixel_modes: Ways from a prediction back to pixels, each with its label in pictures: ``visible`` knows visible
            patches alone, ``truth`` uses the hidden ones too. A target without any cannot be drawn.
    """

    pixel_modes: ClassVar[Mapping[str, str]] = {}

    def prepare(self, image_size: tuple[int, int], patch_size: tuple[int, int], num_channels: int) -> None:
        """Makes what depends on the images; the model calls it once, when it is built.

        Args:
            image_size: Height and width in pixels.
            patch_size: The same of a patch.
            num_channels: Channels of an image.
        """

    @abstractmethod
    def num_outputs(self, patch_pixels: int) -> int:
        """Values to predict for a patch of that many values (pixels times channels)."""

    @abstractmethod
    def forward(self, patches: Float[Tensor, "batch patch pixel"]) -> Tensor:
        """What to predict, ``batch patch ...``, for all patches of the images in their natural order.

        Autocast is off, and patches are at least float32.
        """

    def loss(self, prediction: Float[Tensor, "batch patch output"], target: Tensor) -> Float[Tensor, "batch patch"]:
        """Loss of each patch: the mean squared error over its values (paper Section 3, reconstruction target)."""
        return (prediction - target).square().mean(dim=-1)

    def to_pixels(
        self,
        prediction: Float[Tensor, "batch patch output"],
        patches: Float[Tensor, "batch patch pixel"],
        mask: PatchMask,
        grid: tuple[int, int],
        patch_size: tuple[int, int],
        statistics: str = "visible",
    ) -> Float[Tensor, "batch patch pixel"]:
        """A prediction for every patch of the grid as pixels, in the units of ``patches``.

        Args:
            prediction: Predictions in the patches' natural order.
            patches: The true patches.
            mask: Which of them were hidden.
            grid: Rows and columns of patches.
            patch_size: Height and width of a patch.
            statistics: One of ``pixel_modes``.

        Raises:
            ValueError: There is no such way back.
        """
        self._check(statistics)
        return self.pixels_of(prediction)

    def pixels_of(self, prediction: Float[Tensor, "batch patch output"]) -> Float[Tensor, "batch patch pixel"]:
        """The pixels that a prediction stands for, whatever it was made of; others override :meth:`to_pixels`."""
        raise NotImplementedError(f"{type(self).__name__} has pixel_modes, and neither pixels_of nor to_pixels")

    def _check(self, statistics: str) -> None:
        """Refuses a way back to pixels that this target does not have."""
        if not self.pixel_modes:
            raise ValueError(
                f"{type(self).__name__} has no way from a prediction back to pixels, so it cannot be drawn"
            )
        if statistics not in self.pixel_modes:
            known = ", ".join(self.pixel_modes)
            raise ValueError(f"{type(self).__name__} has no way back to pixels called '{statistics}'; it has {known}")


class Pixels(Target):
    """The pixels themselves: the paper's ablation default (Table 1d, "pixel (w/o norm)")."""

    pixel_modes: ClassVar[Mapping[str, str]] = {"visible": "raw output"}

    def num_outputs(self, patch_pixels: int) -> int:
        """As many as the patch has."""
        return patch_pixels

    def forward(self, patches: Float[Tensor, "batch patch pixel"]) -> Float[Tensor, "batch patch pixel"]:
        """The patches as they are."""
        return patches

    def pixels_of(self, prediction: Float[Tensor, "batch patch output"]) -> Float[Tensor, "batch patch pixel"]:
        """The prediction as it is."""
        return prediction


class NormalizedPixels(Target):
    """Each patch's pixels less their mean, over their standard deviation (paper Section 3 and Table 1d).

    Mean and variance are taken over all of a patch's values, channels together; the variance is the unbiased one.
    """

    pixel_modes: ClassVar[Mapping[str, str]] = {
        "visible": "statistics of the visible neighbours",
        "truth": "uses ground truth",
    }

    def prepare(self, image_size: tuple[int, int], patch_size: tuple[int, int], num_channels: int) -> None:
        """Makes nothing.

        Raises:
            ValueError: A patch has one value, and so no variance.
        """
        if patch_size[0] * patch_size[1] * num_channels == 1:
            raise ValueError("a patch of one value has no variance: take larger patches, or the target Pixels")

    def num_outputs(self, patch_pixels: int) -> int:
        """As many as the patch has."""
        return patch_pixels

    def forward(self, patches: Float[Tensor, "batch patch pixel"]) -> Float[Tensor, "batch patch pixel"]:
        """The normalised patches."""
        mean, std = _statistics(patches)
        return (patches - mean) / std

    def to_pixels(
        self,
        prediction: Float[Tensor, "batch patch output"],
        patches: Float[Tensor, "batch patch pixel"],
        mask: PatchMask,
        grid: tuple[int, int],
        patch_size: tuple[int, int],
        statistics: str = "visible",
    ) -> Float[Tensor, "batch patch pixel"]:
        """Undoes the normalisation with mean and deviation of the patch itself, or guessed from the visible ones.

        The guess starts from the nearest visible patches and is moved until hidden patches meet their neighbours
        without a seam; see :func:`seamless_statistics`.
        """
        self._check(statistics)
        mean, std = _statistics(patches)
        if statistics == "visible":
            weights = neighbour_weights(mask, grid).to(patches.dtype)
            guesses = [weights @ gather_tokens(values, mask.kept) for values in (mean, std)]
            hidden = mask.is_masked.unsqueeze(-1)
            known = torch.where(hidden, prediction, (patches - mean) / std)
            mean, std = (torch.where(hidden, guess, value) for guess, value in zip(guesses, (mean, std), strict=True))
            mean, std = seamless_statistics(known, mean, std, ~mask.is_masked, grid, patch_size)
        return prediction * std + mean


def neighbour_weights(mask: PatchMask, grid: tuple[int, int]) -> Float[Tensor, "batch patch kept"]:
    """How much each visible patch says about each place: a Gaussian of one patch in distance, summing to 1."""
    places = torch.arange(grid[0] * grid[1], device=mask.kept.device)
    rows, columns = places // grid[1], places % grid[1]
    kept_rows, kept_columns = mask.kept // grid[1], mask.kept % grid[1]
    row_steps = rows[None, :, None] - kept_rows[:, None, :]
    column_steps = columns[None, :, None] - kept_columns[:, None, :]
    return torch.softmax((row_steps**2 + column_steps**2).float() / -2, dim=-1)


def _statistics(
    patches: Float[Tensor, "batch patch pixel"],
) -> tuple[Float[Tensor, "batch patch 1"], Float[Tensor, "batch patch 1"]]:
    variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
    return mean, (variance + VARIANCE_EPS).sqrt()
