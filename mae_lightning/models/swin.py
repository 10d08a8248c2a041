"""Swin Transformers (Liu et al. 2021, arXiv 2103.14030), timm's, by our names, by timm's, or by explicit sizes."""

from collections.abc import Mapping
from math import isqrt
from typing import Any

import timm
from timm.layers.pos_embed_rel import resize_rel_pos_bias_table_simple
from timm.models.swin_transformer import SwinTransformer, WindowAttention
from torch import Tensor, nn

from mae_lightning.models.patches import patch_grid
from mae_lightning.models.sizes import SWIN_PREFIX, SWIN_SIZES, SwinSize, ViTSize, named_swin

POSITIONS = "relative_position_bias_table"


def is_swin(encoder: str | ViTSize | SwinSize) -> bool:
    """Whether the encoder is a Swin: explicit sizes, one of our ``swin-*``, or one of timm's ``swin_*``."""
    if isinstance(encoder, str):
        return encoder.startswith(SWIN_PREFIX) or (encoder.startswith("swin_") and timm.is_model(encoder))
    return isinstance(encoder, SwinSize)


def build_swin(
    encoder: str | SwinSize,
    *,
    image_size: tuple[int, int],
    num_channels: int,
    num_classes: int = 0,
    drop_path: float = 0.0,
) -> SwinTransformer:
    """A freshly initialised timm SwinTransformer, so that its weights are timm's; mean pooling before the head.

    Args:
        encoder: ``SIZE/PATCH`` such as ``swin-base/4`` or ``swin-nano/2``, explicit sizes, or a timm name ``swin_*``,
            whose windows are those of its name whatever the image.
        image_size: Height and width in pixels.
        num_channels: Channels of an image.
        num_classes: Number of classes; 0 for an encoder without a head.
        drop_path: Chance that the last block is skipped; it falls linearly to zero at the first.

    Raises:
        ValueError: No such encoder, or images that its patches or stages do not divide.
    """
    if not is_swin(encoder):
        raise ValueError(
            f"encoder '{encoder}' is no Swin; wanted: SIZE/PATCH such as 'swin-base/4' (sizes {', '.join(SWIN_SIZES)}) "
            "or a timm name swin_*"
        )
    options: dict[str, Any] = {
        "img_size": image_size,
        "in_chans": num_channels,
        "num_classes": num_classes,
        "drop_path_rate": drop_path,
    }
    if isinstance(encoder, str) and not encoder.startswith(SWIN_PREFIX):
        model = timm.create_model(encoder, **options)
        assert isinstance(model, SwinTransformer)
        patch_size: Any = model.patch_embed.patch_size
        patch_grid(image_size, patch_size)
        return model
    size = named_swin(encoder) if isinstance(encoder, str) else encoder
    check_stages(image_size, size.stride)
    return SwinTransformer(
        patch_size=size.patch_size,
        embed_dim=size.dim,
        depths=size.depths,
        num_heads=size.heads,
        window_size=size.window(image_size),
        mlp_ratio=size.mlp_ratio,
        **options,
    )


def check_stages(image_size: tuple[int, int], stride: int) -> None:
    """Refuses images that are no whole number of the last stage's tokens.

    Raises:
        ValueError: They are not.
    """
    if any(pixels < stride or pixels % stride for pixels in image_size):
        height, width = (max(1, round(pixels / stride)) * stride for pixels in image_size)
        raise ValueError(
            f"image size {image_size[0]} x {image_size[1]} is not a multiple of the {stride} pixels of a token in "
            f"Swin's last stage; {height} x {width} would be"
        )


def check_windows(model: SwinTransformer) -> None:
    """Refuses images whose tokens are, at some stage, no whole number of windows: padding would be attended to.

    Raises:
        ValueError: They are not.
    """
    stages: list[Any] = list(model.layers)
    for place, stage in enumerate(stages, start=1):
        grid, window = stage.output_resolution, stage.blocks[0].window_size
        if grid[0] % window[0] or grid[1] % window[1]:
            raise ValueError(
                f"stage {place} has {grid[0]} x {grid[1]} tokens, no whole number of windows of {window[0]} x "
                f"{window[1]}; take an encoder whose windows follow the image, such as 'swin-base/4', or other images"
            )


def total_stride(model: SwinTransformer) -> int:
    """Side of the image part behind one token of the last stage, in pixels."""
    patch_size: Any = model.patch_embed.patch_size
    return int(patch_size[0] * 2 ** (len(model.layers) - 1))


def resample_positions(state: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """A state with its relative position biases resampled to the model's windows, as other image sizes need.

    Square windows only; any other difference is left for the check of the whole state to name.

    Args:
        state: Weights under the model's names.
        model: A Swin, or a model that has one inside.
    """
    fitting = dict(state)
    for name, module in model.named_modules():
        key = f"{name}.{POSITIONS}"
        if isinstance(module, WindowAttention) and key in state:
            own, given = module.relative_position_bias_table, state[key]
            is_square = isqrt(len(given)) ** 2 == len(given) and module.window_size[0] == module.window_size[1]
            if given.shape != own.shape and given.shape[1:] == own.shape[1:] and is_square:
                fitting[key] = resize_rel_pos_bias_table_simple(given, module.window_size, own.shape)
    return fitting
