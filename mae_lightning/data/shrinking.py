"""Re-encoding large images smaller."""

from __future__ import annotations

import io

from PIL import Image

from mae_lightning.data.decode import decode_pillow

__all__ = ["shrink"]


def shrink(data: bytes, kind: str, shorter_side: int, quality: int) -> tuple[bytes, str]:
    """An image as JPEG with that many pixels on its shorter side, bicubic; a smaller one stays as it is.

    Returns:
        Its bytes, and its kind.

    Raises:
        ValueError: It cannot be decoded.
    """
    image = decode_pillow(data)
    shortest = min(image.size)
    if shortest <= shorter_side:
        return data, kind
    size = tuple(round(side * shorter_side / shortest) for side in image.size)
    buffer = io.BytesIO()
    image.resize((size[0], size[1]), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue(), "jpg"
