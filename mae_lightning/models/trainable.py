"""Partial fine-tuning: which part of a classifier trains (paper Section 4.3, Figure 9)."""

from typing import Literal

from timm.models.swin_transformer import PatchMerging
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from mae_lightning.models.classifier import Classifier, blocks_in_order, head_of

TrainableBlocks = int | float | Literal["all"]


def train_last_blocks(model: Classifier, num_blocks: TrainableBlocks) -> list[nn.Module]:
    """Freezes all but the last blocks, the final norm and the head, and returns the modules that train.

    Args:
        model: The classifier.
        num_blocks: ``all`` for everything, embedding included; 0 for the head alone, the final norm staying frozen with
            the encoder; 0.5 for the second norm and the MLP of the last block; otherwise a number of blocks.

    Raises:
        ValueError: The model has no such number of blocks.
    """
    if num_blocks == "all":
        return [model]
    parts = [*_last_blocks(model, num_blocks), *_pooling(model), head_of(model)]
    if num_blocks > 0:
        parts += [norm for norm in (model.norm, getattr(model, "fc_norm", None)) if norm is not None]
    model.requires_grad_(False)
    for part in parts:
        part.requires_grad_(True)
    return parts


def _last_blocks(model: Classifier, num_blocks: int | float) -> list[nn.Module]:
    parts = blocks_in_order(model)
    depth = sum(not isinstance(part, PatchMerging) for part in parts)
    if num_blocks == 0.5:
        return [parts[-1].get_submodule("norm2"), parts[-1].get_submodule("mlp")]
    if not 0 <= num_blocks <= depth or num_blocks != int(num_blocks):
        raise ValueError(
            f"trainable_blocks {num_blocks:g} must be all, 0, 0.5 or a whole number up to the depth {depth}"
        )
    taken: list[nn.Module] = []
    remaining = int(num_blocks)
    while remaining:
        part = parts.pop()
        taken.append(part)
        remaining -= not isinstance(part, PatchMerging)
    return taken


def _pooling(model: Classifier) -> list[nn.Module]:
    """The attentive pooling, which belongs to the head."""
    pooling = model.attn_pool if isinstance(model, VisionTransformer) else None
    return [] if pooling is None else [pooling]
