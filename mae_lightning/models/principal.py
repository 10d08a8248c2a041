"""Principal components of patches as the target (paper Table 1d, PCA)."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from mae_lightning.models.targets import Target

EIGENVALUE_EPS = 1e-6
"""Added to an eigenvalue before the square root, in the units of normalised pixels squared."""


class PatchPCA(Target):
    """The largest principal coefficients of a patch: 96 of 768 in the paper.

    Patches are centred by the mean patch. The paper does not say whether coefficients are whitened; here they are not
    unless asked for, so that the loss is the squared error of the pixels within the components' reach. Mean, components
    and eigenvalues are fitted on augmented training crops before training starts; they are buffers, so that every
    checkpoint has them. Until then they are not numbers.

    Args:
        share: Share of the coefficients that is predicted, rounded, at least one.
        whiten: Whether each coefficient is divided by its standard deviation.
        num_images: Training crops to fit on.

    Raises:
        ValueError: The share is not above 0 and at most 1, or there are no images to fit on.
    """

    pixel_modes: ClassVar[Mapping[str, str]] = {"visible": "largest principal components"}
    mean: Tensor
    components: Tensor
    eigenvalues: Tensor

    def __init__(self, share: float = 0.125, whiten: bool = False, num_images: int = 4096) -> None:
        super().__init__()
        if not 0 < share <= 1:
            raise ValueError(f"share {share:g} of the principal coefficients must be above 0 and at most 1")
        if num_images < 1:
            raise ValueError(f"num_images {num_images} to fit principal components on must be at least 1")
        self.share, self.whiten, self.num_images = share, whiten, num_images

    def prepare(self, image_size: tuple[int, int], patch_size: tuple[int, int], num_channels: int) -> None:
        """Makes room for the components."""
        patch_pixels = patch_size[0] * patch_size[1] * num_channels
        shapes = {"mean": (patch_pixels,), "components": (self.num_outputs(patch_pixels), patch_pixels)}
        for name, shape in (shapes | {"eigenvalues": (patch_pixels,)}).items():
            self.register_buffer(name, torch.full(shape, torch.nan))

    def num_outputs(self, patch_pixels: int) -> int:
        """The share of them."""
        return max(1, round(patch_pixels * self.share))

    @property
    def is_fitted(self) -> bool:
        """Whether there are components."""
        return bool(self.components.isfinite().all())

    def fit(
        self,
        count: Float[Tensor, ""],
        total: Float[Tensor, "pixel"],
        products: Float[Tensor, "pixel pixel"],
    ) -> None:
        """Takes the components of the patches of which these are the sums; see :func:`patch_sums`.

        A component's sign is such that its greatest value is positive.
        """
        mean = total / count
        eigenvalues, vectors = torch.linalg.eigh(products / count - torch.outer(mean, mean))
        components = vectors.flip(1).T[: len(self.components)]
        greatest = components.gather(1, components.abs().argmax(dim=1, keepdim=True))
        self.mean.copy_(mean)
        self.components.copy_(components * greatest.sign())
        self.eigenvalues.copy_(eigenvalues.flip(0).clamp(min=0))

    def forward(self, patches: Float[Tensor, "batch patch pixel"]) -> Float[Tensor, "batch patch output"]:
        """The coefficients."""
        return (patches - self.mean) @ self.components.to(patches.dtype).T / self._scale()

    def pixels_of(self, prediction: Float[Tensor, "batch patch output"]) -> Float[Tensor, "batch patch pixel"]:
        """The patch that has these coefficients, and none of the others."""
        return prediction * self._scale() @ self.components.to(prediction.dtype) + self.mean

    def _scale(self) -> Float[Tensor, "output"]:
        kept = self.eigenvalues[: len(self.components)]
        return (kept + EIGENVALUE_EPS).sqrt() if self.whiten else torch.ones_like(kept)


def patch_sums(
    patches: Float[Tensor, "batch patch pixel"],
) -> tuple[Float[Tensor, ""], Float[Tensor, "pixel"], Float[Tensor, "pixel pixel"]]:
    """Number of patches, their sum, and the sum of their outer products; these add up over batches and processes."""
    flat = patches.flatten(0, 1).double()
    return flat.new_tensor(len(flat)), flat.sum(dim=0), flat.T @ flat
