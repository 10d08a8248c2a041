"""Channels, type, mean and deviation of a data set that does not say them."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mae_lightning.data.manifest import Manifest
from mae_lightning.data.plan import draw
from mae_lightning.data.reading import can_seek, made_of
from mae_lightning.data.samples import SampleMaker, decode
from mae_lightning.data.sources import Source
from mae_lightning.data.urls import Patience

__all__ = ["channel_statistics", "channels_and_type", "mean_and_std", "some_rows"]

PROBED_IMAGES = 32
MEASURED_IMAGES = 512
STREAMED_SHARDS = 4


def some_rows(manifest: Manifest, count: int, seed: int = 0) -> NDArray[np.int64]:
    """Up to `count` rows, ascending, the same ones in every process; of few shards where they can only stream."""
    random = np.random.RandomState(draw("some rows", seed, len(manifest)) % 2**32)
    rows = np.arange(len(manifest))
    if not can_seek(manifest):
        shards = random.permutation(np.unique(manifest.container))
        enough = int(np.searchsorted(np.cumsum(np.bincount(manifest.container)[shards]), count)) + 1
        shards = shards[: max(STREAMED_SHARDS, enough)]
        rows = rows[np.isin(manifest.container, shards)]
    return np.sort(random.permutation(rows)[:count])


def channels_and_type(
    manifest: Manifest,
    skip_bad: bool = False,
    patience: Patience = Patience(),  # noqa: B008 - frozen
) -> tuple[int, torch.dtype]:
    """What some of the images have: the most channels, and uint8, or float32 for arrays of another type.

    Raises:
        ValueError: An image cannot be read; with `skip_bad`, none can.
    """
    rows = some_rows(manifest, PROBED_IMAGES)
    pictures = made_of(manifest, rows, lambda row, data: decode(data, manifest.kind_of(row), None), skip_bad, patience)
    found = [(int(picture.shape[0]), picture.dtype) for picture in pictures.values() if isinstance(picture, Tensor)]
    return max(channels for channels, _ in found), found[0][1]


def mean_and_std(
    manifest: Manifest,
    make: SampleMaker,
    skip_bad: bool = False,
    patience: Patience = Patience(),  # noqa: B008 - frozen
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """A channel's mean and standard deviation over at most 512 images as evaluation crops them, of pixels in 0..1.

    A channel that never changes gets a deviation of 1.

    Raises:
        ValueError: An image cannot be read; with `skip_bad`, none can.
    """

    def moments(row: int, data: bytes) -> Tensor:
        pixels = make(data, manifest.kind_of(row), int(manifest.place[row]), epoch=0).double()
        pixels = pixels / 255 if make.dtype == torch.uint8 else pixels
        return torch.stack([pixels.mean((1, 2)), pixels.square().mean((1, 2))])

    made = made_of(manifest, some_rows(manifest, MEASURED_IMAGES), moments, skip_bad, patience)
    mean, square = torch.stack(list(made.values())).mean(0)
    std = (square - mean.square()).clamp(min=0).sqrt()
    return _rounded(mean), _rounded(torch.where(std > 0, std, torch.ones_like(std)))


def _rounded(values: Tensor) -> tuple[float, ...]:
    return tuple(round(value, 6) for value in values.tolist())


def channel_statistics(
    source: Source,
    make: SampleMaker,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    *,
    skip_bad: bool,
    patience: Patience = Patience(),  # noqa: B008 - frozen
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """A mean and a deviation for each channel: the given ones, else the source's own, else measured.

    Args:
        source: The data.
        make: Its samples without augmentation.
        mean: The given one; one value serves all channels.
        std: Likewise.
        skip_bad: Whether to leave out what cannot be decoded.
        patience: Of remote reads.

    Raises:
        ValueError: Their number is neither one nor that of the channels, or a deviation is not above 0.
    """
    if source.mean is not None and len(source.mean) in (1, make.num_channels):
        mean, std = mean or source.mean, std or source.std
    if mean is None or std is None:
        measured_mean, measured_std = mean_and_std(source.manifest, make, skip_bad, patience)
        mean, std = mean or measured_mean, std or measured_std
    for name, values in (("mean", mean), ("std", std)):
        if len(values) not in (1, make.num_channels):
            raise ValueError(
                f"{name} {values} has {len(values)} values, and the images have {make.num_channels} channels"
            )
    if min(std) <= 0:
        raise ValueError(f"std {std} must be above 0")
    return _per_channel(mean, make.num_channels), _per_channel(std, make.num_channels)


def _per_channel(values: tuple[float, ...], num_channels: int) -> tuple[float, ...]:
    return values * num_channels if len(values) == 1 else values
