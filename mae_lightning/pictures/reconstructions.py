"""What a masked model makes of images that it sees only in part (paper Figures 2 and 4)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from mae_lightning.models import MaskedModel, Normalization, PatchMask, num_kept_patches

GREY = 0.5
"""Value shown where a patch is hidden, in units of 0 to 1."""


@dataclass(frozen=True)
class Reconstructions:
    """Images side by side, in 0 to 1.

    Attributes:
        original: The images.
        masked: Hidden patches grey.
        reconstruction: What the model predicts; visible patches, on which it is not trained, grey.
        pasted: The reconstruction of the hidden patches among the visible patches of the image.
        loss: Of each image, the target's loss over its hidden patches, as in training.
        mode: How the prediction was brought back to pixels.
    """

    original: Float[Tensor, "batch channel height width"]
    masked: Float[Tensor, "batch channel height width"]
    reconstruction: Float[Tensor, "batch channel height width"]
    pasted: Float[Tensor, "batch channel height width"]
    loss: Float[Tensor, "batch"]
    mode: str

    def columns(self) -> dict[str, Float[Tensor, "batch channel height width"]]:
        """The images by the title of their column."""
        return {
            "masked": self.masked,
            "reconstruction": self.reconstruction,
            "with visible patches": self.pasted,
            "original": self.original,
        }


@torch.no_grad()
def reconstruct(
    model: MaskedModel,
    normalize: Normalization,
    images: Float[Tensor, "batch channel height width"],
    mask: PatchMask,
    statistics: Literal["visible", "truth"] = "visible",
) -> Reconstructions:
    """Masks, reconstructs and brings back to pixels.

    Args:
        model: The masked autoencoder or SimMIM.
        normalize: The normalisation that it was trained with.
        images: Normalised images.
        mask: Which patches are hidden.
        statistics: Where the mean and deviation of a hidden patch come from, if the model predicts normalised patches:
            the visible patches around it, or the hidden truth itself, which the label then says.
    """
    truth = model.patches(images)
    prediction = model.predict(images, mask).float()
    loss = model.target.loss(prediction, model.target(truth)).gather(1, mask.masked).mean(dim=1)
    pixels = model.target.to_pixels(prediction, truth, mask, model.grid, model.patch_size, statistics)
    hidden = mask.is_masked.unsqueeze(-1)
    grey = normalize(torch.full_like(images, GREY))
    grey_patches = model.patches(grey)
    shown = {
        "original": truth,
        "masked": torch.where(hidden, grey_patches, truth),
        "reconstruction": torch.where(hidden, pixels, grey_patches),
        "pasted": torch.where(hidden, pixels, truth),
    }
    pictures = {name: normalize.undo(model.images(patches)).clamp(0, 1) for name, patches in shown.items()}
    return Reconstructions(**pictures, loss=loss, mode=model.target.pixel_modes[statistics])


def ratio_series(
    model: MaskedModel,
    normalize: Normalization,
    images: Float[Tensor, "batch channel height width"],
    noise: Float[Tensor, "batch patch"],
    ratios: Sequence[float],
    statistics: Literal["visible", "truth"] = "visible",
) -> dict[float, Reconstructions]:
    """The same images at several mask ratios (paper Figure 4); what is hidden at one is hidden at every higher one.

    Args:
        model: The masked autoencoder or SimMIM.
        normalize: The normalisation that it was trained with.
        images: Normalised images.
        noise: What the masks are drawn from.
        ratios: Shares of the patches to hide; those that would leave nothing to see, or nothing to hide, are left out.
        statistics: As :func:`reconstruct`.
    """
    masks = {ratio: PatchMask.from_noise(noise, ratio) for ratio in ratios if is_possible(model.num_patches, ratio)}
    return {ratio: reconstruct(model, normalize, images, mask, statistics) for ratio, mask in masks.items()}


def is_possible(num_patches: int, mask_ratio: float) -> bool:
    """Whether a ratio leaves a patch to keep and one to hide."""
    try:
        num_kept_patches(num_patches, mask_ratio)
    except ValueError:
        return False
    return True
