"""The table of encoder sizes and the grammar of their names."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class ViTSize:
    """Shape of a vision transformer.

    Attributes:
        dim: Channels of a token.
        depth: Number of blocks.
        num_heads: Attention heads a block.
        patch_size: Side of a patch in pixels, or its height and width.
        mlp_ratio: Hidden channels of a block's MLP over ``dim``.
        class_token: Whether a class token stands before the patches.
        num_registers: Register tokens between the class token and the patches (Darcet et al. 2023, arXiv 2309.16588).

    Raises:
        ValueError: ``dim`` is not a multiple of ``num_heads``.
    """

    dim: int
    depth: int
    num_heads: int
    patch_size: int | tuple[int, int]
    mlp_ratio: float = 4.0
    class_token: bool = True
    num_registers: int = 0

    def __post_init__(self) -> None:
        if self.dim % self.num_heads:
            raise ValueError(f"a width of {self.dim} cannot be split into {self.num_heads} heads; use a multiple of it")

    @property
    def patch_height_width(self) -> tuple[int, int]:
        """Height and width of a patch in pixels."""
        return self.patch_size if isinstance(self.patch_size, tuple) else (self.patch_size, self.patch_size)


@dataclass(frozen=True)
class SwinSize:
    """Shape of a Swin Transformer; channels and heads double from stage to stage, where the grid halves.

    Attributes:
        dim: Channels of a token in the first stage.
        depths: Number of blocks of each stage.
        num_heads: Attention heads of the first stage's blocks.
        patch_size: Side of a patch in pixels.
        window_size: Side of an attention window in tokens, or its height and width; by default the whole grid of the
            last stage, which fits every stage: 7 at 224 pixels and 6 at 192 with patch 4 and four stages, as published.
        mlp_ratio: Hidden channels of a block's MLP over its channels.

    Raises:
        ValueError: ``dim`` is not a multiple of ``num_heads``, or there is no stage.
    """

    dim: int
    depths: tuple[int, ...]
    num_heads: int
    patch_size: int
    window_size: int | tuple[int, int] | None = None
    mlp_ratio: float = 4.0

    def __post_init__(self) -> None:
        if self.dim % self.num_heads:
            raise ValueError(f"a width of {self.dim} cannot be split into {self.num_heads} heads; use a multiple of it")
        if not self.depths or min(self.depths) < 1:
            raise ValueError(f"depths {list(self.depths)} must be one number of blocks above zero for each stage")

    @property
    def stride(self) -> int:
        """Side of the image part behind one token of the last stage, in pixels."""
        return int(self.patch_size * 2 ** (len(self.depths) - 1))

    @property
    def heads(self) -> tuple[int, ...]:
        """Attention heads of each stage's blocks."""
        return tuple(self.num_heads * 2**stage for stage in range(len(self.depths)))

    def window(self, image_size: tuple[int, int]) -> int | tuple[int, int]:
        """Side of an attention window in tokens, or its height and width, for images of a size in pixels."""
        return self.window_size or (image_size[0] // self.stride, image_size[1] // self.stride)


SWIN_PREFIX = "swin-"
"""How our own names of a Swin start; timm's start with ``swin_``."""

SIZES: dict[str, ViTSize] = {
    "nano": ViTSize(96, 6, 3, patch_size=4),  # ours, for demonstrations on a CPU
    "tiny": ViTSize(192, 12, 3, patch_size=16),  # DeiT-Ti: Touvron et al. 2020, arXiv 2012.12877, Table 1
    "small": ViTSize(384, 12, 6, patch_size=16),  # DeiT-S: the same table
    "base": ViTSize(768, 12, 12, patch_size=16),  # ViT-Base: Dosovitskiy et al. 2020, arXiv 2010.11929, Table 1
    "large": ViTSize(1024, 24, 16, patch_size=16),  # ViT-Large: the same table
    "huge": ViTSize(1280, 32, 16, patch_size=14),  # ViT-Huge: the same table; patch 14 as in MAE, Table 3
}

SWIN_SIZES: dict[str, SwinSize] = {
    "swin-nano": SwinSize(32, (2, 2, 2), 2, patch_size=2),  # ours, for demonstrations on a CPU
    "swin-tiny": SwinSize(96, (2, 2, 6, 2), 3, patch_size=4),  # Liu et al. 2021, arXiv 2103.14030, Section 3.3
    "swin-small": SwinSize(96, (2, 2, 18, 2), 3, patch_size=4),  # the same section
    "swin-base": SwinSize(128, (2, 2, 18, 2), 4, patch_size=4),  # the same section
    "swin-large": SwinSize(192, (2, 2, 18, 2), 6, patch_size=4),  # the same section
}


def named_size(name: str) -> ViTSize:
    """The vision transformer called ``SIZE/PATCH``: ``base/16``, ``nano/4``, or ``tiny/8x4``, patches 8 high, 4 wide.

    Raises:
        ValueError: There is no such size, or the patch is not one or two whole numbers above zero.
    """
    if name.startswith(SWIN_PREFIX):
        raise ValueError(f"encoder '{name}' is a Swin, which drops no tokens; pretrain it with SimMIMPretraining")
    size, sides = _parse(name, SIZES, "'{size}/16' or '{size}/8x4' (h x w)")
    return replace(SIZES[size], patch_size=(sides[0], sides[-1]))


def named_swin(name: str) -> SwinSize:
    """The Swin called ``SIZE/PATCH``: ``swin-base/4``, ``swin-nano/2``.

    Raises:
        ValueError: There is no such size, or the patch is not a whole number above zero.
    """
    size, sides = _parse(name, SWIN_SIZES, "'{size}/4'")
    if sides[0] != sides[-1]:
        raise ValueError(f"encoder '{name}' has patches of {sides[0]} x {sides[-1]}; Swin's are square: '{size}/4'")
    return replace(SWIN_SIZES[size], patch_size=sides[0])


def explicit_size(values: Mapping[str, Any]) -> ViTSize | SwinSize:
    """The sizes of a ViT or a Swin from the plain values that ``dataclasses.asdict`` gives, lists for tuples or not."""
    plain: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    return SwinSize(**plain) if "depths" in plain else ViTSize(**plain)


def _parse(name: str, table: Mapping[str, object], spelling: str) -> tuple[str, list[int]]:
    """Size and sides of the patch in a name.

    Args:
        name: The name.
        table: The sizes that there are.
        spelling: What would be right, for the error.
    """
    size, _, patch = name.partition("/")
    if size not in table:
        raise ValueError(f"no size '{size}' in encoder '{name}'; the sizes are {', '.join(table)}")
    sides = patch.split("x")
    if len(sides) > 2 or not all(side.isdecimal() and int(side) > 0 for side in sides):
        raise ValueError(f"no patch size '{patch}' in encoder '{name}'; write it as {spelling.format(size=size)}")
    return size, [int(side) for side in sides]
