"""Learning rates that fall from the head down to the patch embedding (paper Table 9; Clark et al. 2020)."""

import re
from collections.abc import Collection
from typing import Any

from torch import nn

BLOCK = re.compile(r"((?:layers\.\d+\.)?blocks\.\d+)\.")
MERGING = re.compile(r"layers\.\d+\.downsample\.")
EMBEDDING = ("cls_token", "reg_token", "pos_embed", "positions", "patch_embed", "norm_pre", "mask_token")
TOP = ("norm", "fc_norm", "attn_pool", "head")


def layerwise_groups(
    model: nn.Module, *, lr: float, weight_decay: float, layer_decay: float = 1.0, no_decay: Collection[str] = ()
) -> list[dict[str, Any]]:
    """Optimiser groups of a timm ViT or Swin: block i of n learns at ``lr x layer_decay ** (n + 1 - i)``.

    Embedding, tokens and positions are layer 0; final norm, pooling and head learn at ``lr`` itself. Swin's patch
    merging goes with the block before it. Biases and norms, all of one dimension, do not decay; frozen parameters are
    left out.

    Args:
        model: The classifier.
        lr: Learning rate of the head.
        weight_decay: For what decays.
        layer_decay: Rate of a layer over that of the layer above it; 1 for one rate.
        no_decay: Names of further parameters without weight decay, such as positions and class token.

    Raises:
        ValueError: A parameter has no known place, or the layer decay would change no rate.
    """
    places = layer_places(model)
    top = max(places.values())
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            scale = layer_decay ** (top - places[name])
            decay = 0.0 if parameter.ndim <= 1 or name in no_decay else weight_decay
            group = groups.setdefault((scale, decay), {"params": [], "lr": lr * scale, "weight_decay": decay})
            group["params"].append(parameter)
    if layer_decay != 1 and all(scale == 1 for scale, _ in groups):
        raise ValueError(f"layer_decay {layer_decay:g} changes no learning rate: no block trains; set it to 1")
    return list(groups.values())


def layer_places(model: nn.Module) -> dict[str, int]:
    """Where each parameter stands: 0 for the embedding, 1 to n for the blocks in order, n + 1 above them.

    Raises:
        ValueError: A parameter is of no part that timm's ViT or Swin has.
    """
    blocks: dict[str, int] = {}
    places: dict[str, int] = {}
    above: list[str] = []
    for name, _ in model.named_parameters():
        if match := BLOCK.match(name):
            places[name] = blocks.setdefault(match[1], len(blocks) + 1)
        elif MERGING.match(name):
            places[name] = len(blocks)
        elif name.partition(".")[0] in EMBEDDING:
            places[name] = 0
        elif name.partition(".")[0] in TOP:
            above.append(name)
        else:
            raise ValueError(f"layer decay has no place for {name}; it knows the names of timm's ViT and Swin")
    return places | dict.fromkeys(above, len(blocks) + 1)
