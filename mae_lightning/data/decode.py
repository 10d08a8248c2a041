"""Bytes of one image to pixels. Only images and arrays are ever read, by decoders named here."""

from __future__ import annotations

import io
import math
from typing import Literal

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

__all__ = ["MAX_PIXELS", "Decoder", "decode_array", "decode_fast", "decode_pillow", "decode_stored", "to_uint8"]

Decoder = Literal["fast", "reference"]
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
MAX_PIXELS = 89_478_485
"""Height times width above which an image is refused (Pillow's own bound)."""
MAX_ARRAY_BYTES = 2**28
GREY_MODES = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "F")


def decode_stored(data: bytes, kind: str) -> NDArray[np.uint8] | NDArray[np.float32]:
    """Pixels of an image, or of an array where the kind is "npy", with the channels that it has.

    Raises:
        ValueError: As `decode_fast` and `decode_array`.
    """
    return decode_array(data) if kind == "npy" else decode_fast(data)


def decode_fast(data: bytes, num_channels: int | None = None) -> NDArray[np.uint8]:
    """Pixels as height, width, channels: JPEG by simplejpeg, all else by Pillow.

    Args:
        data: The file's bytes; the format is found in them, never in a name.
        num_channels: 1 or 3; None keeps grey images grey and makes all others RGB.

    Raises:
        ValueError: It is no image of a known format, it is cut or damaged, or it has too many pixels.
    """
    if data[:2] == b"\xff\xd8":
        try:
            height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
            if colours in ("YCbCr", "RGB", "Gray") and height * width <= MAX_PIXELS:
                grey = num_channels == 1 or (num_channels is None and colours == "Gray")
                return simplejpeg.decode_jpeg(data, colorspace="GRAY" if grey else "RGB")  # type: ignore[no-any-return]
        except ValueError:
            pass  # Pillow takes some damage that is none to the pixels, and names the rest better
    return to_uint8(decode_pillow(data, num_channels))


def decode_pillow(data: bytes, num_channels: int | None = None) -> Image.Image:
    """A Pillow image of mode L or RGB, as the official pipeline decodes it. Orientation tags are not applied.

    Transparency is dropped, not composed; 16-bit grey is scaled to 8 bits, not clipped.

    Raises:
        ValueError: As `decode_fast`.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"{image.width} x {image.height} pixels are more than the limit of {MAX_PIXELS}")
            mode = {1: "L", 3: "RGB"}[num_channels or (1 if image.mode in GREY_MODES else 3)]
            return _converted(image, mode)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ValueError(f"more pixels than the limit of {MAX_PIXELS}") from None
    except UnidentifiedImageError:
        head = "no bytes" if not data else f"bytes that begin with {data[:8]!r}"
        raise ValueError(f"{head} are no image of {', '.join(FORMATS)}") from None
    except Exception as error:  # Pillow's decoders raise anything at damaged bytes
        raise ValueError(str(error) or type(error).__name__) from None


def _converted(image: Image.Image, mode: str) -> Image.Image:
    if image.mode in ("I", "I;16", "I;16B", "I;16L"):
        image = Image.fromarray(np.round(np.asarray(image).astype(np.float64).clip(0, 65535) / 257).astype(np.uint8))
    if image.mode in ("P", "PA"):  # by way of RGBA, as Pillow asks for palettes with transparency
        image = image.convert("RGBA")
    if image.mode in ("LA", "La") and mode == "L":
        return image.getchannel(0)
    image.load()
    return image.convert(mode)


def to_uint8(image: Image.Image) -> NDArray[np.uint8]:
    """A Pillow image as height, width, channels."""
    pixels = np.array(image)
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def decode_array(data: bytes) -> NDArray[np.uint8] | NDArray[np.float32]:
    """A `.npy` array of height, width, channels (or height, width): uint8 stays, uint16 over 65535, floats as float32.

    Raises:
        ValueError: The array holds objects, another type or shape, or not the bytes that its header promises.
    """
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, is_fortran, dtype = read_header[version](stream)
    except (KeyError, ValueError, EOFError, SyntaxError) as error:
        raise ValueError(f"not an array in npy format: {error}") from None
    if dtype.kind not in "uf" or (dtype.kind == "u" and dtype.itemsize > 2):
        raise ValueError(f"an array of {dtype}; uint8, uint16 or floats are meant")
    if len(shape) not in (2, 3) or 0 in shape:
        raise ValueError(f"an array of shape {shape}; height, width, channels are meant")
    begin, expected = stream.tell(), math.prod(shape) * dtype.itemsize
    if expected != len(data) - begin or expected > MAX_ARRAY_BYTES:
        raise ValueError(
            f"an array of shape {shape} needs {expected} bytes (at most {MAX_ARRAY_BYTES}), not {len(data) - begin}"
        )
    flat = np.frombuffer(data, dtype, offset=begin)
    array = flat.reshape(shape[::-1]).T if is_fortran else flat.reshape(shape)
    array = array[:, :, None] if array.ndim == 2 else array
    if dtype == np.uint8:
        return array.astype(np.uint8)
    with np.errstate(over="ignore"):
        values = (array / np.float32(65535) if dtype.kind == "u" else array).astype(np.float32)
    if not np.isfinite(values).all():
        raise ValueError("an array with values that are not finite as float32")
    return values
