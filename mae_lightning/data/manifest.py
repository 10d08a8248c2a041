"""The table of a data set's samples: where each one lies, under which key, with which label."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from mae_lightning.data.strings import Strings
from mae_lightning.data.urls import public_name

__all__ = ["IMAGE_KINDS", "ImageKind", "Manifest"]

ImageKind = Literal["jpg", "jpeg", "png", "webp", "gif", "bmp", "npy"]
IMAGE_KINDS: tuple[ImageKind, ...] = get_args(ImageKind)


@dataclass(frozen=True)
class Manifest:
    """One row a sample, rows of one container together and in the order they are stored.

    A container is a shard, or in an image folder a single file. Everything is an array, so that a plan over a million
    samples takes no Python loop and forked workers share the memory.

    Attributes:
        base: Folder or URL that the containers' names are relative to.
        packed: Containers are tar shards; otherwise each is one image file.
        containers: Names of the shards or files.
        container_bytes: Their sizes as stored; 0 where it was not looked up.
        container: Of each sample, which container holds it.
        keys: A sample's name: the member's name in its shard, or the path in its folder, without the extension.
        kind: A sample's place in `IMAGE_KINDS`.
        offset: Where the image's bytes begin in the (unpacked) container.
        size: How many bytes the image has; 0 for a whole file.
        label: Class index, -1 where there is none.
        place: The sample's place in the whole data set, which a selection keeps: it seeds masks and augmentation.
    """

    base: str
    packed: bool
    containers: Strings
    container_bytes: NDArray[np.int64]
    container: NDArray[np.int64]
    keys: Strings
    kind: NDArray[np.uint8]
    offset: NDArray[np.int64]
    size: NDArray[np.int64]
    label: NDArray[np.int64]
    place: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.container)

    @property
    def is_labelled(self) -> bool:
        return len(self) > 0 and bool(self.label[0] >= 0)

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """Samples of each container that has any, in order."""
        counts = np.bincount(self.container, minlength=len(self.containers)).astype(np.int64)
        return counts[counts > 0]

    @cached_property
    def parts(self) -> dict[str, int]:
        """Samples of each shard, or of each folder of images, by its name below the base."""
        names = [public_name(name) for name in self.containers]
        if not self.packed:
            names = [name.rpartition("/")[0] or "." for name in names]
        counts: Counter[str] = Counter()
        for name, count in zip(names, np.bincount(self.container, minlength=len(names)).tolist(), strict=True):
            counts[name] += count
        return dict(counts)

    @cached_property
    def digest(self) -> str:
        """A sha256 over what the samples are, wherever they lie: equal digests mean the same data in the same order."""
        parts = hashlib.sha256()
        for array in (self.keys.text, self.keys.ends, self.container, self.kind, self.size, self.label, self.place):
            parts.update(array.tobytes())
        return parts.hexdigest()

    def path(self, container: int) -> str:
        """Path or URL of a container."""
        name = self.containers[container]
        return f"{self.base}/{name}" if self.base else name

    def kind_of(self, row: int) -> ImageKind:
        return IMAGE_KINDS[int(self.kind[row])]

    def describe(self, row: int) -> str:
        """A sample as errors name it: its container and its key."""
        where = public_name(self.path(int(self.container[row])))
        return f"{where}: sample '{self.keys[row]}'" if self.packed else where

    def select(self, rows: NDArray[np.int64]) -> Manifest:
        """The samples at `rows` (ascending) alone, each with the place it had."""
        assert np.all(np.diff(rows) > 0), "rows of a selection ascend, so that containers stay together"
        return Manifest(
            self.base,
            self.packed,
            self.containers,
            self.container_bytes,
            container=self.container[rows],
            keys=self.keys.take(rows),
            kind=self.kind[rows],
            offset=self.offset[rows],
            size=self.size[rows],
            label=self.label[rows],
            place=self.place[rows],
        )

    def row_of(self, place: int) -> int:
        """The row of the sample with that place in the whole data set."""
        row = int(np.searchsorted(self.place, place))
        if row == len(self) or self.place[row] != place:
            raise ValueError(f"no sample with index {place} among {len(self)}")
        return row
