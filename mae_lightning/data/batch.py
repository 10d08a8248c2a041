"""What one batch is."""

from __future__ import annotations

from typing import NotRequired, TypedDict

from jaxtyping import Bool, Float32, Int64, UInt8
from torch import Tensor

__all__ = ["Batch"]


class Batch(TypedDict):
    """One micro-batch as every task, callback and probe receives it.

    Attributes:
        image: uint8 in 0..255, normalised on the device as `(x / 255 - mean) / std`; float32 where the source holds
            arrays of another type, already in the units of mean and std.
        label: Class index, -1 where there is none.
        index: The sample's place in its data set; masks and augmentation are drawn from it.
        valid: False for padding and for skipped samples: blank rows that no figure may count.
        repeat: Which of its sample's crops it is, from 0; there in training with several crops of each alone.
    """

    image: UInt8[Tensor, "batch channel height width"] | Float32[Tensor, "batch channel height width"]
    label: Int64[Tensor, " batch"]
    index: Int64[Tensor, " batch"]
    valid: Bool[Tensor, " batch"]
    repeat: NotRequired[Int64[Tensor, " batch"]]
