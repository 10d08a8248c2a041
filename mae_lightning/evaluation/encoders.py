"""Encoders to judge, from a file of any format or by timm's name, behind one interface."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mae_lightning.models import Normalization
from mae_lightning.weights import load_encoder
from mae_lightning.weights.timm_models import is_timm_name

Feature = Literal["mean", "class"]
PIXELS = "pixels"
PIXELS_SIZE = (32, 32)


@dataclass(frozen=True)
class FrozenEncoder:
    """A timm model that gives features and never learns.

    Attributes:
        name: As the user wrote it.
        model: The model, in eval mode.
        normalize: What the images go through first.
        image_size: Height and width in pixels.
        num_channels: Channels of an image.
        feature: The mean patch token or the class token, after the final norm.
    """

    name: str
    model: Any
    normalize: Normalization
    image_size: tuple[int, int]
    num_channels: int
    feature: Feature

    def to(self, device: torch.device) -> "FrozenEncoder":
        """The same, with its weights on a device."""
        self.model.to(device)
        self.normalize.to(device)
        return self

    @torch.inference_mode()
    def tokens(self, images: Tensor) -> Float[Tensor, "batch token dim"]:
        """All tokens, class and register tokens first; images as the loader gives them."""
        values: Tensor = self.model.forward_features(self.normalize(images))
        if values.ndim == 4:
            values = values.movedim(1, 3) if getattr(self.model, "output_fmt", "NCHW") == "NCHW" else values
            values = values.flatten(1, 2)
        return values

    @torch.inference_mode()
    def pool(self, tokens: Float[Tensor, "batch token dim"]) -> Float[Tensor, "batch dim"]:
        """The feature of each image; a norm that the model has after its pooling follows."""
        values = tokens[:, 0] if self.feature == "class" else self.patch_tokens(tokens).mean(dim=1)
        norm = getattr(self.model, "fc_norm", nn.Identity())
        pooled: Tensor = norm(values)
        return pooled

    def patch_tokens(self, tokens: Float[Tensor, "batch token dim"]) -> Float[Tensor, "batch patch dim"]:
        """Without class and register tokens."""
        return tokens[:, getattr(self.model, "num_prefix_tokens", 0) :]


def open_encoder(
    name: str, *, feature: Feature = "mean", image_size: tuple[int, int] | None = None, untrained: bool = False
) -> FrozenEncoder:
    """The encoder that a name stands for.

    Args:
        name: What :func:`mae_lightning.load_encoder` takes, or ``pixels`` for no encoder at all: the flat image.
        feature: Which feature it gives.
        image_size: Height and width for timm's encoders, by default that of their weights, and for pixels. Checkpoints
            have their own.
        untrained: The same architecture with fresh weights, for comparison.

    Raises:
        FileNotFoundError: There is no such checkpoint.
        ValueError: There is no such encoder, or it has no such feature.
    """
    if name == PIXELS:
        model = RawPixels(image_size or PIXELS_SIZE)
    else:
        is_name = not Path(name).exists() and is_timm_name(name)
        model = load_encoder(name, image_size=image_size if is_name else None, pretrained=not untrained)
    settings: dict[str, Any] = model.pretrained_cfg
    channels, *own_size = settings["input_size"]
    size: tuple[int, int] = (own_size[0], own_size[1])
    if image_size not in (None, size):
        raise ValueError(f"{name} is for images of {size}, not {image_size}; leave --image-size out")
    if feature == "class" and not getattr(model, "has_class_token", False):
        raise ValueError(f"{name} has no class token; judge its mean patch token, --feature mean")
    model.eval().requires_grad_(False)
    normalize = Normalization(settings["mean"], settings["std"])
    return FrozenEncoder(f"{name}, untrained" if untrained else name, model, normalize, size, channels, feature)


class RawPixels(nn.Module):
    """The baseline that any encoder must beat: an image's own values as one token.

    Args:
        image_size: Height and width that images are brought to.
    """

    def __init__(self, image_size: tuple[int, int]) -> None:
        super().__init__()
        half = (0.5, 0.5, 0.5)
        self.pretrained_cfg = {"input_size": (len(half), *image_size), "mean": half, "std": half}

    def forward_features(self, images: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch 1 pixel"]:
        """Each image in one row."""
        return images.flatten(1).unsqueeze(1)
