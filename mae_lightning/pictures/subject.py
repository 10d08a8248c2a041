"""What figures are drawn of: a model, and images to show it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from mae_lightning.models import MaskedModel, Normalization, sample_noise
from mae_lightning.pictures.style import NotDrawnError
from mae_lightning.weights.building import build_masked, build_timm
from mae_lightning.weights.card import CheckpointCard
from mae_lightning.weights.content import Said, completed
from mae_lightning.weights.opening import open_weights

OBJECTIVES = {"mae": "masked autoencoder", "simmim": "SimMIM", "classification": "classifier"}
RATIOS = {"simmim": 0.6}
"""Mask ratios that the papers train with, where it is not MAE's 0.75."""


@dataclass(frozen=True)
class Model:
    """A model and what is known of it.

    Attributes:
        name: For titles.
        encoder: timm's, in eval mode.
        masked: What reconstructs, where there is such a thing.
        why_not: Otherwise what stands against it.
        normalize: What images go through first.
        card: What is known of it.
    """

    name: str
    encoder: Any
    masked: MaskedModel | None
    why_not: str
    normalize: Normalization
    card: CheckpointCard

    def to(self, device: torch.device) -> "Model":
        """The same, with its weights on a device."""
        for module in (self.encoder, self.masked, self.normalize):
            if module is not None:
                module.to(device)
        return self


@dataclass(frozen=True)
class Subject:
    """A model, the images that it is shown, and how.

    Attributes:
        model: The model.
        data: Where the images are from, for titles.
        images: Those to draw, normalised.
        index: Their places in the data set, from which their masks are drawn.
        many_images: Those to take statistics over, normalised.
        mask_ratio: Share of the patches that is hidden, where one ratio is drawn.
        seed: Of the masks.
        statistics: Where the mean and deviation of hidden patches come from; see :func:`reconstruct`.
        beside: Encoders whose position embeddings stand beside the model's, by name.
    """

    model: Model
    data: str
    images: Float[Tensor, "image channel height width"]
    index: Int64[Tensor, "image"]
    many_images: Float[Tensor, "many channel height width"]
    mask_ratio: float = 0.75
    seed: int = 0
    statistics: Literal["visible", "truth"] = "visible"
    beside: Mapping[str, Any] = field(default_factory=dict)

    @property
    def pixels(self) -> Float[Tensor, "image channel height width"]:
        """The images in 0 to 1."""
        return self.model.normalize.undo(self.images).clamp(0, 1).cpu()

    @property
    def masked(self) -> MaskedModel:
        """The model that reconstructs.

        Raises:
            NotDrawnError: There is none, or its target has no way back to pixels.
        """
        model = self.model.masked
        if model is None:
            raise NotDrawnError(self.model.why_not)
        if self.statistics not in model.target.pixel_modes:
            modes = ", ".join(model.target.pixel_modes) or "no way back to pixels"
            raise NotDrawnError(
                f"its target {type(model.target).__name__} has no '{self.statistics}' pixels, but {modes}"
            )
        return model

    @property
    def noise(self) -> Float[Tensor, "image patch"]:
        """What the images' masks are drawn from."""
        return sample_noise(self.index, self.masked.num_patches, self.seed, epoch=0)

    def title(self, what: str) -> str:
        """A title that says what, of which model, and on which data."""
        return f"{what}: {self.model.name}, {self.data}"


def open_model(checkpoint: str | Path, said: Said | None = None) -> Model:
    """The model that a checkpoint, folder or timm name stands for; an encoder alone where there is no decoder.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged, or does not say what it holds.
    """
    weights = completed(open_weights(checkpoint, said), said)
    card, masked, why_not = weights.known, None, ""
    try:
        masked = build_masked(weights)
    except ValueError as error:
        why_not = str(error)
    encoder: Any = masked.encoder if masked is not None else build_timm(weights, head=False)
    encoder.eval().requires_grad_(False)
    return Model(_name(checkpoint, card), encoder, masked, why_not, Normalization(card.mean, card.std), card)


def _name(checkpoint: str | Path, card: CheckpointCard) -> str:
    path = Path(checkpoint)
    run = path.parents[1].name if path.parent.name == "checkpoints" else path.name
    encoder = card.encoder
    if not isinstance(encoder, str):
        kind, depth = ("Swin", encoder["depths"]) if "depths" in encoder else ("ViT", encoder["depth"])
        encoder = f"{kind} of width {encoder['dim']}, depth {depth}"
    if run == encoder:
        return encoder
    return f"{encoder} {OBJECTIVES.get(card.objective, 'encoder')} ({run})"
