"""Classifiers: timm's VisionTransformer or SwinTransformer with the heads of the papers' protocols."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from timm.layers.drop import DropPath
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from mae_lightning.models.encoder import build_vit
from mae_lightning.models.sizes import SwinSize, ViTSize
from mae_lightning.models.swin import build_swin, is_swin
from mae_lightning.models.variants import BlockNorm, Positions, PositionsAt, position_names, vary

Classifier = VisionTransformer | SwinTransformer
Pool = Literal["mean", "class", "attentive"]

POOLS = {"mean": "avg", "class": "token", "attentive": "map"}
"""timm's names of the ways from tokens to one feature."""
BATCH_NORM_EPS = 1e-6
"""Of the norm before the head, as in the official code."""


def build_classifier(
    encoder: str | ViTSize | SwinSize,
    *,
    num_classes: int,
    image_size: tuple[int, int],
    num_channels: int,
    pool: Pool = "mean",
    norm_after_pool: bool = True,
    batch_norm: bool = False,
    head_std: float = 2e-5,
    drop_path: float = 0.0,
    positions: Positions = "learned_from_sincos",
    positions_at: PositionsAt = "stem",
    block_norm: BlockNorm = "layer",
) -> Classifier:
    """A freshly initialised timm model, so that its weights are timm's; positions are learned and start at sin-cos.

    Args:
        encoder: ``SIZE/PATCH`` of a ViT or of a Swin (``swin-base/4``), explicit sizes, or the timm name of a plain
            VisionTransformer or of a ``swin_*``.
        num_classes: Number of classes; 0 for an encoder without a head.
        image_size: Height and width in pixels.
        num_channels: Channels of an image.
        pool: The feature: mean patch token, class token, or one learned query attending over the patch tokens (timm's
            ``map`` pooling, followed by an MLP).
        norm_after_pool: With mean pooling, a norm after it instead of the encoder's before it.
        batch_norm: A BatchNorm without affine parameters before the head (paper, Appendix A.1, linear probing).
        head_std: Standard deviation of the fresh head.
        drop_path: Chance that the last block is skipped; it falls linearly to zero at the first.
        positions: Of a ViT, another position embedding (ViT, Table 8); see :func:`vary`.
        positions_at: Of a ViT, where it is added.
        block_norm: Of a ViT, the norm inside its blocks.

    Raises:
        ValueError: No such encoder, images that do not fit it, or a setting that it cannot honour.
    """
    model: Classifier
    if not isinstance(encoder, ViTSize) and is_swin(encoder):
        if pool != "mean":
            raise ValueError(f"pool '{pool}' does not fit {encoder}: Swin has no class token; use pool 'mean'")
        if (positions, positions_at, block_norm) != ("learned_from_sincos", "stem", "layer"):
            raise ValueError(f"positions, positions_at and block_norm are for vision transformers, not for {encoder}")
        model = build_swin(
            encoder, image_size=image_size, num_channels=num_channels, num_classes=num_classes, drop_path=drop_path
        )
    else:
        assert not isinstance(encoder, SwinSize)
        build = partial(build_vit, encoder, image_size=image_size, num_channels=num_channels, num_classes=num_classes)
        if pool == "class" and not _has_class_token(build):
            raise ValueError(f"pool 'class' does not fit {encoder}: it has no class token; use pool 'mean'")
        after = pool == "mean" and norm_after_pool
        model = build(global_pool=POOLS[pool], fc_norm=after, drop_path_rate=drop_path)
        model.requires_grad_(True)  # positions too, which pretraining keeps fixed; officially so
        vary(model, positions=positions, positions_at=positions_at, block_norm=block_norm)
    _set_head(model, batch_norm=batch_norm, std=head_std)
    return model


def no_weight_decay(model: Classifier) -> set[str]:
    """Names of parameters that do not decay, beside biases and norms: positions and tokens."""
    return set(model.no_weight_decay()) | position_names(model)


def head_of(model: Classifier) -> nn.Module:
    """The layer that gives the logits, with what stands directly before it."""
    return model.head if isinstance(model, VisionTransformer) else model.head.fc


def blocks_in_order(model: Classifier) -> list[nn.Module]:
    """The transformer blocks, with Swin's patch merging between those that it stands between."""
    if isinstance(model, VisionTransformer):
        return list(model.blocks)
    stages: list[Any] = list(model.layers)
    parts = [part for stage in stages for part in (stage.downsample, *stage.blocks)]
    return [part for part in parts if not isinstance(part, nn.Identity)]


def has_drop_path(modules: list[nn.Module]) -> bool:
    """Whether any path is ever dropped in these modules."""
    inside = (layer for module in modules for layer in module.modules())
    return any(isinstance(layer, DropPath) and layer.drop_prob for layer in inside)


def _has_class_token(build: Callable[..., VisionTransformer]) -> bool:
    """Asks a model without memory, because timm's constructor only asserts."""
    with torch.device("meta"):
        return bool(build(global_pool="").has_class_token)


def _set_head(model: Classifier, *, batch_norm: bool, std: float) -> None:
    """A fresh linear head, behind a BatchNorm if asked for."""
    linear = head_of(model)
    if not isinstance(linear, nn.Linear):
        return
    nn.init.trunc_normal_(linear.weight, std=std)
    nn.init.zeros_(linear.bias)
    if batch_norm:
        head = nn.Sequential(nn.BatchNorm1d(linear.in_features, affine=False, eps=BATCH_NORM_EPS), linear)
        model.set_submodule("head" if isinstance(model, VisionTransformer) else "head.fc", head)
