"""What is to be packed: samples in an order of their own, wherever they come from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mae_lightning.data.strings import Strings
from mae_lightning.data.subsets import hold_out

__all__ = ["Contents", "StoredImage", "hold_out_val"]

StoredImage = tuple[bytes | Exception, str]
"""An image's bytes, or why they cannot be read, and its kind."""


@dataclass(frozen=True)
class Contents:
    """One split on its way into shards.

    Attributes:
        keys: A name for each sample, unlike all others.
        labels: Class indices, -1 where there is none.
        rows: Where the samples lie in what `read` and `describe` take.
        read: The stored images at rows, in the order given.
        describe: A sample as errors name it.
        digest: Of everything that the packed bytes depend on.
        class_names: Of the labels, where there are names.
        mean_bytes: Of an image as it is stored; None where images are only encoded on the way.
        is_ordered: Samples can only be read in their order.
    """

    keys: Strings
    labels: NDArray[np.int64]
    rows: NDArray[np.int64]
    read: Callable[[NDArray[np.int64]], Iterator[StoredImage]]
    describe: Callable[[int], str]
    digest: str
    class_names: tuple[str, ...] | None = None
    mean_bytes: float | None = None
    is_ordered: bool = False

    def __len__(self) -> int:
        return len(self.rows)

    def select(self, places: NDArray[np.int64]) -> Contents:
        """Some of the samples alone."""
        return replace(self, keys=self.keys.take(places), labels=self.labels[places], rows=self.rows[places])


def hold_out_val(splits: dict[str, Contents], fraction: float, seed: int) -> dict[str, Contents]:
    """Take a validation split out of the only one: of each class alike, where there are labels.

    Raises:
        ValueError: There is a validation split already, or too few samples for one.
    """
    if len(splits) > 1:
        raise ValueError(
            f"--val-fraction {fraction:g}: the source has the splits {', '.join(splits)} already; leave it out, or"
            " name one of them, SOURCE:train"
        )
    if not 0 < fraction < 1:
        raise ValueError(f"--val-fraction {fraction:g} must be between 0 and 1")
    (whole,) = splits.values()
    labels = whole.labels if len(whole) and whole.labels.min() >= 0 else np.zeros(len(whole), np.int64)
    kept, held = hold_out(labels, fraction, seed)
    return {"train": whole.select(kept), "val": whole.select(held)}
