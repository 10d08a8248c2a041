"""The encoder: timm's VisionTransformer, run on the kept patches alone."""

import difflib
import inspect
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import timm
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from timm.layers.patch_embed import PatchEmbed
from timm.models import checkpoint_seq, model_entrypoint
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from mae_lightning.models.attention import Attention
from mae_lightning.models.initialization import TOKEN_STD, init_as_linear, init_linear_layers
from mae_lightning.models.masking import gather_tokens
from mae_lightning.models.patches import patch_grid, patchify
from mae_lightning.models.positions import sincos_positions
from mae_lightning.models.sizes import SIZES, ViTSize, named_size


def build_encoder(encoder: str | ViTSize, *, image_size: tuple[int, int], num_channels: int) -> VisionTransformer:
    """A freshly initialised timm VisionTransformer without a head, so that its weights are timm's.

    Position embeddings are the fixed sin-cos ones, whatever the name says; a name's final norm always stands before
    pooling, where masked autoencoders need it.

    Args:
        encoder: ``SIZE/PATCH`` such as ``base/16``, ``nano/4`` or ``tiny/8x4`` (height x width), explicit sizes, or the
            timm name of a plain VisionTransformer with a PatchEmbed.
        image_size: Height and width in pixels.
        num_channels: Channels of an image.

    Raises:
        ValueError: No such encoder, one of another kind, or images that are not a whole number of patches.
    """
    headless = {"num_classes": 0, "global_pool": "", "weight_init": "skip"}
    return build_vit(encoder, image_size=image_size, num_channels=num_channels, **headless)


def build_vit(
    encoder: str | ViTSize, *, image_size: tuple[int, int], num_channels: int, **options: Any
) -> VisionTransformer:
    """The same with timm's own options for what follows the blocks: pooling, norm and head.

    Raises:
        ValueError: As :func:`build_encoder`.
    """
    if isinstance(encoder, str):
        encoder = encoder if "/" not in encoder and encoder not in SIZES else named_size(encoder)
    build, patch_size = _timm_builder(encoder) if isinstance(encoder, str) else _sized_builder(encoder)
    grid = patch_grid(image_size, patch_size)
    vit = build(img_size=image_size, in_chans=num_channels, **options)
    _init_encoder(vit, grid)
    return vit


def encode_visible(
    encoder: VisionTransformer,
    images: Float[Tensor, "batch channel height width"],
    kept: Int64[Tensor, "batch kept"],
) -> Float[Tensor, "batch token dim"]:
    """Features of the kept patches after the final norm, class and register tokens first.

    With every patch kept this is timm's ``forward_features``.
    """
    patches = patchify(images, encoder.patch_embed.patch_size)
    return encode_patches(encoder, gather_tokens(patches, kept), kept)


def encode_patches(
    encoder: VisionTransformer,
    patches: Float[Tensor, "batch kept pixel"],
    kept: Int64[Tensor, "batch kept"],
) -> Float[Tensor, "batch token dim"]:
    """The same from the kept patches themselves, flat: only they are embedded, by one linear layer."""
    return encode_tokens(encoder, embed_patches(encoder.patch_embed, patches), kept)


def encode_tokens(
    encoder: VisionTransformer,
    tokens: Float[Tensor, "batch token dim"],
    places: Int64[Tensor, "batch token"],
    positions: Float[Tensor, "1 position dim"] | None = None,
) -> Float[Tensor, "batch all_tokens dim"]:
    """The same from embedded patches, or what stands for them, and their places on the grid.

    Args:
        encoder: What encodes.
        tokens: Embedded patches.
        places: Which patches of the grid they are.
        positions: Those of the grid, where it is not the encoder's own.
    """
    tokens = _stem(encoder, tokens, places, positions)
    tokens = checkpoint_seq(encoder.blocks, tokens) if encoder.grad_checkpointing else encoder.blocks(tokens)
    features: Tensor = encoder.norm(tokens)
    return features


def encode_every_block(
    encoder: VisionTransformer,
    tokens: Float[Tensor, "batch token dim"],
    places: Int64[Tensor, "batch token"],
    positions: Float[Tensor, "1 position dim"] | None = None,
) -> Float[Tensor, "batch feature all_tokens dim"]:
    """What goes into the first block, and what comes out of each; the last passes through the final norm."""
    features = [_stem(encoder, tokens, places, positions)]
    for block in encoder.blocks:
        features.append(block(features[-1]))
    return torch.stack([*features[:-1], encoder.norm(features[-1])], dim=1)


def _stem(
    encoder: VisionTransformer,
    tokens: Float[Tensor, "batch token dim"],
    places: Int64[Tensor, "batch token"],
    positions: Float[Tensor, "1 position dim"] | None,
) -> Float[Tensor, "batch all_tokens dim"]:
    """Embedded patches with their positions, class and register tokens first: what the first block takes."""
    positions = encoder.pos_embed if positions is None else positions
    assert positions is not None
    num_prefix = num_prefix_positions(encoder)
    tokens = tokens + gather_tokens(positions[:, num_prefix:], places)
    prefix: list[Tensor] = [token for token in (encoder.cls_token, encoder.reg_token) if token is not None]
    if prefix:
        start = torch.cat(prefix, dim=1)
        start = start + positions[:, :num_prefix] if num_prefix else start
        tokens = torch.cat([start.expand(len(tokens), -1, -1), tokens], dim=1)
    start_tokens: Tensor = encoder.norm_pre(encoder.pos_drop(tokens))
    return start_tokens


def num_prefix_positions(encoder: VisionTransformer) -> int:
    """How many class and register tokens have a position of their own."""
    return 0 if encoder.no_embed_class else encoder.num_prefix_tokens


def embed_patches(embedding: PatchEmbed, patches: Float[Tensor, "batch kept pixel"]) -> Float[Tensor, "batch kept dim"]:
    """A patch embedding's convolution as the linear layer that it is, on flat patches."""
    filters = embedding.proj.weight.permute(0, 2, 3, 1).flatten(1)
    tokens: Tensor = embedding.norm(F.linear(patches, filters, embedding.proj.bias))
    return tokens


def _sized_builder(size: ViTSize) -> tuple[Callable[..., VisionTransformer], tuple[int, int]]:
    build = partial(
        VisionTransformer,
        patch_size=size.patch_height_width,
        embed_dim=size.dim,
        depth=size.depth,
        num_heads=size.num_heads,
        mlp_ratio=size.mlp_ratio,
        class_token=size.class_token,
        reg_tokens=size.num_registers,
        attn_layer=Attention,
    )
    return build, size.patch_height_width


def _timm_builder(name: str) -> tuple[Callable[..., VisionTransformer], tuple[int, int]]:
    objection = _objection(name)
    if objection is None:
        return partial(_create, name), _one_block(name).patch_embed.patch_size
    candidates = [other for other, kind in _timm_kinds().items() if kind == VisionTransformer.__name__]
    plain = [other for other in difflib.get_close_matches(name, candidates, n=20) if _objection(other) is None]
    nearest = f"; nearest: {', '.join(plain[:3])}" if plain else ""
    raise ValueError(
        f"encoder '{name}' {objection}; wanted: SIZE/PATCH such as 'base/16' (sizes {', '.join(SIZES)}) "
        f"or the name of a timm VisionTransformer with a plain PatchEmbed{nearest}"
    )


@cache
def _objection(name: str) -> str | None:
    """What stands against a timm name as an encoder; None for a plain VisionTransformer with a PatchEmbed."""
    kind = _timm_kinds().get(name)
    if kind is None:
        return "is not known"
    if kind != VisionTransformer.__name__:
        return f"is timm's {kind}"
    embedding = type(_one_block(name).patch_embed)
    return None if embedding is PatchEmbed else f"has a {embedding.__name__}"


@cache
def _timm_kinds() -> dict[str, str]:
    """The class that each timm name builds, as its function says, without building it."""
    returned = {name: inspect.signature(model_entrypoint(name)).return_annotation for name in timm.list_models()}
    return {name: getattr(kind, "__name__", str(kind)) for name, kind in returned.items()}


def _one_block(name: str) -> VisionTransformer:
    """The named model with a single block and without memory: its kind at next to no cost."""
    with torch.device("meta"):
        return _create(name, depth=1)


def _create(name: str, **options: Any) -> VisionTransformer:
    model = timm.create_model(name, **options)
    assert type(model) is VisionTransformer
    return model


def _init_encoder(encoder: VisionTransformer, grid: tuple[int, int]) -> None:
    init_linear_layers(encoder)
    init_as_linear(encoder.patch_embed.proj)
    for token in (encoder.cls_token, encoder.reg_token):
        if token is not None:
            nn.init.normal_(token, std=TOKEN_STD)
    positions = sincos_positions(grid, encoder.embed_dim, num_prefix_positions(encoder))
    encoder.pos_embed = nn.Parameter(positions.unsqueeze(0), requires_grad=False)
