"""What the encoder makes of patches and images: components in colour, and nearest neighbours."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from mae_lightning.pictures.filters import principal_components
from mae_lightning.pictures.style import NotDrawnError

EXTREMES = 0.01
"""Share of the tokens at either end of a component that takes the full colour."""


@torch.no_grad()
def patch_features(
    encoder: Any, images: Float[Tensor, "image channel height width"]
) -> Float[Tensor, "image row column dim"]:
    """Patch tokens after the encoder's final norm, all patches seen; images are normalised.

    Raises:
        NotDrawnError: The encoder has no features of image parts.
    """
    features: Tensor = encoder.forward_features(images).float()
    if features.ndim == 4:
        is_last = getattr(encoder, "output_fmt", "NCHW") == "NHWC"
        return features if is_last else features.movedim(1, 3)
    if not hasattr(encoder, "patch_embed"):
        raise NotDrawnError(f"a {type(encoder).__name__} has no patches")
    patches = features[:, encoder.num_prefix_tokens :]
    return patches.view(len(patches), *encoder.patch_embed.grid_size, -1)


@torch.no_grad()
def image_features(encoder: Any, images: Float[Tensor, "image channel height width"]) -> Float[Tensor, "image dim"]:
    """The mean patch token, and the norm after it that some encoders have; what ``evaluate`` takes.

    Raises:
        NotDrawnError: As :func:`patch_features`.
    """
    pooled: Tensor = patch_features(encoder, images).mean(dim=(1, 2))
    return encoder.fc_norm(pooled) if hasattr(encoder, "fc_norm") else pooled


def component_scores(
    features: Float[Tensor, "image row column dim"], count: int = 3
) -> Float[Tensor, "image row column component"]:
    """Each token's coordinates along the principal components of all tokens of all images together."""
    tokens = features.flatten(0, 2).double().cpu()
    axes = principal_components(tokens, count).axes.double()
    return ((tokens - tokens.mean(dim=0)) @ axes.T).float().view(*features.shape[:3], -1)


def component_colours(
    scores: Float[Tensor, "image row column component"], image_size: tuple[int, int]
) -> Float[Tensor, "image 3 height width"]:
    """Scores as red, green and blue of whole images, spread over 0 to 1; absent components are half."""
    ends = torch.tensor([EXTREMES, 1 - EXTREMES])
    low, high = scores.flatten(0, 2).quantile(ends, dim=0)
    shown = ((scores - low) / (high - low).clamp(min=torch.finfo(torch.float32).tiny)).clamp(0, 1)
    shown = F.pad(shown, (0, 3 - shown.shape[3]), value=0.5)
    return F.interpolate(shown.movedim(3, 1), size=image_size, mode="nearest")


def nearest_neighbours(
    bank: Float[Tensor, "sample dim"], queries: Float[Tensor, "query dim"], count: int
) -> tuple[Float[Tensor, "query neighbour"], Int64[Tensor, "query neighbour"]]:
    """Cosine similarity and place in the bank of the nearest samples, nearest first; at most as many as there are."""
    cosine = F.normalize(queries.float(), dim=1) @ F.normalize(bank.float(), dim=1).T
    nearest = cosine.topk(min(count, len(bank)), dim=1)
    return nearest.values, nearest.indices
