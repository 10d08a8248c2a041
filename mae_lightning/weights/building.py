"""From weights to the model that they are, or not at all."""

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from mae_lightning.models import (
    CrossAttentionDecoder,
    Decoder,
    MaskedAutoencoder,
    MaskedModel,
    NormalizedPixels,
    PatchPCA,
    Pixels,
    SimMIM,
    SwinSize,
    Target,
    TransformerDecoder,
    ViTSize,
    build_classifier,
    explicit_size,
)
from mae_lightning.weights.card import CheckpointCard
from mae_lightning.weights.content import Weights

COMPONENTS: dict[str, type[Decoder | Target]] = {
    f"{kind.__module__}.{kind.__qualname__}": kind
    for kind in (TransformerDecoder, CrossAttentionDecoder, Pixels, NormalizedPixels, PatchPCA)
}
"""What a card may name: nothing is imported because a file says so."""
BLOCK, KEYS_OF_A_BLOCK = re.compile(r"(\w+\.)*blocks\.\d+\."), 12
HEADLESS = {"num_classes": 0, "pool": "mean", "batch_norm": False}


def build_timm(weights: Weights, *, head: bool = True, pretrained: bool = True) -> Any:
    """The encoder, or classifier, as a plain timm model in eval mode.

    Args:
        weights: Completed ones.
        head: Whether a classifier keeps its head.
        pretrained: False for fresh weights.

    Raises:
        ValueError: A tensor is missing, left over or of another shape; all are named.
    """
    if weights.built is not None:
        return weights.built if head else headless(weights.built)
    card, with_head = weights.known, head and bool(weights.head)
    classifier = card.classifier or {}
    recipe: dict[str, Any] = dict(classifier) if with_head and classifier else {**classifier, **HEADLESS}
    recipe["norm_after_pool"] = "fc_norm.weight" in weights.encoder
    model = build_classifier(encoder_of(card), image_size=card.image_size, num_channels=card.num_channels, **recipe)
    if pretrained:
        load(model, {**weights.encoder, **(weights.head if with_head else {})}, weights)
    return model.eval()


def headless(model: Any) -> Any:
    """A model of timm's without its head; where it has a choice, its feature is the mean patch token, as everywhere."""
    model.reset_classifier(0, "avg" if isinstance(getattr(model, "global_pool", None), str) else None)
    return model


def build_masked(weights: Weights) -> MaskedModel:
    """The model that reconstructs, in eval mode.

    Raises:
        ValueError: The file holds an encoder alone, a decoder or target of the user's own, or other tensors.
    """
    card = weights.known
    if not weights.has_decoder:
        raise ValueError(
            f"{weights.source} holds {holding(weights)} without a decoder; what reconstructs is a pretraining run's"
            " checkpoint (runs/NAME/checkpoints/last.ckpt), an official pretraining file with its decoder or a"
            " ViTMAEForPreTraining folder"
        )
    model: MaskedModel
    images = {"image_size": card.image_size, "num_channels": card.num_channels}
    if card.objective == "simmim":
        model = SimMIM(encoder_of(card), **images)  # type: ignore[arg-type]
    else:
        decoder, target = (_component(part, weights.source) for part in (card.decoder, card.target))
        settings = card.masked_model or {}
        model = MaskedAutoencoder(encoder_of(card), decoder, target, **images, **settings)  # type: ignore[arg-type]
    load(model, {**{f"encoder.{name}": value for name, value in weights.encoder.items()}, **weights.decoder}, weights)
    return model


def encoder_of(card: CheckpointCard) -> str | ViTSize | SwinSize:
    """The encoder as models take it."""
    if isinstance(card.encoder, str):
        return card.encoder
    return explicit_size(card.encoder)


def holding(weights: Weights) -> str:
    """What a file holds, in words."""
    card = weights.card
    if card is None:
        return "an encoder"
    height, width = card.image_size
    return f"the encoder {card.encoder} for {height} x {width} images of {card.num_channels} channels"


def load(model: nn.Module, state: Mapping[str, Tensor], weights: Weights) -> None:
    """Loads what fits in full, and leaves the model in eval mode.

    Raises:
        ValueError: Something is missing, left over or of another shape; nothing was changed.
    """
    check_fit(model, state, weights.source)
    model.load_state_dict(state)
    for module in model.modules():
        if isinstance(module, nn.LayerNorm) and weights.norm_eps is not None:
            module.eps = weights.norm_eps
    model.eval()


def check_fit(module: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Names what is missing, left over or of another shape before anything is loaded.

    Raises:
        ValueError: Something is; nothing was changed.
    """
    problems = differences(module.state_dict(), state)
    if problems:
        raise ValueError(f"{source} does not fit the model: {problems}")


def differences(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str:
    """Everything missing, left over or of another shape in a state; empty if it fits."""
    problems = [f"missing {key}" for key in _by_block([key for key in own if key not in state])]
    problems += [f"unexpected {key}" for key in _by_block([key for key in state if key not in own])]
    problems += [
        f"{key} is {list(state[key].shape)}, the model's is {list(own[key].shape)}"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    return "; ".join(problems)


def _by_block(keys: list[str]) -> list[str]:
    """The keys, with all of a whole block in one word."""
    blocks = [key[: match.end()] if (match := BLOCK.match(key)) else key for key in keys]
    count = Counter(blocks)
    shown = (f"{block}*" if count[block] >= KEYS_OF_A_BLOCK else key for key, block in zip(keys, blocks, strict=True))
    return list(dict.fromkeys(shown))


def _component(described: Mapping[str, Any] | None, source: str) -> Decoder | Target:
    path = described["class_path"] if described else None
    if described is None or path not in COMPONENTS:
        known = ", ".join(name.rsplit(".", 1)[1] for name in COMPONENTS)
        raise ValueError(f"{source} has the part {path}, which only its own run can build; known here: {known}")
    return COMPONENTS[path](**described["init_args"])
