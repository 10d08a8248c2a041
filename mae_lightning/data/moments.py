"""Mean and deviation of many images, gathered shard by shard, the same to the bit whoever gathers them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

__all__ = ["Sums", "add_image", "mean_and_deviation"]

DIGITS = 6
LEVELS = np.arange(256)

Sums = dict[str, list[float]]
"""By the images' number of channels: how many images, then sums of each channel's means, then of its mean squares."""


def add_image(sums: Sums, pixels: NDArray[np.uint8] | NDArray[np.float32]) -> None:
    """Count one image of height, width, channels: bytes as 0..1, floats in their own units."""
    flat = pixels.reshape(-1, pixels.shape[2])
    if flat.dtype == np.uint8:  # whole numbers: exact in any order of summing
        counts = [np.bincount(channel, minlength=256) for channel in flat.T]
        mean = [int(count @ LEVELS) / (255 * len(flat)) for count in counts]
        square = [int(count @ LEVELS**2) / (255**2 * len(flat)) for count in counts]
    else:
        values = flat.astype(np.float64)
        mean, square = values.mean(0).tolist(), np.square(values).mean(0).tolist()
    row, channels = [1.0, *mean, *square], str(len(mean))
    before = sums.get(channels, [0.0] * len(row))
    sums[channels] = [old + new for old, new in zip(before, row, strict=True)]


def mean_and_deviation(gathered: Iterable[Mapping[str, list[float]]]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """A channel's mean and standard deviation over images that count alike; grey ones count for each of three channels.

    A channel that never changes gets a deviation of 1.

    Raises:
        ValueError: The images have different numbers of channels, other than grey and colour.
    """
    gathered = list(gathered)
    channels = sorted({int(number) for sums in gathered for number in sums})
    most = channels[-1]
    if channels not in ([most], [1, 3]):
        raise ValueError(f"images of {' and '.join(map(str, channels))} channels in one data set")
    total = np.zeros((2, most))
    for sums in gathered:
        for row in sums.values():
            total += np.reshape(row[1:], (2, -1))
    mean, square = total / sum(row[0] for sums in gathered for row in sums.values())
    deviation = np.sqrt(np.maximum(square - np.square(mean), 0))
    return _rounded(mean), _rounded(np.where(deviation > 0, deviation, 1))


def _rounded(values: NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(round(value, DIGITS) for value in values.tolist())
