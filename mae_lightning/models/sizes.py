"""The table of encoder sizes and the grammar of their names."""

from dataclasses import dataclass, replace


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


SIZES: dict[str, ViTSize] = {
    "nano": ViTSize(96, 6, 3, patch_size=4),  # ours, for demonstrations on a CPU
    "tiny": ViTSize(192, 12, 3, patch_size=16),  # DeiT-Ti: Touvron et al. 2020, arXiv 2012.12877, Table 1
    "small": ViTSize(384, 12, 6, patch_size=16),  # DeiT-S: the same table
    "base": ViTSize(768, 12, 12, patch_size=16),  # ViT-Base: Dosovitskiy et al. 2020, arXiv 2010.11929, Table 1
    "large": ViTSize(1024, 24, 16, patch_size=16),  # ViT-Large: the same table
    "huge": ViTSize(1280, 32, 16, patch_size=14),  # ViT-Huge: the same table; patch 14 as in MAE, Table 3
}


def named_size(name: str) -> ViTSize:
    """The size called ``SIZE/PATCH``: ``base/16``, ``nano/4``, or ``tiny/8x4`` for patches 8 high and 4 wide.

    Raises:
        ValueError: There is no such size, or the patch is not one or two whole numbers above zero.
    """
    size, _, patch = name.partition("/")
    if size not in SIZES:
        raise ValueError(f"no size '{size}' in encoder '{name}'; the sizes are {', '.join(SIZES)}")
    sides = patch.split("x")
    if len(sides) > 2 or not all(side.isdecimal() and int(side) > 0 for side in sides):
        raise ValueError(
            f"no patch size '{patch}' in encoder '{name}'; write it as '{size}/16' or '{size}/8x4' (h x w)"
        )
    return replace(SIZES[size], patch_size=(int(sides[0]), int(sides[-1])))
