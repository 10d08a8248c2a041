"""Fault R11: every kind of image becomes the channels asked for, and bad ones are errors."""

import io
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from shard_making import encoded, npy

from mae_lightning.data.decode import MAX_PIXELS, decode_array, decode_fast, decode_pillow, to_uint8
from mae_lightning.data.samples import decode

RAMP = np.arange(0, 240, dtype=np.uint8).reshape(12, 20)
COLOURS = np.stack([RAMP, RAMP[::-1], RAMP[:, ::-1]], axis=2)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def rgb(data: bytes) -> np.ndarray:
    return decode_fast(data, 3)


def test_cmyk_becomes_rgb() -> None:
    """R11, 1."""
    image = Image.fromarray(COLOURS).convert("CMYK")
    pixels = rgb(saved(image, "JPEG", quality=95))
    assert pixels.shape == (12, 20, 3)
    assert np.abs(pixels.astype(int) - COLOURS).mean() < 12


def test_grey_with_and_without_transparency_becomes_rgb() -> None:
    """R11, 2 and 3."""
    grey = Image.fromarray(RAMP)
    both = Image.merge("LA", [grey, Image.new("L", grey.size, 7)])
    for image in (grey, both):
        data = saved(image, "PNG")
        np.testing.assert_array_equal(rgb(data), np.repeat(RAMP[:, :, None], 3, axis=2))
        np.testing.assert_array_equal(decode_fast(data, 1)[:, :, 0], RAMP)
        assert decode_fast(data).shape == (12, 20, 1)


def test_transparency_is_dropped_not_composed() -> None:
    """R11, 4: as the official pipeline does it."""
    image = Image.merge("RGBA", [*Image.fromarray(COLOURS).split(), Image.new("L", (20, 12), 3)])
    for kind in ("PNG", "WEBP"):
        np.testing.assert_array_equal(rgb(saved(image, kind, lossless=True, exact=True)), COLOURS)


def test_a_palette_with_transparency_becomes_rgb() -> None:
    """R11, 5."""
    image = Image.fromarray(COLOURS).quantize(256)
    data = saved(image, "PNG", transparency=bytes([0] * 100 + [255] * 156))
    np.testing.assert_array_equal(rgb(data), np.asarray(image.convert("RGB")))


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    """R11, 6."""
    values = np.array([[0, 257, 1000], [32768, 65534, 65535]], np.uint16)
    data = saved(Image.fromarray(values), "PNG")
    expected = np.round(values / 257).astype(np.uint8)
    np.testing.assert_array_equal(decode_fast(data, 1)[:, :, 0], expected)
    np.testing.assert_array_equal(rgb(data), np.repeat(expected[:, :, None], 3, axis=2))


@pytest.mark.parametrize("kind", ["PNG", "GIF", "WEBP", "BMP"])
def test_the_format_is_found_in_the_bytes_not_in_the_name(kind: str) -> None:
    """R11, 7 and 8: named jpg."""
    pixels = decode(saved(Image.fromarray(COLOURS), kind), "jpg", 3)
    assert isinstance(pixels, torch.Tensor)
    assert pixels.shape == (3, 12, 20)


def test_orientation_is_not_applied() -> None:
    """R11, 9."""
    exif = Image.Exif()
    exif[0x0112] = 6
    data = saved(Image.fromarray(COLOURS), "JPEG", exif=exif)
    assert rgb(data).shape == (12, 20, 3)
    assert decode_pillow(data, 3).size == (20, 12)


def test_one_pixel() -> None:
    """R11, 10."""
    assert rgb(encoded(9, size=(1, 1))).tolist() == [[[9, 246, 4]]]


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("size", [(12000, 10000), (60000, 60000)])
def test_too_many_pixels_are_an_error(size: tuple[int, int]) -> None:
    """R11, 11 and 12: headers that promise them; no pixel is decoded."""
    png = bytearray(saved(Image.new("1", (8, 8)), "PNG"))
    header = png.index(b"IHDR")
    png[header + 4 : header + 12] = b"".join(side.to_bytes(4, "big") for side in size)
    png[header + 17 : header + 21] = zlib.crc32(png[header : header + 17]).to_bytes(4, "big")
    jpeg = bytearray(encoded(1, "jpg"))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = b"".join(side.to_bytes(2, "big") for side in size)
    for data in (bytes(png), bytes(jpeg)):
        with pytest.raises(ValueError, match=f"the limit of {MAX_PIXELS}"):
            decode_fast(data, 3)


@pytest.mark.parametrize("kind", ["jpg", "png", "webp"])
@pytest.mark.parametrize("kept", [0.3, 0.7])
def test_cut_images_are_errors(kind: str, kept: float) -> None:
    data = saved(
        Image.fromarray(np.random.RandomState(0).randint(0, 255, (64, 64, 3), np.uint8)),
        {"jpg": "JPEG"}.get(kind, kind),
    )
    for read in (decode_fast, decode_pillow):
        with pytest.raises(ValueError, match=r"."):
            read(data[: int(len(data) * kept)], 3)


def test_jpeg_with_harmless_damage_is_read_as_pillow_reads_it() -> None:
    data = bytearray(encoded(50, "jpg", (32, 32)))
    scan = data.index(b"\xff\xda")
    data[scan:scan] = b"\0\0\0"  # extraneous bytes before a marker
    np.testing.assert_array_equal(rgb(bytes(data)), to_uint8(decode_pillow(bytes(data), 3)))


def test_fast_and_reference_agree_on_jpeg_to_a_rounding() -> None:
    data = saved(Image.fromarray(np.kron(COLOURS, np.ones((8, 8, 1), np.uint8))), "JPEG", quality=92)
    difference = np.abs(rgb(data).astype(int) - to_uint8(decode_pillow(data, 3)))
    assert difference.max() <= 2
    grey = decode_fast(data, 1).astype(int) - to_uint8(decode_pillow(data, 1))
    assert np.abs(grey).max() <= 2


def test_grey_jpeg_keeps_one_channel_unless_asked() -> None:
    data = encoded(80, "jpg", mode="L")
    assert decode_fast(data).shape[2] == 1
    assert rgb(data).shape[2] == 3
    assert decode(data, "jpg", None, "reference").mode == "L"


SHAPES = st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 7))


FINITE = {"allow_nan": False, "allow_infinity": False}


@given(st.sampled_from([np.uint8, np.uint16, np.float16, np.float32, np.float64]), st.data())
def test_arrays_keep_their_values(dtype: type[np.generic], data: st.DataObject) -> None:
    finite = FINITE if dtype in (np.float16, np.float32) else {}
    values = st.floats(-1e5, 1e5) if dtype is np.float64 else arrays.from_dtype(np.dtype(dtype), **finite)
    array = data.draw(arrays.arrays(dtype, SHAPES, elements=values))
    for stored in (array, np.asfortranarray(array), array.astype(array.dtype.newbyteorder(">"))):
        found = decode_array(npy(stored))
        assert found.dtype == (np.uint8 if dtype is np.uint8 else np.float32)
        scale = np.float32(65535) if dtype is np.uint16 else np.float32(1)
        expected = array if dtype is np.uint8 else array.astype(np.float32) / scale
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_arrays_that_are_not_finite_are_errors(value: float) -> None:
    with pytest.raises(ValueError, match="values that are not finite"):
        decode_array(npy(np.full((2, 2, 1), value)))


def test_arrays_of_two_dimensions_have_one_channel() -> None:
    assert decode_array(npy(RAMP)).shape == (12, 20, 1)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"hello", "not an array in npy format"),
        (npy(np.zeros((2, 2), np.int32)), "an array of int32; uint8, uint16 or floats are meant"),
        (npy(np.zeros((2, 2, 2, 2), np.uint8)), r"an array of shape \(2, 2, 2, 2\)"),
        (npy(np.zeros((0, 2, 1), np.uint8)), r"an array of shape \(0, 2, 1\)"),
        (npy(RAMP)[:-1], r"needs 240 bytes .*, not 239"),
    ],
)
def test_other_arrays_are_errors(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decode_array(data)


def test_channels_that_cannot_be_had_are_errors() -> None:
    with pytest.raises(ValueError, match="images have 1 or 3 channels, not 4; more come as npy arrays"):
        decode(encoded(1), "png", 4)
    with pytest.raises(ValueError, match="an array of 5 channels where 3 are meant"):
        decode(npy(np.zeros((2, 2, 5), np.uint8)), "npy", 3)
