"""Encoders for other images: position embeddings and patch filters in two dimensions."""

from collections.abc import Mapping
from dataclasses import asdict, replace

from timm.layers.patch_embed import resample_patch_embed
from timm.layers.pos_embed import resample_abs_pos_embed
from timm.models._manipulate import adapt_input_conv
from torch import Tensor

from mae_lightning.models import ViTSize, patch_grid, sincos_positions
from mae_lightning.models.positions import is_sincos
from mae_lightning.weights.building import encoder_of
from mae_lightning.weights.content import Weights, num_positions
from mae_lightning.weights.timm_models import sizes_of

FILTERS = "patch_embed.proj.weight"
Size = tuple[int, int]


def resized(
    weights: Weights,
    *,
    image_size: Size | None = None,
    patch_size: Size | None = None,
    moments: tuple[tuple[float, ...], tuple[float, ...]] | None = None,
) -> tuple[Weights, list[str]]:
    """The weights for other images, and a line for each thing that was changed.

    Args:
        weights: Completed ones.
        image_size: Height and width of the images to come.
        patch_size: Height and width of their patches.
        moments: Mean and deviation of their channels, as many as there are.

    Raises:
        ValueError: It is no plain VisionTransformer, the images are not whole patches, or a decoder would have to
            predict other patches.
    """
    card, size = weights.known, _plain_size(weights)
    image, patch = image_size or card.image_size, patch_size or size.patch_height_width
    mean, std = moments or (card.mean, card.std)
    if weights.has_decoder and (patch != size.patch_height_width or len(mean) != card.num_channels):
        raise ValueError(
            f"the decoder of {weights.source} predicts patches of {size.patch_height_width} and {card.num_channels}"
            " channels, no others; leave it out with --encoder-only"
        )
    grids = patch_grid(card.image_size, size.patch_height_width), patch_grid(image, patch)
    encoder, lines = _fitting_filters(weights.encoder, patch, len(mean))
    decoder = dict(weights.decoder)
    for state, name in ((encoder, "pos_embed"), (decoder, "decoder_pos_embed")):
        if name in state and grids[0] != grids[1]:
            state[name], how = fitting_positions(state[name], *grids)
            lines.append(f"{name} {how}")
    if len(mean) == card.num_channels and (mean, std) != (card.mean, card.std):
        lines.append(f"images normalised by mean {mean} and deviation {std} from now on; the filters are as they were")
    new = replace(card, image_size=image, num_channels=len(mean), mean=mean, std=std)
    if patch != size.patch_height_width:
        new = replace(new, encoder=asdict(replace(size, patch_size=patch)))
    return replace(weights, encoder=encoder, decoder=decoder, card=new, built=None), lines


def fitting_positions(positions: Tensor, old: Size, new: Size) -> tuple[Tensor, str]:
    """Position embeddings for another grid, and how they came about.

    Sin-cos ones are computed anew; learned ones are interpolated (bicubic, in two dimensions, prefix tokens kept).
    """
    prefix = positions.shape[1] - old[0] * old[1]
    steps = f"from {old[0]} x {old[1]} to {new[0]} x {new[1]} patches"
    dim = positions.shape[2]
    if is_sincos(positions, old):
        return sincos_positions(new, dim, prefix).unsqueeze(0).to(positions.dtype), f"computed anew {steps} (sin-cos)"
    resampled = resample_abs_pos_embed(positions, list(new), list(old), num_prefix_tokens=prefix)
    return resampled, f"resampled {steps} (learned)"


def fit_grid(encoder: Mapping[str, Tensor], old: Size | None, new: Size) -> tuple[dict[str, Tensor], str | None]:
    """An encoder's state for another grid, and what was done; unchanged where the grids are the same.

    Args:
        encoder: Under timm's names.
        old: Its grid; None where only the number of its patches is known, then a square.
        new: The grid wanted.
    """
    state = dict(encoder)
    if "pos_embed" not in state:
        return state, None
    patches = num_positions(encoder)[1]
    side = round(patches**0.5)
    old = old or (new if patches == new[0] * new[1] else (side, side))
    if old == new or old[0] * old[1] != patches:
        return state, None
    state["pos_embed"], how = fitting_positions(state["pos_embed"], old, new)
    return state, f"positions {how}"


def _fitting_filters(encoder: Mapping[str, Tensor], patch: Size, channels: int) -> tuple[dict[str, Tensor], list[str]]:
    state, lines = dict(encoder), []
    _, old_channels, *old = state[FILTERS].shape
    if tuple(old) != patch:
        state[FILTERS] = resample_patch_embed(state[FILTERS], list(patch))
        lines.append(f"patch filters resampled from {old[0]} x {old[1]} to {patch[0]} x {patch[1]} pixels")
    if old_channels != channels:
        state[FILTERS] = adapt_input_conv(channels, state[FILTERS], base_chans=old_channels)
        lines.append(f"patch filters for {channels} channels made of those for {old_channels}")
    return state, lines


def _plain_size(weights: Weights) -> ViTSize:
    encoder = sizes_of(encoder_of(weights.known))
    if not isinstance(encoder, ViTSize) or "pos_embed" not in weights.encoder:
        raise ValueError(f"{weights.source} holds {encoder}; only plain VisionTransformers of SIZE/PATCH are resized")
    return encoder
