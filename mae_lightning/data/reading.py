"""Bytes of samples: by offset where the container can seek, through webdataset where it can only stream."""

from __future__ import annotations

import gzip
import itertools
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from webdataset.tariterators import group_by_keys, tar_file_expander

from mae_lightning.data.manifest import IMAGE_KINDS, Manifest
from mae_lightning.data.plan import Lanes, default_lanes
from mae_lightning.data.tars import DAMAGE, is_gzipped, split_name
from mae_lightning.data.urls import Patience, is_remote, open_url, public_name

__all__ = [
    "MAX_OPEN",
    "UNPACK_LIMIT",
    "Files",
    "can_seek",
    "lanes_for",
    "made_of",
    "naming",
    "read_or_reason",
    "read_rows",
    "stream_bytes",
]

Made = TypeVar("Made")
COMPRESSED_LANES = 8
STREAMED_LANES = 64
MAX_OPEN = 64
"""Shards that a reader holds open."""
UNPACK_LIMIT = 256 * 2**20
"""Bytes of unpacked shards that a worker holds: compressed data sets up to this size are read in any order."""


def can_seek(manifest: Manifest) -> bool:
    """Whether any sample can be read at any time: files, uncompressed local shards, or few enough compressed ones."""
    if not manifest.packed:
        return True
    if is_remote(manifest.base) or any(is_remote(name) for name in manifest.containers):
        return False
    packed = [is_gzipped(name) for name in manifest.containers]
    return not any(packed) or unpacked_bytes(manifest) <= UNPACK_LIMIT


def unpacked_bytes(manifest: Manifest) -> int:
    """Size of all shards' contents up to their last image."""
    ends = np.zeros(len(manifest.containers), np.int64)
    np.maximum.at(ends, manifest.container, manifest.offset + manifest.size)
    return int(ends.sum())


def lanes_for(manifest: Manifest, batch_size: int) -> Lanes:
    """A true permutation where any sample can be read at any time, else lanes that stream."""
    if can_seek(manifest):
        return Lanes()
    packed = any(is_gzipped(name) for name in manifest.containers)
    return default_lanes(
        batch_size,
        len(manifest.containers),
        float(manifest.size.mean()),
        COMPRESSED_LANES if packed else STREAMED_LANES,
    )


class Files:
    """Bytes of any sample of containers that can seek; at most `max_open` files stay open.

    Small compressed shards are unpacked into memory once (`UNPACK_LIMIT` bounds them all together).
    """

    def __init__(self, manifest: Manifest, max_open: int = MAX_OPEN) -> None:
        self.manifest = manifest
        self.max_open = max_open
        self._open: OrderedDict[int, int] = OrderedDict()
        self._unpacked: dict[int, bytes] = {}

    def read(self, row: int) -> bytes:
        """The image's bytes as stored.

        Raises:
            ValueError: They are not all there.
            OSError: The file cannot be read.
        """
        manifest, container = self.manifest, int(self.manifest.container[row])
        if not manifest.packed:
            return Path(manifest.path(container)).read_bytes()
        offset, size = int(manifest.offset[row]), int(manifest.size[row])
        if is_gzipped(manifest.containers[container]):
            data = self._unpack(container)[offset : offset + size]
        else:
            data = os.pread(self._descriptor(container), size, offset)
        if len(data) != size:
            raise ValueError(f"the shard ends after {len(data)} of the image's {size} bytes")
        return data

    def _descriptor(self, container: int) -> int:
        descriptor = self._open.pop(container, None)
        if descriptor is None:
            descriptor = os.open(self.manifest.path(container), os.O_RDONLY)
        self._open[container] = descriptor
        if len(self._open) > self.max_open:
            os.close(self._open.popitem(last=False)[1])
        return descriptor

    def _unpack(self, container: int) -> bytes:
        if container not in self._unpacked:
            with gzip.open(self.manifest.path(container)) as stream:
                self._unpacked[container] = stream.read(UNPACK_LIMIT)
        return self._unpacked[container]

    def close(self) -> None:
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()

    def __del__(self) -> None:
        self.close()


def stream_bytes(
    manifest: Manifest,
    rows: NDArray[np.int64],
    patience: Patience = Patience(),  # noqa: B008 - frozen
) -> Iterator[tuple[int, bytes | Exception]]:
    """Images at `rows`, run by run of rows of one shard; each run is one pass over its shard, in the shard's order.

    A row that cannot be read comes with the reason in place of its bytes.
    """
    for container, run in itertools.groupby(rows.tolist(), key=lambda row: int(manifest.container[row])):
        wanted = {manifest.keys[row]: row for row in run}
        reason: Exception = ValueError("the shard has no such sample: it is cut, or not the manifest's")
        try:
            for key, data in _members(manifest.path(container), wanted, manifest, patience):
                yield wanted.pop(key), data
                if not wanted:
                    break
        except DAMAGE as error:
            reason = _as_raised(error)
        for row in wanted.values():
            yield row, reason


def _as_raised(error: Exception) -> Exception:
    """The error without the stream and the name that webdataset adds to what it says."""
    is_plain = isinstance(error, OSError) or len(error.args) < 2
    return error if is_plain else ValueError(str(error.args[0]))


def _members(url: str, wanted: dict[str, int], manifest: Manifest, patience: Patience) -> Iterator[tuple[str, bytes]]:
    kinds = {key: IMAGE_KINDS[manifest.kind[row]] for key, row in wanted.items()}
    with open_url(url, patience) as stream:
        files = tar_file_expander([{"url": public_name(url), "stream": stream}], select_files=_is_image)
        for sample in group_by_keys(files):
            key = sample["__key__"]
            if key in wanted and kinds[key] in sample:
                yield key, sample[kinds[key]]


def _is_image(name: str) -> bool:
    split = split_name(name)
    return split is not None and split[1] in IMAGE_KINDS


@contextmanager
def naming(manifest: Manifest, row: int) -> Iterator[None]:
    """Errors of reading or decoding a sample become a ValueError that names it."""
    try:
        yield
    except DAMAGE as error:
        raise ValueError(f"{manifest.describe(row)}: {error}") from None


def read_rows(manifest: Manifest, rows: NDArray[np.int64]) -> Iterator[tuple[int, bytes]]:
    """Images at `rows` (ascending), however they can be read.

    Raises:
        ValueError: One cannot be read; names it.
    """
    for row, data in read_or_reason(manifest, rows):
        with naming(manifest, row):
            if isinstance(data, Exception):
                raise data
        yield row, data


def made_of(
    manifest: Manifest,
    rows: NDArray[np.int64],
    make: Callable[[int, bytes], Made],
    skip_bad: bool = False,
    patience: Patience = Patience(),  # noqa: B008 - frozen
    warn: Callable[[str], object] = lambda reason: None,
) -> dict[int, Made]:
    """What becomes of the images at `rows` (ascending), by row.

    Args:
        manifest: The data.
        rows: Of what.
        make: Given the row and its bytes.
        skip_bad: Whether rows that cannot be read or made are left out, which every process finds the same.
        patience: Of remote reads.
        warn: Called with the reason of each row that is left out.

    Raises:
        ValueError: A row cannot be read or made; with `skip_bad`, none can. Names it.
    """
    made: dict[int, Made] = {}
    bad: ValueError | None = None
    for row, data in read_or_reason(manifest, rows, patience):
        try:
            with naming(manifest, row):
                if isinstance(data, Exception):
                    raise data
                made[row] = make(row, data)
        except ValueError as error:
            bad = error
            if not skip_bad:
                raise
            warn(str(error))
    if bad is not None and not made:
        raise bad
    return made


def read_or_reason(
    manifest: Manifest,
    rows: NDArray[np.int64],
    patience: Patience = Patience(),  # noqa: B008 - frozen
) -> Iterator[tuple[int, bytes | Exception]]:
    """As `read_rows`; a row that cannot be read comes with the reason in place of its bytes."""
    if not can_seek(manifest):
        yield from stream_bytes(manifest, rows, patience)
        return
    files = Files(manifest)
    for row in rows.tolist():
        try:
            yield row, files.read(row)
        except DAMAGE as error:
            yield row, error
