"""What attention does, block by block, without ever keeping the maps of all blocks."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from timm.models.swin_transformer import SwinTransformer, window_partition
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from mae_lightning.pictures.style import NotDrawnError

IMAGES_AT_ONCE = 8
"""Images whose maps of one block are in memory: 20 MB with ViT-L at 224 pixels."""


@dataclass(frozen=True)
class AttentionLayer:
    """One block's attention, and where its tokens lie in the image.

    Attributes:
        module: timm's attention.
        places: The place on the grid of each token of each window, row by row; -1 for class and register tokens and
            for padding. A vision transformer has a single window.
        allowed: Whether a query may see a key: Swin's mask keeps apart what only the cyclic shift brought together.
        grid: Rows and columns of tokens.
        stride: Height and width in pixels of the image part behind a token.
    """

    module: Any
    places: Int64[Tensor, "window token"]
    allowed: Bool[Tensor, "window token token"]
    grid: tuple[int, int]
    stride: tuple[float, float]

    @property
    def is_patch(self) -> Bool[Tensor, "window token"]:
        """Whether a token stands for a part of the image."""
        return self.places >= 0

    def distances(self) -> Float[Tensor, "window token token"]:
        """Pixels between the centres of each two tokens of a window."""
        rows, columns = self.places // self.grid[1] * self.stride[0], self.places % self.grid[1] * self.stride[1]
        centres = torch.stack([rows, columns], dim=-1).float()
        return (centres.unsqueeze(2) - centres.unsqueeze(1)).square().sum(dim=-1).sqrt()


@dataclass(frozen=True)
class AttentionDistance:
    """How far attention reaches, in pixels, the first block first.

    Attributes:
        by_head: Of each block, the mean distance of every head.
        uniform: Of each block, the same if all patches that a query may see had equal weight.
    """

    by_head: list[Float[Tensor, "_"]]
    uniform: list[float]


@dataclass(frozen=True)
class AttentionMaps:
    """Where the class token looks; the mean patch where there is no class token.

    Attributes:
        by_head: In the last block; over the patches, summing to 1.
        rollout: Through all blocks, likewise (Abnar and Zuidema 2020, arXiv 2005.00928, Section 3).
        query: What looks.
    """

    by_head: Float[Tensor, "image head row column"]
    rollout: Float[Tensor, "image row column"]
    query: str


def attention_layers(encoder: Any) -> list[AttentionLayer]:
    """The blocks of a vision transformer or Swin of timm's.

    Raises:
        NotDrawnError: It is another model, or its attention is not timm's.
    """
    if isinstance(encoder, VisionTransformer):
        layers = _vit_layers(encoder)
    elif isinstance(encoder, SwinTransformer):
        layers = _swin_layers(encoder)
    else:
        raise NotDrawnError(f"a {type(encoder).__name__} has no attention of a ViT or a Swin")
    for layer in layers:
        if not hasattr(layer.module, "attn_drop"):
            raise NotDrawnError(f"its {type(layer.module).__name__} never forms the attention's weights")
    return layers


def _vit_layers(encoder: VisionTransformer) -> list[AttentionLayer]:
    device, grid = encoder.patch_embed.proj.weight.device, encoder.patch_embed.grid_size
    patches = torch.arange(grid[0] * grid[1], device=device)
    places = F.pad(patches, (encoder.num_prefix_tokens, 0), value=-1).unsqueeze(0)
    allowed = torch.ones(1, places.shape[1], places.shape[1], dtype=torch.bool, device=device)
    blocks: Any = encoder.blocks
    height, width = encoder.patch_embed.patch_size
    stride = (float(height), float(width))
    return [AttentionLayer(block.attn, places, allowed, grid, stride) for block in blocks]


def _swin_layers(encoder: SwinTransformer) -> list[AttentionLayer]:
    stages: Any = encoder.layers
    size: Any = encoder.patch_embed.img_size
    layers = []
    for block in (block for stage in stages for block in stage.blocks):
        (rows, columns), window = block.input_resolution, block.window_size
        places = torch.arange(rows * columns, device=block.norm1.weight.device).view(1, rows, columns, 1)
        shifted = places.roll((-block.shift_size[0], -block.shift_size[1]), dims=(1, 2))
        padded = F.pad(shifted, (0, 0, 0, -columns % window[1], 0, -rows % window[0]), value=-1)
        inside = window_partition(padded, window).flatten(1)
        mask = block.get_attn_mask()
        sees = torch.ones(*inside.shape, inside.shape[1], dtype=torch.bool, device=inside.device)
        stride = (size[0] / rows, size[1] / columns)
        layers.append(AttentionLayer(block.attn, inside, sees if mask is None else mask == 0, (rows, columns), stride))
    return layers


@contextmanager
def attention_seen(layers: list[AttentionLayer], see: Callable[[int, Tensor], None]) -> Iterator[None]:
    """Shows each block's attention weights as they come, ``window head query key``, and keeps none.

    Args:
        layers: Whose; until the end they compute the weights instead of a fused result.
        see: Takes the block's number, from 0, and its weights.
    """

    def show(number: int, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        see(number, inputs[0])

    fused = [layer.module.fused_attn for layer in layers]
    hooks = [
        layer.module.attn_drop.register_forward_pre_hook(partial(show, number)) for number, layer in enumerate(layers)
    ]
    try:
        for layer in layers:
            layer.module.fused_attn = False
        yield
    finally:
        for hook, layer, was_fused in zip(hooks, layers, fused, strict=True):
            hook.remove()
            layer.module.fused_attn = was_fused


def mean_distance(
    weights: Float[Tensor, "image window head query key"], layer: AttentionLayer
) -> Float[Tensor, "image head"]:
    """Distance from query to key in pixels, weighted by attention, averaged over the patches of an image.

    Class and register tokens and padding are left out, as queries and as keys, and the weights of the others made to
    sum to 1 again.
    """
    is_patch = layer.is_patch
    weights = weights.float() * is_patch[:, None, None, :]
    reached = torch.einsum("iwhqk,wqk->iwhq", weights, layer.distances())
    reached = reached / weights.sum(dim=-1).clamp(min=torch.finfo(torch.float32).tiny)
    return (reached * is_patch[:, None, :]).sum(dim=(1, 3)) / is_patch.sum()


@torch.no_grad()
def attention_distance(encoder: Any, images: Float[Tensor, "image channel height width"]) -> AttentionDistance:
    """Mean attention distance of every head (ViT, Section 4.5 and Figure 7, right); all patches are seen.

    Args:
        encoder: A timm VisionTransformer or SwinTransformer, in eval mode.
        images: Normalised, at least one.

    Raises:
        NotDrawnError: As :func:`attention_layers`.
    """
    layers = attention_layers(encoder)
    sums: list[Any] = [0.0] * len(layers)

    def add(number: int, weights: Tensor) -> None:
        layer = layers[number]
        sums[number] += mean_distance(weights.view(-1, len(layer.places), *weights.shape[1:]), layer).sum(dim=0).cpu()

    with attention_seen(layers, add):
        for some in torch.split(images, IMAGES_AT_ONCE):
            encoder.forward_features(some)
    uniform = [float(mean_distance(layer.allowed.float()[None, :, None], layer)) for layer in layers]
    return AttentionDistance([total / len(images) for total in sums], uniform)


@torch.no_grad()
def attention_maps(encoder: Any, images: Float[Tensor, "image channel height width"]) -> AttentionMaps:
    """The class token's attention in the last block by head, and rolled out through all blocks.

    Rollout: the heads' mean, averaged with the identity for the residual path, multiplied over the blocks.

    Args:
        encoder: A timm VisionTransformer, in eval mode.
        images: Normalised.

    Raises:
        NotDrawnError: As :func:`attention_layers`, or a Swin, whose windows are no map of the image.
    """
    if isinstance(encoder, SwinTransformer):
        raise NotDrawnError(
            "a Swin attends inside windows and has no class token, so there is no map of the whole image"
        )
    layers = attention_layers(encoder)
    rolled: list[Tensor] = []
    last: list[Tensor] = []

    def follow(number: int, weights: Tensor) -> None:
        mixed = (weights.float().mean(dim=1) + torch.eye(weights.shape[-1], device=weights.device)) / 2
        rolled[:] = [mixed @ rolled[0] if rolled else mixed]
        if number == len(layers) - 1:
            last[:] = [weights.float()]

    with attention_seen(layers, follow):
        encoder.forward_features(images)
    num_prefix, has_class = encoder.num_prefix_tokens, encoder.has_class_token
    looking = slice(0, 1) if has_class else slice(num_prefix, None)

    def on_patches(weights: Tensor) -> Tensor:
        seen = weights[..., looking, num_prefix:].mean(dim=-2)
        shares: Tensor = seen / seen.sum(dim=-1, keepdim=True)
        return shares.view(*shares.shape[:-1], *layers[0].grid).cpu()

    return AttentionMaps(on_patches(last[0]), on_patches(rolled[0]), "class token" if has_class else "mean patch")
