"""What masked autoencoders and SimMIM have in common: patches are hidden, predicted, and compared with a target."""

from abc import ABC, abstractmethod
from collections.abc import Set as AbstractSet
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from mae_lightning.models.masking import PatchMask, place_tokens
from mae_lightning.models.patches import patch_grid, patchify, unpatchify
from mae_lightning.models.targets import Target


class MaskedOutput(NamedTuple):
    """What a training step needs, for the patches that the loss counts.

    Attributes:
        loss_per_patch: ``batch predicted``, at least float32; the loss is its mean over the images that count.
        prediction: ``batch predicted output``, in the same order.
    """

    loss_per_patch: Tensor
    prediction: Tensor


class MaskedModel(nn.Module, ABC):
    """Predicts the hidden patches of an image.

    Args:
        target: What predictions are compared with.
        image_size: Height and width in pixels.
        num_channels: Channels of an image.
        patch_size: Height and width of what is hidden or seen as a whole, in pixels.
        loss_on: Whether masked patches alone are predicted, or all, in their natural order.

    Attributes:
        encoder: What is kept when pretraining is over.
        decoder: What turns its features into predictions.

    Raises:
        ValueError: The images are not a whole number of patches.
    """

    encoder: nn.Module
    decoder: nn.Module

    def __init__(
        self,
        target: Target,
        *,
        image_size: tuple[int, int],
        num_channels: int,
        patch_size: tuple[int, int],
        loss_on: Literal["masked", "all"] = "masked",
    ) -> None:
        super().__init__()
        self.image_size, self.num_channels, self.loss_on = image_size, num_channels, loss_on
        self.patch_size, self.grid = patch_size, patch_grid(image_size, patch_size)
        self.num_patches = self.grid[0] * self.grid[1]
        self.target = target
        target.prepare(image_size, patch_size, num_channels)

    def forward(self, images: Float[Tensor, "batch channel height width"], mask: PatchMask) -> MaskedOutput:
        """Loss and prediction for normalised images; the loss is at least float32, also under autocast."""
        patches, predicted = self.patches(images), self.predicted(mask)
        grid = patch_grid((images.shape[2], images.shape[3]), self.patch_size)
        prediction = self._predict(patches, mask, predicted, grid)
        device = "cpu" if images.is_meta else images.device.type  # autocast knows no meta tensors, which count FLOPs
        with torch.autocast(device, enabled=False):
            target = self.target(_at_least_float32(patches))
            if self.loss_on == "masked":
                target = target[torch.arange(len(target), device=target.device).unsqueeze(1), predicted]
            loss_per_patch = self.target.loss(_at_least_float32(prediction), target)
        return MaskedOutput(loss_per_patch, prediction)

    def predict(
        self, images: Float[Tensor, "batch channel height width"], mask: PatchMask
    ) -> Float[Tensor, "batch patch output"]:
        """Prediction for every place of the grid, for pictures; zero at places that the model does not predict."""
        prediction = self(images, mask).prediction  # through forward, where compilation and sharding take hold
        return prediction if self.loss_on == "all" else place_tokens(prediction, self.predicted(mask), mask.num_patches)

    def predicted(self, mask: PatchMask) -> Int64[Tensor, "batch predicted"]:
        """The masked patches that the loss counts, ascending; all of them, unless a part will do in training."""
        return mask.masked

    def patches(self, images: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch patch pixel"]:
        """Images as flat patches of this model's size."""
        return patchify(images, self.patch_size)

    def images(self, patches: Float[Tensor, "batch patch pixel"]) -> Float[Tensor, "batch channel height width"]:
        """Flat patches as images again."""
        return unpatchify(patches, self.patch_size, self.grid, self.num_channels)

    @abstractmethod
    def features(self, images: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch dim"]:
        """Mean patch token after the encoder's final norm, nothing hidden; images are normalised."""

    def no_weight_decay(self) -> AbstractSet[str]:
        """Names of parameters that do not decay, beside biases and norms."""
        return set()

    def settings(self) -> dict[str, Any]:
        """Arguments that build this model again, beside encoder, decoder, target and images; plain values."""
        return {}

    def objection_to_sizes(self) -> str | None:
        """What stands against training on images of other sizes than the model was built for; None for nothing."""
        return f"{type(self).__name__} is built for images of one size"

    @abstractmethod
    def _predict(
        self,
        patches: Float[Tensor, "batch patch pixel"],
        mask: PatchMask,
        predicted: Int64[Tensor, "batch chosen"],
        grid: tuple[int, int],
    ) -> Float[Tensor, "batch predicted output"]:
        """Predictions for the chosen masked patches in their order, or for all patches if the loss counts all."""


def _at_least_float32(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))
