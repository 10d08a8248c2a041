"""Encoders to judge: ours from a checkpoint, or any of timm's by name, behind one interface."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import timm
import torch
from jaxtyping import Float
from torch import Tensor, nn

from mae_lightning.models import Normalization, ViTSize, build_classifier
from mae_lightning.weights import PretrainedEncoder, read_encoder

Feature = Literal["mean", "class"]
CHECKPOINTS = (".ckpt", ".pth", ".pt")


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
        name: A checkpoint of this package or in the official layout, or a timm name, with its pretrained weights.
        feature: Which feature it gives.
        image_size: Height and width for timm's encoders; by default that of their weights. Checkpoints have their own.
        untrained: The same architecture with fresh weights, for comparison.

    Raises:
        FileNotFoundError: There is no such checkpoint.
        ValueError: There is no such encoder, or it has no such feature.
    """
    if name.endswith(CHECKPOINTS) or Path(name).is_file():
        encoder = _from_checkpoint(name, read_encoder(name), feature, image_size, untrained)
    else:
        encoder = _from_timm(name, feature, image_size, untrained)
    if feature == "class" and not getattr(encoder.model, "has_class_token", False):
        raise ValueError(f"{name} has no class token; judge its mean patch token, --feature mean")
    encoder.model.eval().requires_grad_(False)
    return encoder


def _from_checkpoint(
    name: str, pretrained: PretrainedEncoder, feature: Feature, image_size: tuple[int, int] | None, untrained: bool
) -> FrozenEncoder:
    card = pretrained.card
    if card is None:
        raise ValueError(f"{name} does not say what it holds; continue from it once with init_from, and judge that run")
    if image_size not in (None, card.image_size):
        raise ValueError(f"{name} is for images of {card.image_size}, not {image_size}; leave --image-size out")
    model = build_classifier(
        ViTSize(**card.encoder) if isinstance(card.encoder, dict) else card.encoder,
        num_classes=0,
        image_size=card.image_size,
        num_channels=card.num_channels,
        norm_after_pool="fc_norm.weight" in pretrained.state,
    )
    if not untrained:
        pretrained.load_into(model)
    normalize = Normalization(card.mean, card.std)
    return FrozenEncoder(_named(name, untrained), model, normalize, card.image_size, card.num_channels, feature)


def _from_timm(name: str, feature: Feature, image_size: tuple[int, int] | None, untrained: bool) -> FrozenEncoder:
    if not timm.is_model(name):
        raise ValueError(f"'{name}' is neither a checkpoint ({', '.join(CHECKPOINTS)}) nor a timm model")
    fixed = bool(timm.get_pretrained_cfg(name).fixed_input_size)  # type: ignore[union-attr]  # every model has one
    options = {"img_size": image_size} if fixed and image_size else {}
    model = timm.create_model(name, pretrained=not untrained, num_classes=0, **options)  # type: ignore[arg-type]
    settings: dict[str, Any] = model.pretrained_cfg  # type: ignore[assignment]
    size = image_size or tuple(settings["input_size"][1:])
    normalize = Normalization(settings["mean"], settings["std"])
    return FrozenEncoder(_named(name, untrained), model, normalize, size, settings["input_size"][0], feature)


def _named(name: str, untrained: bool) -> str:
    return f"{name}, untrained" if untrained else name
