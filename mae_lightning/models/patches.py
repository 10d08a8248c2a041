"""Between images and sequences of flat patches; any height, width and number of channels."""

from jaxtyping import Float
from torch import Tensor


def patch_grid(image_size: tuple[int, int], patch_size: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of patches in an image; sizes are height and width in pixels.

    Raises:
        ValueError: The image is smaller than a patch, or no whole number of patches.
    """
    image, patch = (f"{height} x {width}" for height, width in (image_size, patch_size))
    pairs = list(zip(image_size, patch_size, strict=True))
    if any(pixels < step for pixels, step in pairs):
        raise ValueError(f"image size {image} is smaller than a patch of {patch}; use larger images or smaller patches")
    if any(pixels % step for pixels, step in pairs):
        height, width = (round(pixels / step) * step for pixels, step in pairs)
        raise ValueError(f"image size {image} is not a multiple of the patch size {patch}; {height} x {width} would be")
    return image_size[0] // patch_size[0], image_size[1] // patch_size[1]


def patchify(
    images: Float[Tensor, "batch channel height width"], patch_size: tuple[int, int]
) -> Float[Tensor, "batch patch pixel"]:
    """Cuts images into flat patches, row by row.

    Inside a patch the order is row, column, channel, as in released weights.
    """
    batch, channels, height, width = images.shape
    rows, columns = patch_grid((height, width), patch_size)
    cells = images.reshape(batch, channels, rows, patch_size[0], columns, patch_size[1])
    return cells.permute(0, 2, 4, 3, 5, 1).reshape(batch, rows * columns, patch_size[0] * patch_size[1] * channels)


def unpatchify(
    patches: Float[Tensor, "batch patch pixel"], patch_size: tuple[int, int], grid: tuple[int, int], num_channels: int
) -> Float[Tensor, "batch channel height width"]:
    """Puts flat patches back together: the inverse of :func:`patchify`."""
    (rows, columns), (height, width) = grid, patch_size
    cells = patches.reshape(len(patches), rows, columns, height, width, num_channels)
    return cells.permute(0, 5, 1, 3, 2, 4).reshape(len(patches), num_channels, rows * height, columns * width)
